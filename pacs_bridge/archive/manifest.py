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


class UnusableListError(Exception):
    """A list that does not say what it is to select: nothing is planned by it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a list names."""

    series: dict[str, str]  #: Series Instance UIDs, each with its study's, which may be empty
    paths: tuple[Path, ...]
    line_count: int  #: that name something
    problems: tuple[int, ...]  #: numbers of lines that name neither
    mangled: tuple[int, ...] = ()  #: of those, the ones with something that is no UID

    def check(self) -> None:
        """Look whether it says what it is to select.

        Raises
        ------
        UnusableListError
            If it names nothing, or has UIDs that are none, as spreadsheets make them.
        """
        if self.mangled:
            lines = ", ".join(map(str, self.mangled[:5]))
            raise UnusableListError(
                f"{len(self.mangled)} lines have something in the column of series that is no"
                f" UID (line {lines}): was the list saved by a spreadsheet?"
            )
        if not self.line_count:
            raise UnusableListError("no line names a series or a path")


def read_manifest(path: Path) -> Manifest:
    """Read a list.

    The first line may name the columns: ``SeriesInstanceUID`` or ``path``, perhaps
    ``StudyInstanceUID``; others are passed over. Without it the first column is what counts. A
    path that is not absolute starts at the folder of the list.

    Raises
    ------
    PermanentError
        ``unreadable-file`` if it cannot be read or is no text.
    UnusableListError
        If its first line is neither a header that is known, nor a UID, nor a path that is there.
    """
    series: dict[str, str] = {}
    paths: dict[Path, None] = {}
    problems = []
    mangled = []
    count = 0
    for number, uid, study, name in _lines(path):
        if uid and not _UID.fullmatch(uid):
            mangled.append(number)
            continue
        if not (uid or name):
            problems.append(number)
            continue
        count += 1
        if uid:
            series[uid] = study or series.get(uid, "")
        else:
            paths[path.parent / name] = None
    problems = sorted([*problems, *mangled])
    return Manifest(series, tuple(paths), count, tuple(problems), tuple(mangled))


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
                        if columns[0] is None and columns[2] is None:
                            raise _unknown_header()
                        continue
                    if not (_UID.fullmatch(cells[0]) or (path.parent / cells[0]).exists()):
                        raise _unknown_header()
                yield (rows.line_num, *_values(cells, columns))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise PermanentError(Reason.UNREADABLE_FILE, f"the list of series: {told}") from error


def _unknown_header() -> UnusableListError:
    return UnusableListError(
        "its first line is no UID and no path that is there, and names no column"
        " SeriesInstanceUID or path"
    )


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
    return uid, (study if _UID.fullmatch(study) else ""), name
