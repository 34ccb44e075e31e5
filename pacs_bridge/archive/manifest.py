"""A list of what is to be run: series UIDs, or folders and files, one a line of a CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError

_SERIES: Final = ("seriesinstanceuid", "series_instance_uid", "series_uid", "seriesuid", "series")
_STUDY: Final = ("studyinstanceuid", "study_instance_uid", "study_uid", "studyuid", "study")
_PATH: Final = ("path", "folder", "file", "filename", "directory")
_UID: Final = re.compile(r"[0-9][0-9.]{0,63}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a list names."""

    series: dict[str, str]  #: Series Instance UIDs, each with its study's, which may be empty
    paths: tuple[Path, ...]
    line_count: int  #: that name something
    problems: tuple[int, ...]  #: numbers of lines that name neither


def read_manifest(path: Path) -> Manifest:
    """Read a list.

    The first line may name the columns: ``SeriesInstanceUID`` or ``path``, perhaps
    ``StudyInstanceUID``; others are passed over. Without it the first column is what counts. A
    path that is not absolute starts at the folder of the list.

    Raises
    ------
    PermanentError
        ``unreadable-file`` if it cannot be read or is no text.
    """
    series: dict[str, str] = {}
    paths: dict[Path, None] = {}
    problems = []
    count = 0
    for number, uid, study, name in _lines(path):
        if not (uid or name):
            problems.append(number)
            continue
        count += 1
        if uid:
            series[uid] = study or series.get(uid, "")
        else:
            paths[path.parent / name] = None
    return Manifest(series, tuple(paths), count, tuple(problems))


def _lines(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Number, series UID, study UID and path of each line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sample = file.read(4096)
            file.seek(0)
            rows = csv.reader(file, delimiter=_delimiter(sample))
            columns: tuple[int | None, int | None, int | None] | None = None
            for row in rows:
                cells = [cell.strip() for cell in row]
                if not any(cells) or cells[0].startswith("#"):
                    continue
                if columns is None:
                    columns = _columns(cells)
                    if any(column is not None for column in columns):
                        continue
                yield (rows.line_num, *_values(cells, columns))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise PermanentError(Reason.UNREADABLE_FILE, f"the list of series: {told}") from error


def _delimiter(sample: str) -> str:
    first = sample.partition("\n")[0]
    return max(",;\t", key=first.count)


def _columns(cells: list[str]) -> tuple[int | None, int | None, int | None]:
    """Which columns hold series UID, study UID and path; None where none does."""
    names = [cell.lower().replace(" ", "").replace("-", "_") for cell in cells]

    def find(known: tuple[str, ...]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    return find(_SERIES), find(_STUDY), find(_PATH)


def _values(
    cells: list[str], columns: tuple[int | None, int | None, int | None]
) -> tuple[str, str, str]:
    if columns == (None, None, None):
        first = cells[0]
        return (first, "", "") if _UID.fullmatch(first) else ("", "", first)
    uid, study, name = (
        cells[column] if column is not None and column < len(cells) else "" for column in columns
    )
    return (uid if _UID.fullmatch(uid) else ""), (study if _UID.fullmatch(study) else ""), name
