"""The bridge as a process of Orthanc's: started again, not in a loop; ended, whatever it does."""

from __future__ import annotations

import itertools
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.plugin.bridge_process import BridgeProcess, ProcessState
from pacs_bridge.plugin.server import OrthancServer
from pacs_bridge.plugin.settings import Settings


@pytest.fixture
def make_process(scripted: Any) -> Any:
    def make(*command: str, **options: Any) -> tuple[BridgeProcess, list[float]]:
        settings = Settings("bridge", Path("unused"), 60.0, command=command, **options)
        time_s = [0.0]
        process = BridgeProcess(settings, None, OrthancServer(scripted), lambda: time_s[0])
        return process, time_s

    return make


def _starts(scripted: Any) -> int:
    return sum("the bridge is started" in line for line in scripted.lines)


def test_a_bridge_that_dies_at_once_is_started_again_after_growing_waits(
    make_process: Any, scripted: Any, wait_for: Any
) -> None:
    process, time_s = make_process("/bin/false")
    started_at = []
    while len(started_at) < 6:
        before = _starts(scripted)
        process.look()
        if _starts(scripted) > before:
            started_at.append(time_s[0])
            wait_for(lambda: process._process is None or process._process.poll() is not None)
            process.look()
        time_s[0] += 0.5
    waits = [later - earlier for earlier, later in itertools.pairwise(started_at)]
    assert waits == sorted(waits)
    assert waits[-1] >= 16 * waits[0]
    assert process.state is ProcessState.DOWN


def test_a_program_that_is_not_there_is_said(make_process: Any, scripted: Any) -> None:
    process, _ = make_process("/no/such/program")
    process.look()
    assert "cannot be started: No such file" in scripted.lines[-1]


def test_a_bridge_that_does_not_end_is_killed(
    make_process: Any, tmp_path: Path, wait_for: Any
) -> None:
    ready = tmp_path / "ready"
    stubborn = f"trap '' TERM; : > {ready}; exec sleep 99"
    process, _ = make_process("/bin/sh", "-c", stubborn, stop_timeout_s=0.2)
    process.look()
    running = process._process
    assert running is not None
    wait_for(ready.exists)
    process.stop()
    assert running.returncode == -signal.SIGKILL
    assert process.state is ProcessState.DOWN


def test_orthancs_interpreter_leaves_no_trace_in_the_bridges_environment(
    make_process: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    monkeypatch.setenv("PYTHONPATH", "/orthanc")
    out = tmp_path / "environment"
    process, _ = make_process("/bin/sh", "-c", f"env > {out}.part; mv {out}.part {out}; read line")
    process.look()
    running = process._process
    assert running is not None
    assert running.stdin is not None
    running.stdin.close()
    running.wait(30)
    assert not {"PYTHONHOME", "PYTHONPATH"} & set(out.read_text().replace("=", "\n").split())
    process.stop()


def test_without_a_command_nothing_is_started(make_process: Any, scripted: Any) -> None:
    process, _ = make_process()
    process.look()
    process.stop()
    assert (process.state, scripted.lines) == (ProcessState.UNMANAGED, [])
