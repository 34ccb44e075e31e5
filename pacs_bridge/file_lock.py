"""Locks on an open file that other processes see, those on other machines of a share too.

Open file description locks (F_OFD_SETLK, fcntl(2)): unlike POSIX locks they stay when the same
process closes the file elsewhere; unlike flock(2) a file server and its clients share them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from enum import Enum

_HELD = (errno.EAGAIN, errno.EACCES)


class LockKind(Enum):
    """What a lock lets others have."""

    SHARED = fcntl.F_RDLCK
    EXCLUSIVE = fcntl.F_WRLCK


def lock(descriptor: int, kind: LockKind) -> bool:
    """Lock the file, or turn our lock into this kind; False if another's lock forbids it.

    Raises
    ------
    OSError
        If the file system has no locks.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(kind.value))
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def unlock(descriptor: int) -> None:
    """Let go of our lock."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK))


def is_locked(descriptor: int) -> bool:
    """Whether somebody else has a lock of any kind; takes none.

    Raises
    ------
    OSError
        If the file system has no locks.
    """
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK))
    (kind,) = struct.unpack_from("h", found)
    return bool(kind != fcntl.F_UNLCK)


def _request(kind: int) -> bytes:
    """``struct flock`` for the whole file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
