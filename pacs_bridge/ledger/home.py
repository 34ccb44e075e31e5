"""The machine that a ledger is at home on, and whether somebody has it open.

SQLite's write-ahead log is shared through memory, and leases count steady seconds: all processes
of a ledger run on one machine (sqlite.org/wal.html). A file beside the ledger names it, and each
process holds a lock on that file while it has the ledger open.
"""

from __future__ import annotations

import errno
import json
import os
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.file_lock import LockKind, is_locked, lock, unlock
from pacs_bridge.machine import Machine
from pacs_bridge.network_disk import network_disk

_LOOK_S: Final = 0.05
_LONGEST: Final = 4096
#: Of what is written, padded: a disk writes a sector whole or not at all, and what takes the
#: place of as many bytes asks for no room.
_SECTOR: Final = 512


def home_file(ledger: Path) -> Path:
    """The file beside a ledger that names its machine."""
    return ledger.with_suffix(".machine")


class LedgerHome:
    """Lets the processes of one machine have a ledger, and nobody else.

    The first one after a boot makes the ledger this boot's, once nobody has it open. On a disk
    that only this machine can have mounted, that nobody has it open is enough, whatever the
    machine was called before: a container is made anew, a disk is put into another machine. On
    the disk of a network other machines may not see our locks: there the machine must be the
    same one, by its name and its id.

    Parameters
    ----------
    ledger
        The SQLite file; it need not be there.
    machine
        This one.
    disk
        The kind of network disk that a folder lies on, empty for a local one.
    moved_here
        Whether an administrator says that the ledger came from another machine, on which
        nothing uses it any more.
    wait_s
        How long another process of this machine may take to do the same.
    """

    def __init__(
        self,
        ledger: Path,
        machine: Machine,
        disk: Callable[[Path], str] = network_disk,
        moved_here: bool = False,
        wait_s: float = 10.0,
    ) -> None:
        self._ledger = ledger
        self._path = home_file(ledger)
        self._machine = machine
        self._disk = disk
        self._moved_here = moved_here
        self._wait_s = wait_s
        self._close: Callable[[], object] = lambda: None

    def enter(self) -> None:
        """Take the ledger as one of the processes of this machine.

        Raises
        ------
        PermanentError
            ``ledger-elsewhere`` if it is another machine's; ``data-folder-denied`` if this user
            may not use its folder.
        TransientError
            ``disk-full``, ``ledger-unavailable`` if its folder cannot be used now.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, is_new = _opened(self._path)
        except OSError as error:
            raise _translated(error, self._path) from error
        # a ledger that nobody closed lets go of its lock when it is forgotten
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            if is_new:
                there = self._ledger if self._ledger.exists() else self._path.parent
                _give_to_owner(descriptor, there)
            self._take(descriptor)
        except OSError as error:
            self.leave()
            raise _translated(error, self._path) from error
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Let go of the ledger."""
        self._close()

    def owner(self) -> Machine | None:
        """The machine that had the ledger open last; None if nothing says so. Changes nothing.

        Raises
        ------
        PermanentError, TransientError
            As ``enter``.
        """
        try:
            return _read(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _translated(error, self._path) from error

    def is_in_use(self) -> bool:
        """Whether a process has the ledger open. Changes nothing; raises as ``owner``."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _translated(error, self._path) from error
        try:
            return is_locked(descriptor)
        except OSError as error:
            raise _translated(error, self._path) from error
        finally:
            os.close(descriptor)

    def refusal(self) -> str:
        """Why ``enter`` would not let this machine have it; empty if it would. Changes nothing.

        Raises as ``owner``.
        """
        known = self.owner()
        if known is not None and known.boot_id == self._machine.boot_id:
            return ""
        return self._objection(known) or (_in_use(known) if self.is_in_use() else "")

    def _take(self, descriptor: int) -> None:
        deadline_s = time.monotonic() + self._wait_s
        while True:
            if lock(descriptor, LockKind.SHARED):
                known = _read(os.pread(descriptor, _LONGEST, 0))
                if known is not None and known.boot_id == self._machine.boot_id:
                    return
                unlock(descriptor)  # of two that hold a shared lock neither would get the other
                if objection := self._objection(known):
                    raise PermanentError(Reason.LEDGER_ELSEWHERE, objection)
                if lock(descriptor, LockKind.EXCLUSIVE):
                    if _read(os.pread(descriptor, _LONGEST, 0)) == known:
                        _write(descriptor, self._machine)
                        lock(descriptor, LockKind.SHARED)
                        return
                    unlock(descriptor)
            if time.monotonic() >= deadline_s:
                raise PermanentError(Reason.LEDGER_ELSEWHERE, _in_use(self.owner()))
            time.sleep(_LOOK_S)

    def _objection(self, known: Machine | None) -> str:
        """Why a ledger that nobody seems to have open is not this machine's."""
        kind = self._disk(self._path.parent)
        if not kind or self._moved_here or (known is None and not self._ledger.exists()):
            return ""
        if known is not None and self._machine.is_start_of(known):
            return ""
        owner = "nothing says which machine" if known is None else f"it is {known.host} that"
        return f"the ledger is on a network disk ({kind}), and {owner} uses it"


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor of the file, and whether this call made it."""
    with suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR), False
    with suppress(FileExistsError):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640), True
    return os.open(path, os.O_RDWR), False  # another process was faster


def _give_to_owner(descriptor: int, there: Path) -> None:
    """What an administrator is the first to open must not keep the service out, as SQLite does."""
    if os.geteuid() == 0:
        owner = there.stat()
        with suppress(PermissionError):  # a file server that trusts no root
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _in_use(known: Machine | None) -> str:
    return f"the ledger is in use on {'another machine' if known is None else known.host}"


def _read(data: bytes) -> Machine | None:
    """What was written; None for nothing, or for what a crash left half done."""
    try:
        row = json.loads(data)
        machine = Machine(**row)
    except (ValueError, TypeError):
        return None
    return machine if all(isinstance(each, str) for each in row.values()) else None


def _write(descriptor: int, machine: Machine) -> None:
    """In place, as a lock is on the file and not on its name: whole, or what was there stays."""
    data = json.dumps(asdict(machine)).encode()
    data = data.ljust(max(_SECTOR, os.fstat(descriptor).st_size))
    if os.pwrite(descriptor, data, 0) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(descriptor)


def _translated(error: OSError, path: Path) -> PermanentError | TransientError:
    detail = f"{path.name} in the data folder, as user id {os.geteuid()}: {error.strerror}"
    if isinstance(error, PermissionError):
        return PermanentError(Reason.DATA_FOLDER_DENIED, detail)
    reason = disk_reason(error)
    is_full = reason is Reason.DISK_FULL
    return TransientError(reason if is_full else Reason.LEDGER_UNAVAILABLE, detail)
