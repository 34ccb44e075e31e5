"""What must survive a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: What a killed process may leave behind in a folder (glob).
DRAFTS: Final = ".*.draft"


def flush(path: Path) -> None:
    """Bring a file, or the names within a folder, to stable storage (fsync(2)).

    Raises
    ------
    OSError
        If it cannot be read, or the disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def draft_of(path: Path) -> Path:
    """Where a file is written that shall be at ``path`` when it is whole: in the same folder."""
    return path.with_name(f".{path.name}.draft")


@contextmanager
def durable_file(path: Path) -> Iterator[Path]:
    """The name of a draft, for the body to write; at its end the file at ``path`` is that.

    Whatever happens there is the file that was there before, or the new one, whole: its bytes are
    on stable storage before it gets its name, and then so is the name. Where the body ends by an
    error the draft is deleted.

    Raises
    ------
    OSError
        If it cannot be put in its place, or the disk fails.
    """
    draft = draft_of(path)
    try:
        yield draft
        flush(draft)
        draft.replace(path)
        flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)
