"""What is still to be sent, on the disk before anything is done about it.

A journal of JSON lines: position in Orthanc's changes and the series that were noted on the way go
into one line, and each line says where reading stands, so that a damaged one costs no more than
itself. No SQLite: a statically built Orthanc brings symbols of its own copy along, and Python's
module in the same process could meet them.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pacs_bridge.plugin.journal import Journal

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
_FIELDS = frozenset(one.name for one in fields(Note))


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where Orthanc's changes were read."""

    position: int  #: the last that was read
    floor: int  #: the last at which every series before it has been stable since, or is noted
    existing: int = 0  #: the last that was read of those before the first start
    existing_end: int = 0  #: the last of those, where existing series are wanted; else 0


@dataclass(frozen=True, slots=True)
class Doubt:
    """What damaged lines may have noted: series of the changes that were read with them."""

    before: Place  #: what the last line before the first of them says
    mentioned: set[str] = field(default_factory=set)  #: of which a line behind them all speaks


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
        self._journal = Journal(path)
        self._lock = threading.Lock()
        self._notes: dict[str, Note] = {}
        self._place: Place | None = None
        self._doubt: Doubt | None = None
        self._lines = 0
        self._lock_file: int | None = None
        self.damage: tuple[int, ...] = ()  #: which lines of the file could not be read
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
            _lock(descriptor, path)
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
    def place(self) -> Place | None:
        """Up to where Orthanc's changes were read; None before the first time."""
        return self._place

    @property
    def faults(self) -> tuple[str, ...]:
        """What the damage of the file means."""
        if not self.damage:
            return ()
        lines = ", ".join(map(str, self.damage[:10]))
        if self._place is None:
            loss = "what was to be sent is not known any more; series are taken from now on"
        else:
            loss = "what is in no other line is looked for in Orthanc's changes"
        return (f"{len(self.damage)} lines of the notes are damaged ({lines}): {loss}",)

    @property
    def doubt(self) -> Doubt | None:
        """What damaged lines may have noted, until ``tidy``; None if there is none."""
        return self._doubt

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
            self._write({}, Place(position, position, 0, existing_end))

    def advance(
        self, place: Place, series: Iterable[str], now_s: float, found: Found = Found.STABLE
    ) -> None:
        """Changes up to a place were read, and these series were found on the way."""
        with self._lock:
            notes = [self._renewed(one, now_s, found) for one in dict.fromkeys(series)]
            self._write({"notes": _plain(notes)}, place)

    def tidy(self) -> None:
        """Put one line in the place of many; what damaged ones noted has been looked for."""
        with self._lock:
            self._doubt = None
            self._rewrite()

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
        damage = []
        for number, line in enumerate(self._journal.read(), 1):
            try:
                if line is None:
                    raise ValueError("damaged")
                self._apply(line)
            except (ValueError, TypeError, KeyError, AttributeError):
                damage.append(number)
                before = self._place if self._doubt is None else self._doubt.before
                self._doubt = None if before is None else Doubt(before)
        self.damage = tuple(damage)

    def _apply(self, line: dict[str, Any]) -> None:
        notes = [_note(values) for values in line.get("notes", ())]
        place = Place(*map(int, line["place"])) if "place" in line else _older_place(line)
        self._notes |= {note.series: note for note in notes}
        forgotten = line.get("forget", "")
        self._notes.pop(forgotten, None)
        self._place = place or self._place
        if self._doubt is not None:
            self._doubt.mentioned.update([forgotten, *(note.series for note in notes)])

    def _write(self, line: dict[str, Any], place: Place | None = None) -> None:
        """Append a line; only what is on the disk counts."""
        line |= _plain_place(place or self._place)
        self._journal.append(line)
        self._apply(line)
        self._lines += 1
        if self._lines > _LINES_PER_REWRITE + 2 * len(self._notes):
            self._rewrite()

    def _rewrite(self) -> None:
        """Put a line for each note in the place of many, unless these are still of use.

        And then once more: of all that is not in the changes behind the place there are two lines.
        """
        if self._doubt is not None:
            return
        place = _plain_place(self._place)
        lines = [place, *({"notes": _plain([note]), **place} for note in self._notes.values())]
        self._journal.replace([*lines, *lines])
        self._lines = 0


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(error.errno, "another Orthanc has these notes", str(path)) from error


def _note(values: dict[str, Any]) -> Note:
    known = {name: value for name, value in values.items() if name in _FIELDS}
    found = Found(values.get("found", Found.STABLE))
    return Note(**{**known, "stage": Stage(values["stage"]), "found": found})


def _older_place(line: dict[str, Any]) -> Place | None:
    """What a version wrote that read all changes before it sent anything."""
    return Place(int(line["position"]), int(line["floor"])) if "position" in line else None


def _plain_place(place: Place | None) -> dict[str, Any]:
    return {} if place is None else {"place": list(astuple(place))}


def _plain(notes: Iterable[Note]) -> list[dict[str, Any]]:
    return [asdict(note) for note in notes]
