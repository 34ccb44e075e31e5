"""Children that live, die and are wrong; each a real process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from pacs_bridge.child import process_name
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.log import JsonLog
from pacs_bridge.supervisor import ChildSpec, Supervisor, WrongConfigurationError

#: Says that it is ready with its pid, notes it in a file, and waits to be told to leave.
LIVE = """
import os, signal, sys
pids, ready = sys.argv[1], int(sys.argv[-1])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with open(pids, "a") as file:
    file.write(f"{os.getpid()}\\n")
os.write(ready, f"{os.getpid()}\\n".encode())
while True:
    signal.pause()
"""
DEAF = LIVE.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN")
WRONG = "import sys; sys.exit(2)"


@pytest.fixture
def log(tmp_path: Path) -> JsonLog:
    return JsonLog.open(tmp_path / "log.jsonl", IdentityHash(b"test"))


class Run:
    """A supervisor in a thread of its own; starting processes from there is what it does."""

    def __init__(self, supervisor: Supervisor, executor: ThreadPoolExecutor) -> None:
        self.leave = threading.Event()
        self.said: dict[str, str] = {}
        self._ready = threading.Event()
        self.ended: Future[None] = executor.submit(supervisor.run, self.leave, self._announce)

    def _announce(self, said: dict[str, str]) -> None:
        self.said = said
        self._ready.set()

    def wait_ready(self) -> dict[str, str]:
        assert self._ready.wait(60)
        return self.said

    def stop(self) -> None:
        self.leave.set()
        self.ended.result(60)


@pytest.fixture
def run(log: JsonLog) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []
    with ThreadPoolExecutor() as executor:

        def start(*specs: ChildSpec, **options: object) -> Run:
            runs.append(Run(Supervisor(specs, log, **({"drain_s": 30.0} | options)), executor))
            return runs[-1]

        yield start
        for each in runs:
            each.leave.set()


def _child(name: str, script: str, pids: Path) -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-c", script, str(pids)))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.1)
    raise AssertionError("it did not happen")


def test_ready_is_said_once_with_what_every_child_said(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    started = run(_child("a", LIVE, tmp_path / "a.pids"), _child("b", LIVE, tmp_path / "b.pids"))
    said = started.wait_ready()
    assert said == {name: (tmp_path / f"{name}.pids").read_text().strip() for name in "ab"}
    started.stop()
    assert not any(_is_alive(int(pid)) for pid in said.values())


def test_a_child_that_is_killed_is_started_again_and_its_leases_are_ended(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    dead: list[str] = []
    pids = tmp_path / "a.pids"
    started = run(_child("a", LIVE, pids), on_death=dead.append)
    first = int(started.wait_ready()["a"])

    os.kill(first, signal.SIGKILL)

    _wait_for(lambda: len(pids.read_text().split()) == 2)
    assert dead == [process_name(first)]
    started.stop()


def test_a_child_that_cannot_run_as_configured_ends_the_others_too(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    pids = tmp_path / "a.pids"
    wait_then_wrong = (
        f"import time, os\nwhile not os.path.exists({str(pids)!r}): time.sleep(0.05)\n"
    )
    started = run(_child("a", LIVE, pids), _child("b", wait_then_wrong + WRONG, tmp_path / "b"))
    with pytest.raises(WrongConfigurationError, match="b"):
        started.ended.result(60)
    assert not _is_alive(int(pids.read_text()))


def test_a_child_that_does_not_leave_is_killed_when_its_time_is_over(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    dead: list[str] = []
    killed: list[str] = []
    spec = _child("a", DEAF, tmp_path / "a.pids")
    started = run(spec, drain_s=0.5, on_death=dead.append, on_kill=killed.append)
    pid = int(started.wait_ready()["a"])
    started.stop()
    assert not _is_alive(pid)
    assert (dead, killed) == ([], [process_name(pid)])


def test_a_child_that_cannot_be_started_now_is_started_later_and_the_others_live(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    later = tmp_path / "later"
    spec = ChildSpec("b", (str(later), str(tmp_path / "b.pids")))
    started = run(_child("a", LIVE, tmp_path / "a.pids"), spec)
    _wait_for(lambda: "process-not-started" in (tmp_path / "log.jsonl").read_text())
    draft = tmp_path / "draft"
    draft.write_text(f"#!{sys.executable}\n{LIVE}")
    draft.chmod(0o700)
    draft.rename(later)

    assert set(started.wait_ready()) == {"a", "b"}
    started.stop()


def test_a_child_that_hangs_before_it_is_ready_is_killed_and_started_again(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    pids = tmp_path / "a.pids"
    hangs_at_first = (
        "import os, sys, time\n"
        "if not os.path.exists(sys.argv[1]):\n"
        "    open(sys.argv[1], 'w').write(f'{os.getpid()}\\n')\n"
        "    time.sleep(3600)\n"
    )
    dead: list[str] = []
    spec = _child("a", hangs_at_first + LIVE, pids)
    started = run(spec, ready_within_s=4.0, on_death=dead.append)

    second = int(started.wait_ready()["a"])
    first = int(pids.read_text().split()[0])
    assert first != second
    assert dead == [process_name(first)]
    assert "process-not-ready" in (tmp_path / "log.jsonl").read_text()
    started.stop()
