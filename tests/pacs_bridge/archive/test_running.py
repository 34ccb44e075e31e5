"""Runs that are ended at any moment: what is done stays done, and is done once."""

from __future__ import annotations

import csv
import importlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from dicom_seg.read.examination import SeriesRules
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from inference.volume import Volume
from pacs_bridge.archive.accounts import open_series, series_lines
from pacs_bridge.archive.feeder import Feeder, FeedOrder, FeedState
from pacs_bridge.archive.own_bridge import OwnWork, own_config
from pacs_bridge.archive.recipe import Recipe, recipe_of
from pacs_bridge.archive.run_log import note_told_to_end
from pacs_bridge.archive.running import FedRun, OwnRun, warm_segmenters
from pacs_bridge.archive.window import Pace
from pacs_bridge.archive.work_process import Leaving, keep_working
from pacs_bridge.cli.main import main
from pacs_bridge.errors import TransientError
from pacs_bridge.models import model_stores
from pacs_bridge.pipeline import Pipeline
from pacs_bridge.time_limit import EX_SOFTWARE

_SCRIPT = Path(__file__).with_name("fast_run.py")
#: Jobs that a worker has in hand at a time, one a lane.
_LANES = 4


@dataclass
class KilledRun:
    """A run that is started again and again."""

    folder: Path
    in_hand: Counter[int] = field(default_factory=Counter)  #: kills by job that they met

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> subprocess.Popen[bytes]:
        arguments = [self.folder / "run", self.out]
        process = subprocess.Popen([sys.executable, _SCRIPT, *arguments], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        process.stdout.close()
        self.in_hand.update(
            row[0] for row in self.ledger("SELECT id FROM jobs WHERE worker IS NOT NULL")
        )

    def ledger(self, query: str) -> list[tuple[int, ...]]:
        path = self.folder / "run" / "work" / "ledger.sqlite"
        if not path.exists():
            return []
        connection = sqlite3.connect(path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def results(self) -> dict[str, set[str]]:
        """SOP Instance UIDs of the results, by folder; each with its report and its files."""
        found = {}
        for path in self.out.glob("??/*/report.json"):
            report = json.loads(path.read_text())
            outputs = [one for stack in report["stacks"] for one in stack["outputs"]]
            assert all((path.parent / one["file"]).stat().st_size for one in outputs)
            found[path.parent.name] = {one["sop_instance_uid"] for one in outputs}
        return found


def write_archive(folder: Path, count: int, bright_hu: int = 700) -> None:
    """Small series with something bright in them."""
    hu = np.full((12, 16, 20), -1000, dtype=np.int16)
    hu[3:9, 4:12, 4:12] = bright_hu
    volume = Volume(hu, stack(hu.shape, (3.0, 4.0, 3.0)))
    for number in range(count):
        write_ct_series(volume, folder / f"patient{number}", SeriesOptions(seed=bright_hu + number))


def run_killed(tree_root, plan_of, ram_folder, rng, series: int, kills: int) -> None:
    write_archive(tree_root, series)
    plan = plan_of(tree_root).plan
    plan.set("is_complete", True)
    plan.close()
    run = KilledRun(ram_folder)
    for _ in range(kills):
        process = run.start()
        with suppress(subprocess.TimeoutExpired):
            process.wait(float(rng.uniform(0.1, 0.15 * series / kills)))
        run.kill(process)
    process = run.start()
    assert process.wait(280) == 0
    process.stdout.close()

    # all accounted for: one result each, and no two of them the same
    results = run.results()
    assert len(results) == series
    assert len(set().union(*results.values())) == series
    assert run.ledger("SELECT count(*) FROM jobs WHERE state = 'sent'") == [(series,)]
    # each was begun once, and once more for every kill that met it in hand
    attempts = dict(run.ledger("SELECT id, attempts FROM jobs"))
    assert attempts == {job: 1 + run.in_hand[job] for job in attempts}
    assert 0 < run.in_hand.total() <= kills * _LANES
    # no inference but those
    inferences = (ram_folder / "inferences").stat().st_size
    assert series <= inferences <= series + run.in_hand.total()
    # and each was complete once
    completed = run.ledger(
        "SELECT job_id, count(*) FROM history WHERE state = 'sending' GROUP BY 1"
    )
    assert dict(completed) == dict.fromkeys(attempts, 1)
    # run again, nothing happens
    process = run.start()
    assert process.wait(60) == 0
    process.stdout.close()
    assert (ram_folder / "inferences").stat().st_size == inferences
    assert run.results() == results
    # and the account says all of this
    command = ["archive", "report", "--run", str(ram_folder / "run"), "--json", "--csv"]
    told = CliRunner().invoke(main, [*command, str(ram_folder / "account.csv")])
    account = json.loads(told.stdout)
    outcomes = [(each["state"], each["series"]) for each in account["outcomes"]]
    assert (account["is_finished"], outcomes) == (True, [("done", series)])
    assert 2 <= len(account["runs"]) <= kills + 2  # one may have been killed before its first sign
    rows = list(csv.DictReader((ram_folder / "account.csv").read_text().splitlines()))
    assert {Path(row["result"]).name for row in rows} == results.keys()
    assert all(float(row["segment_s"]) >= 0 for row in rows)


def test_a_run_that_is_killed_again_and_again_does_every_series_once(
    tree, plan_of, ram_folder, rng
):
    run_killed(tree.root, plan_of, ram_folder, rng, series=24, kills=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_over_300_series_that_is_killed_ten_times_does_every_series_once(
    tree, plan_of, ram_folder, rng
):
    run_killed(tree.root, plan_of, ram_folder, rng, series=300, kills=10)


def test_a_series_that_fails_in_a_way_nobody_foresaw_stops_no_other(tree, plan_of, ram_folder):
    write_archive(tree.root, 4)
    write_archive(tree.root / "faulty", 1, bright_hu=901)
    plan_of(tree.root).plan.close()
    run = KilledRun(ram_folder)
    process = run.start()
    assert process.wait(120) == 0
    process.stdout.close()
    states = dict(run.ledger("SELECT state, count(*) FROM jobs GROUP BY state"))
    assert states == {"sent": 4, "dead": 1}
    reason = run.ledger("SELECT reason, attempts FROM jobs WHERE state = 'dead'")
    assert reason == [("internal-error", 3)]


def test_a_series_that_takes_too_long_ends_alone_and_the_run_goes_on(
    tree, plan_of, ram_folder, monkeypatch
):
    write_archive(tree.root, 4)
    write_archive(tree.root / "hanging", 1, bright_hu=902)
    planned = plan_of(tree.root)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    fast_run = importlib.import_module("fast_run")
    work = partial(fast_run.work, ram_folder / "run", ram_folder / "out")
    leaving, deaths = Leaving(threading.Event(), threading.Event()), []

    status = keep_working(work, leaving, lambda: open_series(planned.plan), deaths.append)

    assert (status, deaths) == (0, [EX_SOFTWARE])
    lines = [(line.state, line.reason) for line in series_lines(planned.plan)]
    assert Counter(lines) == {("done", ""): 4, ("failed", "timeout"): 1}
    assert (ram_folder / "inferences").stat().st_size <= 5 + _LANES - 1


def test_a_series_that_hangs_is_not_to_blame_for_an_end_that_was_wanted(
    tree, plan_of, ram_folder, monkeypatch
):
    write_archive(tree.root, 1, bright_hu=902)
    planned = plan_of(tree.root)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    fast_run = importlib.import_module("fast_run")
    work = partial(fast_run.work, ram_folder / "run", ram_folder / "out")
    inferences = ram_folder / "inferences"
    inferences.touch()

    def end_at(inference: int, leaving: Leaving) -> None:
        while inferences.stat().st_size < inference:
            time.sleep(0.02)
        leaving.stop.set()
        leaving.leave.set()

    for inference in (1, 2):
        leaving = Leaving(threading.Event(), threading.Event())
        threading.Thread(target=end_at, args=(inference, leaving), daemon=True).start()
        status = keep_working(
            work,
            leaving,
            lambda: open_series(planned.plan),
            lambda status: pytest.fail(f"died: {status}"),
            lambda: note_told_to_end(planned.plan),
            patience_s=0.2,
        )
        assert status == 0
    jobs = KilledRun(ram_folder).ledger("SELECT attempts, deaths FROM jobs")
    assert jobs == [(2, 0)]


def test_weights_that_were_replaced_since_the_settings_were_read_end_a_run_before_its_first_job(
    tiny_models, ram_folder
):
    work = OwnWork("tiny", tiny_models, ("labelmap",), "cpu")
    config = own_config(ram_folder, work, SeriesRules())
    recipe = recipe_of(config, config.routes[0], model_stores(tiny_models))
    warm_segmenters(config, recipe)
    for other in ({"model_digest": "d" * 64}, {"digest": "of another manifest"}):
        with pytest.raises(TransientError) as caught:
            warm_segmenters(config, replace(recipe, **other))
        assert caught.value.reason is Reason.WRONG_RECIPE


class PassingStop(threading.Event):
    """Whoever waits for it lets a clock pass."""

    def __init__(self, clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.pass_s(timeout or 0.0)
        return self.is_set()


@pytest.fixture(params=["own", "fed"])
def run_empty(request, tree, plan_of, make_config, ram_folder, clock, monkeypatch):
    """Run a plan of nothing by what a feeder is said to find; gives the seconds that are told."""
    monkeypatch.setattr("pacs_bridge.archive.running._WAIT_S", 60.0)
    monkeypatch.setattr("pacs_bridge.archive.running._POLL_S", 1.0)
    plan_of(tree.root).plan.close()
    folder = ram_folder / "run"
    recipe = Recipe("bright", "b" * 64, "recipe")

    def run(step: Callable[..., FeedState], tell_wait: Callable[..., None]) -> float:
        monkeypatch.setattr(Feeder, "step", step)
        leaving = Leaving(PassingStop(clock), threading.Event())
        seconds: list[float] = []

        def progress(_state: FeedState, worked_s: float) -> None:
            seconds.append(worked_s)

        if request.param == "own":
            config = own_config(folder, OwnWork("bright", None, ("labelmap",)), SeriesRules())
            own = OwnRun(folder, config, recipe, ram_folder / "out", {}, SimpleNamespace())
            own.work(Pace(), leaving, clock, progress, tell_wait)
        else:
            fed = FedRun(folder, make_config(), FeedOrder("all", (), recipe, "old"))
            fed.work(leaving, clock, progress, tell_wait)
        return seconds[-1]

    return run


def test_a_run_says_once_why_it_waits_and_does_not_count_it_as_work(run_empty):
    full = TransientError(Reason.DISK_FULL, "no space")
    locked = TransientError(Reason.LEDGER_UNAVAILABLE, "locked")
    faults = [full, full, locked, None, None, full, full]
    step, told = Feeder.step, []

    def faulty(*args) -> FeedState:
        error = faults.pop(0) if faults else None
        if error is not None:
            raise error
        return replace(step(*args), is_over=not faults)

    assert run_empty(faulty, told.append) == 1.0
    assert told == [full, locked, full]


@pytest.mark.parametrize("run_empty", ["own"], indirect=True)
def test_series_that_are_worked_off_while_a_run_waits_are_time_of_the_run(run_empty, monkeypatch):
    busy = [True, True, False]
    monkeypatch.setattr(Pipeline, "is_busy", property(lambda _self: busy.pop(0)))
    faults = [TransientError(Reason.DISK_FULL, "no space") for _ in busy] + [None]
    step = Feeder.step

    def faulty(*args) -> FeedState:
        error = faults.pop(0) if faults else None
        if error is not None:
            raise error
        return replace(step(*args), is_over=not faults)

    assert run_empty(faulty, lambda _error: None) == 120.0


def test_what_is_finished_after_the_hours_is_time_of_the_run_and_what_waits_is_not(run_empty):
    states = [
        FeedState(2, False, True, 0, in_hand=1),
        FeedState(2, False, False, 0, in_hand=1),
        FeedState(1, False, False, 1),
        FeedState(0, True, False, 1),
    ]
    last = states[-1]

    def stepped(*_args) -> FeedState:
        return states.pop(0) if states else last

    assert run_empty(stepped, lambda error: pytest.fail(str(error))) == 1.0
