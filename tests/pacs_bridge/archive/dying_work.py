"""Work for processes that die, for tests that look at who starts them again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pacs_bridge.archive.work_process import Leaving
from pacs_bridge.time_limit import EX_SOFTWARE


def _begun(notes: Path) -> int:
    """Note a beginning; gives how many there were."""
    with notes.open("ab", buffering=0) as file:
        file.write(b"x")
    return notes.stat().st_size


def crash_twice(notes: Path, _leaving: Leaving, is_again: bool) -> int:
    """Hang, crash, and then be done."""
    number = _begun(notes)
    assert is_again == (number > 1)
    if number == 1:
        os._exit(EX_SOFTWARE)
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def crash(notes: Path, _leaving: Leaving, _is_again: bool) -> int:
    """Crash each time."""
    _begun(notes)
    os._exit(EX_SOFTWARE)


def refuse(notes: Path, _leaving: Leaving, _is_again: bool) -> int:
    """Say that the call is wrong."""
    _begun(notes)
    return 2


def wait_for_the_word(notes: Path, leaving: Leaving, _is_again: bool) -> int:
    """End when told to, in the way that is told."""
    _begun(notes)
    leaving.stop.wait()
    return 3 if leaving.leave.wait(0.5) else 4


def wait_for_ever(notes: Path, _leaving: Leaving, _is_again: bool) -> int:
    """Hang, and say which process does."""
    notes.write_text(str(os.getpid()))
    signal.pause()
    return 0
