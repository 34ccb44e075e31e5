"""The spool: where received instances lie, under names that no sender has a say in."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inference.durable import flush
from pacs_bridge.ledger.arrival import Arrival, Fate

LANDING_NAME = "landing"
_JOURNAL_NAME = "moves.json"
_SERIES_FOLDER_CHARACTERS = 32
#: Folders; to forget one costs one flush more.
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Move:
    """An instance and the path that it was given, relative to the data folder."""

    sop_instance_uid: str
    path: str


class MoveJournal:
    """The moves of the transaction that is under way, for whoever comes after a crash.

    It is written before each move and not flushed: what a killed process has written stays. When
    the power fails it may be lost, and with it the name of a file that nobody knows of.

    Parameters
    ----------
    path
        A small file, written over each time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, moves: Sequence[Move]) -> None:
        """Put these moves in the place of those that it holds."""
        self._path.write_text(json.dumps([[move.sop_instance_uid, move.path] for move in moves]))

    def read(self) -> tuple[Move, ...]:
        """The moves of the last transaction; none if the file was being written."""
        try:
            return tuple(Move(*pair) for pair in json.loads(self._path.read_text()))
        except (FileNotFoundError, ValueError):
            return ()


class Spool:
    """Files of instances, one folder a series, each named by the hash of what is in it.

    Parameters
    ----------
    data_folder
        Holds the spool and the quarantine; paths in the ledger are relative to it.
    spool_folder, quarantine_folder
        Both in it, on one file system.
    """

    def __init__(self, data_folder: Path, spool_folder: Path, quarantine_folder: Path) -> None:
        self._data_folder = data_folder
        self._spool_folder = spool_folder
        self._quarantine_folder = quarantine_folder
        for folder in (spool_folder, quarantine_folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._journal = MoveJournal(spool_folder / _JOURNAL_NAME)
        self._durable: set[Path] = set()

    @property
    def landing_folder(self) -> Path:
        """Where instances are written before they are moved to their place."""
        return self._spool_folder / LANDING_NAME

    def free_bytes(self) -> int:
        """Free space for us on the disk of the spool."""
        return shutil.disk_usage(self._spool_folder).free

    def recover(self, is_entered: Callable[[str, str], bool]) -> int:
        """Undo what a listener that died had moved and not entered; gives how many files.

        Their senders were never told that they had arrived. To be called while nobody receives.

        Parameters
        ----------
        is_entered
            Whether the ledger has an instance of this SOP Instance UID at this path.
        """
        undone = 0
        for move in self._journal.read():
            path = self._data_folder / move.path
            if path.exists() and not is_entered(move.sop_instance_uid, move.path):
                path.unlink()
                undone += 1
        self._journal.write([])
        return undone

    def placement(self, settled: Callable[[], None] = lambda: None) -> Placement:
        """For one transaction of the ledger; ``settled`` is told when the moves are durable."""
        return Placement(
            self._data_folder,
            (self._spool_folder, self._quarantine_folder),
            self._journal,
            self._durable,
            settled,
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A file that was moved."""

    landed_path: Path
    path: Path
    was_there: bool  #: the same bytes lay there before, by right


class Placement:
    """Moves the files of a batch of arrivals to where they belong (``Placer``).

    Parameters
    ----------
    data_folder
        Paths are relative to it.
    folders
        Spool and quarantine.
    journal
        Of the moves.
    durable
        The folders whose own names are known to be on the disk: not those that a crash, or a
        batch that was undone, left behind.
    settled
        Told when the moves are durable.
    """

    def __init__(
        self,
        data_folder: Path,
        folders: tuple[Path, Path],
        journal: MoveJournal,
        durable: set[Path],
        settled: Callable[[], None],
    ) -> None:
        self._data_folder = data_folder
        self._spool_folder, self._quarantine_folder = folders
        self._journal = journal
        self._durable = durable
        self._settled = settled
        self._moves: list[Move] = []
        self._placed: list[_Placed] = []
        self._changed: set[Path] = set()

    def place(self, arrival: Arrival, fate: Fate) -> str | None:
        """Move the file of an arrival; gives its new path, relative to the data folder."""
        if fate is Fate.KEPT:
            series = hashlib.sha256(arrival.series_instance_uid.encode()).hexdigest()
            folder = self._spool_folder / series[:_SERIES_FOLDER_CHARACTERS]
        elif fate.is_quarantine:
            folder = self._quarantine_folder / fate.value
        else:
            return None
        if folder not in self._durable or not folder.is_dir():
            folder.mkdir(exist_ok=True)
            self._changed.add(folder.parent)
        path = folder / f"{arrival.digest}.dcm"
        relative = str(path.relative_to(self._data_folder))
        self._moves.append(Move(arrival.sop_instance_uid, relative))
        self._journal.write(self._moves)
        is_by_right = fate.is_quarantine and path.exists()
        placed = _Placed(arrival.landed_path, path, is_by_right)
        arrival.landed_path.replace(path)
        self._placed.append(placed)
        self._changed.add(folder)
        return relative

    def settle(self) -> None:
        """Bring the moves to the disk: a name is durable once its folder is (fsync(2))."""
        for folder in self._changed:
            flush(folder)
        parents = {self._spool_folder, self._quarantine_folder}
        if len(self._durable) >= _MOST_REMEMBERED:
            self._durable.clear()
        self._durable |= self._changed - parents
        self._changed.clear()
        self._settled()

    def undo(self) -> None:
        """The ledger has none of it: bring the files back to where they landed.

        Where the disk does not allow it a file stays, for the audit to find. What lay in
        quarantine before stays there too: the same bytes, by right.
        """
        for placed in reversed(self._placed):
            with suppress(OSError):
                if placed.was_there:
                    placed.landed_path.hardlink_to(placed.path)
                else:
                    placed.path.replace(placed.landed_path)
        self._placed.clear()
        self._moves.clear()
