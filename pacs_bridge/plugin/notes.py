"""What is still to be sent, on the disk before anything is done about it.

A journal of JSON lines, each whole or not there: position in Orthanc's changes and the series that
were noted on the way go into one line. No SQLite: a statically built Orthanc brings symbols of its
own copy along, and Python's module in the same process could meet them.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

_LINES_PER_REWRITE = 1000


class Stage(StrEnum):
    """Where a series stands on its way to the bridge."""

    WAITING = "waiting"
    SENDING = "sending"
    FAILED = "failed"  #: given up; can be started again


class Found(StrEnum):
    """How it was found that a series is to be sent."""

    STABLE = "stable"  #: it became stable, or somebody started it
    UNSETTLED = "unsettled"  #: it had not been stable when Orthanc ended: more may still come
    EXISTING = "existing"  #: it was in Orthanc before the plugin's first start


@dataclass(frozen=True, slots=True)
class Note:
    """One series that is to be sent."""

    series: str  #: Orthanc's id
    noted_s: float  #: time of day
    stage: Stage = Stage.WAITING
    attempts: int = 0
    waited_s: float = 0.0  #: since it was noted, without the times when Orthanc was down
    due_s: float = 0.0  #: time of day, for who asks; the carrier goes by a clock that never steps
    job: str = ""  #: Orthanc's id of the store job
    is_changed: bool = False  #: it became stable again while it was sent
    reason: str = ""
    detail: str = ""
    instance_count: int = 0  #: how many of its instances are sent; 0 before the first time
    is_permissive: bool = False  #: the bridge refused an instance: the others are sent all the same
    has_others: bool = False  #: the others were sent
    here_count: int = 0  #: how many the bridge had then, those that it is owed among them
    vain_count: int = 0  #: how often the others were sent since, and it had no more
    is_forced: bool = False  #: an operator said that what the bridge has is as much as will come
    found: Found = Found.STABLE


#: What an older or newer version wrote beside these is passed over.
_FIELDS = frozenset(field.name for field in fields(Note))


class NoteBook:
    """The notes; threads may share it.

    Parameters
    ----------
    path
        The journal; it is made when it is not there.

    Raises
    ------
    OSError
        If the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._notes: dict[str, Note] = {}
        self._position: int | None = None
        self._floor = 0
        self._existing_end = 0
        self._lines = 0
        self._lock_file: int | None = None
        self.damage: tuple[str, ...] = ()  #: what could not be read, one line of the file each
        self._load()
        with self._lock:
            self._rewrite()

    @classmethod
    def open_alone(cls, path: Path) -> NoteBook:
        """The notes, which no other process may open so until ``close``.

        Raises
        ------
        OSError
            If another one has them, or the file cannot be read or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_path = path.with_name(path.name + ".lock")
        descriptor = os.open(lock_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            book = cls(path)
        except OSError:
            os.close(descriptor)
            raise
        book._lock_file = descriptor
        return book

    def close(self) -> None:
        """Let others open the notes."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @property
    def position(self) -> int | None:
        """The last of Orthanc's changes that was read; None before the first time."""
        return self._position

    @property
    def floor(self) -> int:
        """The last change at which every series before it has been stable since."""
        return self._floor

    @property
    def existing_end(self) -> int:
        """The last change before the first start, where existing series are wanted; else 0."""
        return self._existing_end

    def all(self) -> tuple[Note, ...]:
        """Every note, the oldest first."""
        with self._lock:
            return tuple(self._notes.values())

    def get(self, series: str) -> Note | None:
        """The note of one series."""
        with self._lock:
            return self._notes.get(series)

    def begin_at(self, position: int, existing_end: int = 0) -> None:
        """Changes are read from a position on; up to the other, series were there before."""
        with self._lock:
            line = {"position": position, "floor": position, "existing_end": existing_end}
            self._write(line)

    def advance(
        self,
        position: int,
        floor: int,
        series: Iterable[str],
        now_s: float,
        found: Found = Found.STABLE,
    ) -> None:
        """Changes up to a position were read, and these series were found on the way."""
        with self._lock:
            notes = [self._renewed(one, now_s, found) for one in dict.fromkeys(series)]
            self._write({"position": position, "floor": floor, "notes": _plain(notes)})

    def add(self, series: str, now_s: float) -> None:
        """A series is to be sent, at once."""
        with self._lock:
            self._write({"notes": _plain([self._renewed(series, now_s)])})

    def put(self, note: Note) -> None:
        """Write a note in place of the one that its series has."""
        with self._lock:
            held = self._notes.get(note.series)
            if held is not None and held.stage is note.stage is Stage.SENDING:
                note = replace(note, is_changed=held.is_changed, found=held.found)
            if held is not None and held.noted_s == note.noted_s:
                note = replace(note, is_forced=held.is_forced)
            self._write({"notes": _plain([note])})

    def settle(self, series: str, now_s: float) -> None:
        """A series has arrived, or is gone; if it became stable again it is sent again."""
        with self._lock:
            held = self._notes.get(series)
            if held is not None and held.is_changed:
                self._write({"notes": _plain([Note(series, now_s, found=held.found)])})
            else:
                self._write({"forget": series})

    def give_up(self, note: Note, now_s: float) -> None:
        """Write a note that nothing more is done about; if it became stable again it is sent."""
        with self._lock:
            held = self._notes.get(note.series)
            if held is not None and held.is_changed:
                note = Note(note.series, now_s, found=held.found)
            self._write({"notes": _plain([note])})

    def force(self, series: str) -> None:
        """An operator let a series go on at the bridge as it is there."""
        with self._lock:
            held = self._notes.get(series)
            if held is not None:
                self._write({"notes": _plain([replace(held, is_forced=True)])})

    def _renewed(self, series: str, now_s: float, found: Found = Found.STABLE) -> Note:
        held = self._notes.get(series)
        if held is not None and held.stage is Stage.SENDING:
            return replace(held, is_changed=True, is_forced=False, found=found)
        return Note(series, now_s, found=found)

    def _load(self) -> None:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        damage = []
        known = 0, 0
        for number, line in enumerate(data.split(b"\n")[:-1], 1):  # what follows was cut off
            try:
                self._apply(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                damage.append(f"line {number}: {type(error).__name__}")
            if not damage and self._position is not None:
                known = self._position, self._floor
        if damage:  # what such a line noted is found again where it stood in the changes
            self._position, self._floor = known
        self.damage = tuple(damage)

    def _apply(self, line: dict[str, Any]) -> None:
        for values in line.get("notes", ()):
            known = {name: value for name, value in values.items() if name in _FIELDS}
            found = Found(values.get("found", Found.STABLE))
            note = Note(**{**known, "stage": Stage(values["stage"]), "found": found})
            self._notes[note.series] = note
        self._notes.pop(line.get("forget", ""), None)
        if "position" in line:
            self._position = int(line["position"])
            self._floor = int(line["floor"])
        self._existing_end = int(line.get("existing_end", self._existing_end))

    def _write(self, line: dict[str, Any]) -> None:
        """Append a line; only what is on the disk counts."""
        with self._path.open("a+b", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            is_torn = start > 0 and os.pread(file.fileno(), 1, start - 1) != b"\n"
            try:
                data = json.dumps(line).encode() + b"\n"
                _write_all(file.fileno(), b"\n" + data if is_torn else data)
            except OSError:
                file.truncate(start)
                raise
        self._apply(line)
        self._lines += 1
        if self._lines > _LINES_PER_REWRITE + 2 * len(self._notes):
            self._rewrite()

    def _rewrite(self) -> None:
        """Put one line in the place of many."""
        line: dict[str, Any] = {"notes": _plain(self._notes.values())}
        if self._position is not None:
            line |= {"position": self._position, "floor": self._floor}
            line["existing_end"] = self._existing_end
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)
        partial.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._lines = 0


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
    os.fsync(descriptor)


def _plain(notes: Iterable[Note]) -> list[dict[str, Any]]:
    return [asdict(note) for note in notes]
