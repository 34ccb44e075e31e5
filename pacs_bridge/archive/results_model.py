"""The one model that the results in a folder are of.

A folder says so in a file of its own. Where that file is not there, its results are asked, and
what else lies there: nothing is put among results of another model, or among other files.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from inference.durable import durable_file
from pacs_bridge.archive.results_folder import RECORD_NAME, RECORD_SCHEMA

_MODEL_NAME: Final = ".model.json"
_LOCK_NAME: Final = ".lock"
_SHELF: Final = re.compile(r"[0-9a-f]{2}")
#: Of the disk that is mounted there; names that begin with a dot are of systems, or our own.
_OF_THE_DISK: Final = ("lost+found",)


class ForeignResultsError(Exception):
    """A folder that holds something else than results of the wanted model."""


def is_marked(folder: Path) -> bool:
    """Whether a run has put results, or was about to put them, into this folder."""
    return (folder / _MODEL_NAME).exists()


@contextmanager
def held_for(folder: Path, model: str) -> Iterator[None]:
    """Hold a folder for results of a model; it is made where it is not there.

    Runs of the same model may hold it together. The hold goes with the process, however it ends;
    on a disk that knows no locks there is none.

    Raises
    ------
    ForeignResultsError
        If results of another model lie there, or are about to, or other files do.
    OSError
        If the folder cannot be made or read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        is_alone = _is_alone(descriptor)
        marked = _marked(folder)
        if marked != model:
            _check(folder, marked, model, is_alone)
            _mark(folder, model)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _is_alone(descriptor: int) -> bool:
    """Whether no other run holds the folder; waits while one is finding out the same."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return False
    except OSError:  # a disk without locks
        return True
    return True


def _check(folder: Path, marked: str | None, model: str, is_alone: bool) -> None:
    """Look whether a folder that is not marked for a model may become its."""
    if not is_alone and marked is not None:
        raise ForeignResultsError(f"a run of model {marked} puts its results there")
    for known in _models(folder):
        if known is None:
            raise ForeignResultsError("it holds files that are no results of an archive run")
        if marked is not None or known != model:
            raise ForeignResultsError(f"results of model {marked or known} lie there")


def _models(folder: Path) -> Iterator[str | None]:
    """The model of everything that lies in a folder; None for what is no result."""
    for entry in folder.iterdir():
        if entry.name.startswith(".") or entry.name in _OF_THE_DISK:
            continue
        if not _SHELF.fullmatch(entry.name) or not entry.is_dir():
            yield None
            continue
        for result in entry.iterdir():
            yield _model(result / RECORD_NAME)


def _model(record: Path) -> str | None:
    """The model of a result; None if it is no result of ours."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(record.read_bytes())
        if told["schema"] == RECORD_SCHEMA:
            return str(told["made"]["model"])
    return None


def _marked(folder: Path) -> str | None:
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / _MODEL_NAME).read_bytes())["model"])
    return None


def _mark(folder: Path, model: str) -> None:
    """Write the mark; nobody ever sees a part of it."""
    with durable_file(folder / _MODEL_NAME) as draft:
        draft.write_text(json.dumps({"model": model}) + "\n", encoding="utf-8")
