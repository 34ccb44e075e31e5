"""A machine that steps back, and comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference.errors import ModelError
from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.fitness import Fitness
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.log import JsonLog

OOM = ModelError(Reason.OOM_GPU, "2 GiB short")


class Machine:
    """Fails its trial with an error, or not."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.trials = 0

    def trial(self) -> None:
        self.trials += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def fitness(tmp_path: Path, clock: Any) -> Fitness:
    return Fitness(JsonLog.open(tmp_path / "log.jsonl", IdentityHash(b"test")), clock.steady_s)


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], list[tuple[str, object, object]]]:
    """What the log was told: event, reason, seconds of pause."""

    def read() -> list[tuple[str, object, object]]:
        path = tmp_path / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        parsed = [json.loads(line) for line in lines]
        return [(each["event"], each.get("reason"), each.get("pause_s")) for each in parsed]

    return read


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OOM, Reason.OOM_GPU),
        (TransientError(Reason.MODEL_CHECKSUM, "stale file handle"), Reason.MODEL_CHECKSUM),
        (OSError(28, "No space left on device"), Reason.DISK_FULL),
    ],
)
def test_a_machine_that_fails_its_trial_steps_back_until_it_does_not(
    fitness: Fitness,
    clock: Any,
    told: Callable[[], list[Any]],
    error: Exception,
    reason: Reason,
) -> None:
    machine = Machine(error)
    assert fitness.may_claim(is_idle=True)
    assert fitness.is_to_blame(1, Reason.OOM_GPU, machine.trial)
    assert not fitness.may_claim(is_idle=True)
    assert machine.trials == 1  # not before its time
    for wait_s in (30, 60, 120):
        clock.pass_s(wait_s)
        assert not fitness.may_claim(is_idle=True)
    machine.error = None
    clock.pass_s(240)
    assert fitness.may_claim(is_idle=True)
    assert fitness.may_claim(is_idle=True)
    assert machine.trials == 5
    assert told() == [
        *(("machine-unfit", reason, wait_s) for wait_s in (30, 60, 120, 240)),
        ("machine-fit", None, None),
    ]


def test_no_trial_is_made_beside_a_job(fitness: Fitness, clock: Any) -> None:
    machine = Machine(OOM)
    fitness.is_to_blame(1, Reason.OOM_GPU, machine.trial)
    machine.error = None
    clock.pass_s(31)
    assert not fitness.may_claim(is_idle=False)
    assert machine.trials == 1
    assert fitness.may_claim(is_idle=True)


def test_jobs_in_hand_when_the_machine_steps_back_make_no_further_pause(
    fitness: Fitness, told: Callable[[], list[Any]]
) -> None:
    machine = Machine(OOM)
    assert [fitness.is_to_blame(n, Reason.OOM_GPU, machine.trial) for n in range(3)] == [True] * 3
    assert len(told()) == 1


def test_after_three_jobs_in_a_row_others_are_first_for_a_while(
    fitness: Fitness, clock: Any, told: Callable[[], list[Any]]
) -> None:
    machine = Machine()
    for job in (1, 2, 1, 2, 1):
        assert not fitness.is_to_blame(job, Reason.MODEL_ERROR, machine.trial)
    assert fitness.may_claim(is_idle=True)
    fitness.note_result()
    for job in (3, 4):
        assert not fitness.is_to_blame(job, Reason.MODEL_ERROR, machine.trial)
    assert fitness.may_claim(is_idle=True)
    assert not fitness.is_to_blame(5, Reason.MODEL_ERROR, machine.trial)
    assert not fitness.may_claim(is_idle=True)
    assert told() == [("machine-unfit", Reason.MODEL_ERROR, 30)]
    clock.pass_s(31)
    assert fitness.may_claim(is_idle=True)


def test_a_trial_that_hangs_ends_the_process(
    fitness: Fitness, told: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr("pacs_bridge.time_limit.os._exit", lambda _status: ended.set())
    monkeypatch.setattr("pacs_bridge.fitness._TRIAL_LIMIT_S", 0.01)
    fitness.doubt(lambda: None if ended.wait(20) else pytest.fail("it goes on"))
    fitness.may_claim(is_idle=True)

    assert told()[0] == ("machine-unfit", Reason.TIMEOUT, None)
