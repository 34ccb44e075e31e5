"""A run outlives the process that does its work."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pacs_bridge.archive.work_process import Leaving, WorkDiedError, keep_working
from pacs_bridge.time_limit import EX_SOFTWARE


def begun(notes: Path) -> int:
    return notes.stat().st_size


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.02)


def test_work_goes_on_in_another_process_when_one_hung_or_crashed(works, leaving, tmp_path):
    notes, told = tmp_path / "notes", []
    work = partial(works.crash_twice, notes)
    assert keep_working(work, leaving, lambda: 1, told.append) == 0
    assert (begun(notes), told) == (3, [EX_SOFTWARE, -signal.SIGSEGV])


def test_work_that_dies_each_time_and_ends_no_series_is_given_up(works, leaving, tmp_path):
    left = iter([5, 5, 4, *[4] * 20])
    with pytest.raises(WorkDiedError, match="6 times"):
        keep_working(
            partial(works.crash, tmp_path / "notes"), leaving, lambda: next(left), lambda _: None
        )
    assert begun(tmp_path / "notes") == 7


def test_work_that_says_why_it_ends_is_not_begun_again(works, leaving, tmp_path):
    work = partial(works.refuse, tmp_path / "notes")
    assert keep_working(work, leaving, lambda: 1, lambda _: None) == 2
    assert begun(tmp_path / "notes") == 1


@pytest.mark.parametrize(("is_left", "status"), [(False, 4), (True, 3)])
def test_what_a_run_is_told_reaches_the_work(works, leaving, tmp_path, is_left, status):
    leaving.stop.set()
    if is_left:
        leaving.leave.set()
    work = partial(works.wait_for_the_word, tmp_path / "notes")
    assert keep_working(work, leaving, lambda: 1, lambda _: None) == status


def test_work_that_dies_when_it_was_told_to_end_is_not_begun_again(works, leaving, tmp_path):
    leaving.stop.set()
    work = partial(works.crash, tmp_path / "notes")
    assert keep_working(work, leaving, lambda: 1, lambda _: None) == 0
    assert begun(tmp_path / "notes") == 1


def test_work_that_hangs_is_ended_when_it_was_told_to_leave_and_does_not(works, tmp_path):
    notes, told = tmp_path / "notes", []
    leaving = Leaving(threading.Event(), threading.Event())

    def end_when_it_hangs() -> None:
        wait_until(notes.exists)
        leaving.stop.set()
        leaving.leave.set()

    threading.Thread(target=end_when_it_hangs, daemon=True).start()
    work = partial(works.hang, notes)
    assert keep_working(work, leaving, lambda: 1, told.append, patience_s=0.2) == 0
    assert told == []
    assert not _is_alive(_workers(notes).pop())


def test_who_has_work_done_hears_that_it_is_told_to_end(works, leaving, tmp_path):
    notes, told = tmp_path / "notes", []
    leaving.stop.set()
    work = partial(works.wait_for_the_word, notes)
    status = keep_working(
        work, leaving, lambda: 1, told.append, tell_stop=lambda: told.append("stop")
    )
    assert (status, told) == (4, ["stop"])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_every_job_of_the_work_touches_its_memory_once(works, leaving, tmp_path):
    notes = tmp_path / "notes"
    work = partial(works.compute_on_threads, notes)
    assert keep_working(work, leaving, lambda: 1, lambda _: None) == 0
    new, again, *of_the_next = (int(line) for line in notes.read_text().split())
    assert len(of_the_next) == 2
    assert new > 10 * max(again, *of_the_next)


@pytest.fixture
def run_that_hangs(tmp_path) -> Iterator[subprocess.Popen[bytes]]:
    """In an interpreter where no process was started before; its work is ``hang``."""
    code = (
        "import functools, pathlib, sys, threading\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import dying_work\n"
        "from pacs_bridge.archive.work_process import Leaving, keep_working\n"
        "leaving = Leaving(threading.Event(), threading.Event())\n"
        "work = functools.partial(dying_work.hang, pathlib.Path(sys.argv[2]))\n"
        "keep_working(work, leaving, lambda: 1, lambda _: None)\n"
    )
    command = [sys.executable, "-c", code, Path(__file__).parent, tmp_path / "notes"]
    run = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: _workers(tmp_path / "notes") or run.poll() is not None)
    yield run
    run.kill()
    run.wait()


def test_work_ends_with_the_run_that_was_killed(run_that_hangs, tmp_path):
    (worker,) = _workers(tmp_path / "notes")
    run_that_hangs.kill()
    run_that_hangs.wait()
    wait_until(lambda: not _is_alive(worker))


def test_work_hears_no_signal_but_through_the_run(run_that_hangs, tmp_path):
    notes = tmp_path / "notes"
    (worker,) = _workers(notes)
    ending = {signal.SIGTERM, signal.SIGINT}
    # Blocked since it was started, for it takes a while to import what it needs.
    assert ending <= _signals(worker, "SigBlk")
    assert ending <= _signals(worker, "SigIgn")
    for number in ending:
        os.kill(worker, number)
    seen = begun(notes)
    wait_until(lambda: begun(notes) > seen + 100 or run_that_hangs.poll() is not None)
    assert (run_that_hangs.poll(), _workers(notes)) == (None, {worker})


def _workers(notes: Path) -> set[int]:
    """Processes that say that they hang."""
    said = notes.read_text() if notes.exists() else ""
    return {int(line) for line in said.splitlines(keepends=True) if line.endswith("\n")}


def _signals(pid: int, what: str) -> set[int]:
    """What a process does not hear: ``SigBlk`` or ``SigIgn`` of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith(what))
    return {number for number in signal.valid_signals() if mask >> (number - 1) & 1}


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
