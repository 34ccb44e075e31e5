"""The worker between a real ledger and a real series; only the model is a threshold."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from inference.errors import ModelError
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.volume import Volume
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.dicomweb.peer import WebPeerError
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.fitness import Fitness
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.job_source import SpoolSources
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.memory_ledger import MemoryShare
from pacs_bridge.process import ProcessOptions, SeriesSource, process_series
from pacs_bridge.queue import JobClaim, OutcomeInDoubtError, State
from pacs_bridge.report import SeriesReport
from pacs_bridge.stopwatch import Stage
from pacs_bridge.time_limit import TimeLimit
from pacs_bridge.trial import TRIAL_SHAPE
from pacs_bridge.worker import BrokenDeviceError, Worker


class OneSegmenter:
    """Gives the same segmenter for every model, unless the model store is away."""

    def __init__(self, segmenter) -> None:
        self.segmenter = segmenter
        self.store_error: ModelError | None = None
        self.is_device_sound = True

    def get(self, *_: object):
        if self.store_error is not None:
            raise self.store_error
        return self.segmenter

    def device_computes(self) -> bool:
        return self.is_device_sound


class FailingSegmenter:
    """Raises in the middle of its work; with a series only, or with whatever it is given."""

    def __init__(self, like, error: BaseException, *, always: bool = False) -> None:
        self.identity = like.identity
        self._like = like
        self._error = error
        self._always = always

    def segment(self, volume: Volume, progress: Callable[[float], None]) -> LabelMap:
        if volume.geometry.shape == TRIAL_SHAPE and not self._always:
            return self._like.segment(volume, progress)
        progress(0.5)
        raise self._error


class BreakingSegmenter:
    """Breaks the device in the middle of its work, and calls ``then``."""

    def __init__(
        self, models: OneSegmenter, like, then: Callable[[], object] = lambda: None
    ) -> None:
        self.identity = like.identity
        self._models = models
        self._then = then

    def segment(self, _volume: Volume, _progress: Callable[[float], None]) -> LabelMap:
        self._models.is_device_sound = False
        self._then()
        raise ModelError(Reason.MODEL_ERROR, "CUDA error: an illegal memory access")


@pytest.fixture
def config(make_config: Callable[..., BridgeConfig]) -> BridgeConfig:
    return make_config(
        workers="{ lease_s = 1.0, max_attempts = 2, "
        "retry = { first_wait_s = 30.0, max_wait_s = 60.0, give_up_after_h = 1.0 } }"
    )


@pytest.fixture
def ledger(config: BridgeConfig) -> Iterator[Ledger]:
    made = Ledger.open(config.ledger_path)
    yield made
    made.close()


@pytest.fixture
def leave() -> threading.Event:
    return threading.Event()


@pytest.fixture
def models(bright_segmenter) -> OneSegmenter:
    return OneSegmenter(bright_segmenter)


@pytest.fixture
def make_worker(ledger, models, leave, tmp_path: Path) -> Callable[[BridgeConfig], Worker]:
    log = JsonLog.open(tmp_path / "log.jsonl", IdentityHash(b"test"), "debug")
    return lambda config: Worker(
        config,
        ledger.jobs,
        SpoolSources(ledger.instances, config.data_folder),
        models,
        log,
        leave,
    )


@pytest.fixture
def worker(make_worker: Callable[[BridgeConfig], Worker], config: BridgeConfig) -> Worker:
    return make_worker(config)


@pytest.fixture
def received(
    config: BridgeConfig,
    ledger: Ledger,
    start_listener,
    send,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> Callable[..., int]:
    """Send a series to a real listener; the id of the job that comes of it."""
    listener = start_listener(config)

    def run(paths: list[Path] | None = None, **options: object) -> int:
        files = paths or make_series(bright_volume, **options)
        assert set(send(listener.port, [pydicom.dcmread(path) for path in files])) == {0}
        known = {view.job_id for view in ledger.view.jobs()}
        waiting = threading.Event()
        for _ in range(500):
            for view in ledger.view.jobs([State.READY]):
                if view.job_id is not None and (view.job_id not in known or view.revision > 1):
                    return view.job_id
            waiting.wait(0.02)
        raise AssertionError(f"no job: {ledger.view.jobs()}")

    return run


def test_a_received_series_becomes_results_on_disk_and_a_delivery(
    received: Callable[..., int], worker: Worker, ledger: Ledger, config: BridgeConfig
) -> None:
    job = received()
    assert worker.work_one("w")

    view = ledger.view.job(job)
    assert view is not None
    assert view.state is State.SENDING
    delivery = ledger.outbox.claim("s", 60.0)
    assert delivery is not None
    assert {each.kind for each in delivery.candidates} == {"binary", "labelmap"}
    for each in delivery.candidates:
        path = config.data_folder / each.path
        assert pydicom.dcmread(path).SOPInstanceUID == each.sop_instance_uid
        assert path.stat().st_size == each.size_bytes
        report = SeriesReport.read(path.parent / "report.json")
    assert len(report.stacks[0].used) == 12
    assert not worker.work_one("w")


def test_the_names_of_new_folders_are_on_the_disk_before_the_ledger_knows_the_results(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    config: BridgeConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received()
    flushed: set[Path] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    worker.work_one("w")

    delivery = ledger.outbox.claim("s", 60.0)
    assert delivery is not None
    for each in delivery.candidates:
        path = config.data_folder / each.path
        assert {path, *path.parents[: path.parents.index(config.data_folder) + 1]} <= flushed


def test_only_kinds_that_some_destination_takes_are_made(
    make_config: Callable[..., BridgeConfig],
    make_worker: Callable[[BridgeConfig], Worker],
    received: Callable[..., int],
    ledger: Ledger,
) -> None:
    received()
    destination = 'name = "archive", ae_title = "A", host = "h", port = 1, kinds = ["binary"]'
    make_worker(make_config(destinations=f"[{{ {destination} }}]")).work_one("w")
    delivery = ledger.outbox.claim("s", 60.0)
    assert delivery is not None
    assert [each.kind for each in delivery.candidates] == ["binary"]


def test_a_rerun_of_the_same_job_gives_the_same_bytes(
    received: Callable[..., int], worker: Worker, ledger: Ledger, config: BridgeConfig, models
) -> None:
    job = received()
    good = models.segmenter
    digests = []
    for _ in range(2):
        worker.work_one("w")
        delivery = ledger.outbox.claim("s", 60.0)
        assert delivery is not None
        digests.append({each.kind: each.sha256 for each in delivery.candidates})
        ledger.outbox.park(delivery, Reason.SEND_REFUSED, "")
        with ledger.database.write() as connection:
            connection.execute("DELETE FROM deliveries")
            connection.execute("UPDATE jobs SET state = 'ready' WHERE id = ?", (job,))
    assert digests[0] == digests[1]
    assert good.calls == 2


def test_a_series_that_is_not_for_us_is_skipped_with_its_reason(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    job = received(make_series(bright_volume)[:5])
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (State.SKIPPED, Reason.TOO_FEW_SLICES)


def test_a_series_that_is_refused_is_dead_with_its_reason(
    received: Callable[..., int], worker: Worker, ledger: Ledger
) -> None:
    job = received(overrides={"RescaleSlope": None})
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (State.DEAD, Reason.NO_RESCALE)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (ModelError(Reason.MODEL_ERROR, "not finite"), State.RETRY, Reason.MODEL_ERROR),
        (ModelError(Reason.MODEL_CLASS_COUNT, "3"), State.DEAD, Reason.MODEL_CLASS_COUNT),
        (ModelError(Reason.OOM_GPU, "out of memory"), State.RETRY, Reason.OOM_GPU),
        (TransientError(Reason.DISK_FULL, "no space"), State.RETRY, Reason.DISK_FULL),
        (OSError(28, "No space left on device"), State.RETRY, Reason.DISK_FULL),
        (OSError(5, "Input/output error"), State.RETRY, Reason.INTERNAL_ERROR),
    ],
)
def test_each_error_becomes_the_state_that_it_means(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    config: BridgeConfig,
    models,
    error: Exception,
    state: State,
    reason: Reason,
) -> None:
    job = received()
    models.segmenter = FailingSegmenter(models.segmenter, error)
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (state, reason)
    assert not [path for path in config.results_folder.rglob("*") if path.is_file()]


def _try_until_over(worker: Worker, ledger: Ledger, job: int, attempts: int) -> list[State]:
    """States of a job after each attempt, without the waits between them."""
    states = []
    for _ in range(attempts):
        assert worker.work_one("w")
        view = ledger.view.job(job)
        assert view is not None
        states.append(view.state)
        with ledger.database.write() as connection:
            connection.execute("UPDATE jobs SET due_s = 0")
    return states


def test_errors_of_the_disk_do_not_use_up_the_attempts_of_a_job(
    received: Callable[..., int], worker: Worker, ledger: Ledger, models
) -> None:
    job = received()
    good = models.segmenter
    models.segmenter = FailingSegmenter(good, OSError(5, "Input/output error"))
    assert _try_until_over(worker, ledger, job, 5) == [State.RETRY] * 5
    models.segmenter = FailingSegmenter(good, ModelError(Reason.OOM_CPU, "2 GiB"))
    assert _try_until_over(worker, ledger, job, 2) == [State.RETRY, State.DEAD]


def test_of_files_that_cannot_be_used_our_own_alone_are_named(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    config: BridgeConfig,
    models,
    tmp_path: Path,
) -> None:
    job = received()
    good = models.segmenter
    own, foreign = config.scratch_folder / "000003", tmp_path / "archive" / "Doe^Jane.dcm"
    for path, said in ((own, "000003: Input/output error"), (foreign, "Input/output error")):
        error = OSError(5, "Input/output error", str(path))
        models.segmenter = FailingSegmenter(good, error)
        _try_until_over(worker, ledger, job, 1)
        assert ledger.view.job(job).detail == said
    assert "Doe" not in (tmp_path / "log.jsonl").read_text()


class BusySource:
    """Asks to be left alone for ten minutes."""

    def fetch(self, claim: JobClaim, scratch: Path, check: Callable[[], None]) -> SeriesSource:
        raise WebPeerError(Reason.SOURCE_UNREACHABLE, "status 429", 600.0)


def test_a_source_that_asks_for_a_wait_is_left_alone_by_the_job_for_as_long(
    received: Callable[..., int], worker: Worker, ledger: Ledger
) -> None:
    job = received()
    worker._sources = BusySource()
    before_s = ledger.database.clock.steady_s()
    assert worker.work_one("w")
    with ledger.database.read() as connection:
        row = connection.execute("SELECT state, due_s FROM jobs WHERE id = ?", (job,)).fetchone()
    assert row["state"] == State.RETRY
    assert row["due_s"] >= before_s + 600.0  # the longest wait of the site is 60 s


@pytest.mark.parametrize(
    "reason",
    [Reason.UNKNOWN_MODEL, Reason.MODEL_CHECKSUM, Reason.MODEL_MANIFEST],
)
def test_a_model_store_that_is_away_kills_no_job(
    received: Callable[..., int], worker: Worker, ledger: Ledger, models, clock, reason: Reason
) -> None:
    job = received()
    worker._fitness = Fitness(worker._log, clock.steady_s)
    models.store_error = ModelError(reason, "/models/m: Stale file handle")
    assert _try_until_over(worker, ledger, job, 1) == [State.READY]
    for _ in range(3):
        clock.pass_s(700)
        assert not worker.work_one("w")
    assert ledger.view.job(job).attempts == 0
    models.store_error = None
    clock.pass_s(700)
    assert _try_until_over(worker, ledger, job, 1) == [State.SENDING]


def test_a_device_that_computes_no_more_ends_the_process_and_kills_no_job(
    received: Callable[..., int],
    make_worker: Callable[[BridgeConfig], Worker],
    config: BridgeConfig,
    ledger: Ledger,
    models,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    good = models.segmenter
    poison, other = received(), received(make_series(bright_volume, series=2))
    for wanted in (State.RETRY, State.DEAD):  # two attempts are allowed here
        models.is_device_sound = True
        models.segmenter = BreakingSegmenter(models, good)
        with pytest.raises(BrokenDeviceError):
            make_worker(config).work_one("w")
        view = ledger.view.job(poison)
        assert view is not None
        assert view.state is wanted
        with ledger.database.write() as connection:
            connection.execute("UPDATE jobs SET due_s = 0")
    models.segmenter, models.is_device_sound = good, True
    assert _try_until_over(make_worker(config), ledger, other, 1) == [State.SENDING]


def test_a_device_that_broke_before_a_job_costs_it_no_attempt(
    received: Callable[..., int], make_worker, config, ledger: Ledger, models
) -> None:
    job = received()
    models.is_device_sound = False  # since the worker began
    with pytest.raises(BrokenDeviceError):
        make_worker(config).work_one("w")
    view = ledger.view.job(job)
    assert (view.state, view.attempts) == (State.READY, 0)
    models.is_device_sound = True
    assert _try_until_over(make_worker(config), ledger, job, 1) == [State.SENDING]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_trial_says_what_memory_it_takes_and_keeps_none_of_it(
    received: Callable[..., int], worker: Worker, models, config, is_first: bool
) -> None:
    good, promised = models.segmenter, []

    class Settling:
        identity = good.identity

        def fitted(self, _scans, **_options):
            return self

        def main_memory_bytes(self, _geometry):
            return 12345

        def segment(self, volume, progress):
            if volume.geometry.shape != TRIAL_SHAPE:
                raise ModelError(Reason.OOM_CPU, "not enough")
            promised.append(worker._memory.promised_beside(MemoryShare()))
            return good.segment(volume, progress)

    received()
    models.segmenter = Settling()
    if is_first:
        worker.begin_with_trial(config.routes[0])
    assert worker.work_one("w")

    assert promised == [12345] * (2 if is_first else 1)
    assert worker._memory.promised_beside(MemoryShare()) == 0
    assert worker._memory._parts == {}


def _told(folder: Path, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize(
    "error",
    [
        ModelError(Reason.MODEL_ERROR, "no kernel image is available"),
        ModelError(Reason.OOM_GPU, "out of memory"),
    ],
)
def test_a_machine_that_would_fail_every_job_tries_one_of_them_and_leaves_it_untouched(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    models,
    clock,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
    error: ModelError,
) -> None:
    jobs = [received(make_series(bright_volume, series=n)) for n in (1, 2)]
    good = models.segmenter
    worker._fitness = Fitness(worker._log, clock.steady_s)
    models.segmenter = FailingSegmenter(good, error, always=True)
    assert worker.work_one("w")
    assert not worker.work_one("w")
    clock.pass_s(31)
    assert not worker.work_one("w")  # still unfit

    views = [ledger.view.job(job) for job in jobs]
    assert [(view.state, view.attempts) for view in views] == [(State.READY, 0)] * 2
    unfit = _told(tmp_path, "machine-unfit")
    assert [(each["reason"], each["level"]) for each in unfit] == [(error.reason, "error")] * 2
    models.segmenter = good
    clock.pass_s(61)
    assert worker.work_one("w")
    assert worker.work_one("w")
    assert [ledger.view.job(job).state for job in jobs] == [State.SENDING] * 2
    assert len(_told(tmp_path, "machine-fit")) == 1


def test_a_machine_that_cannot_write_leaves_the_jobs_to_others(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    config: BridgeConfig,
    tmp_path: Path,
) -> None:
    job = received()
    config.scratch_folder.write_bytes(b"in the way")
    config.results_folder.write_bytes(b"in the way")
    assert worker.work_one("w")
    assert not worker.work_one("w")

    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.attempts) == (State.READY, 0)
    (unfit,) = _told(tmp_path, "machine-unfit")
    assert unfit["reason"] == Reason.INTERNAL_ERROR


def test_a_job_that_spoils_the_machine_is_not_excused_for_ever(
    received: Callable[..., int], worker: Worker, ledger: Ledger, models, clock
) -> None:
    job = received()
    good = models.segmenter
    worker._fitness = Fitness(worker._log, clock.steady_s)
    spoilt = False

    class Spoiling:
        identity = good.identity

        def segment(self, volume, progress):
            nonlocal spoilt
            if volume.geometry.shape != TRIAL_SHAPE:
                spoilt = True
            if spoilt:
                raise ModelError(Reason.OOM_GPU, "out of memory")
            return good.segment(volume, progress)

    models.segmenter = Spoiling()
    states = []
    for _ in range(3):
        assert worker.work_one("w")
        states.append(ledger.view.job(job).state)
        spoilt = False
        clock.pass_s(700)
        with ledger.database.write() as connection:
            connection.execute("UPDATE jobs SET due_s = 0")
    assert states == [State.READY, State.RETRY, State.DEAD]


def test_a_worker_that_begins_with_a_trial_claims_nothing_while_it_fails(
    received: Callable[..., int], worker: Worker, ledger: Ledger, models, clock, config
) -> None:
    job = received()
    good = models.segmenter
    worker._fitness = Fitness(worker._log, clock.steady_s)
    models.segmenter = FailingSegmenter(good, ModelError(Reason.MODEL_ERROR, "no"), always=True)
    worker.begin_with_trial(config.routes[0])
    assert not worker.work_one("w")
    assert ledger.view.job(job).attempts == 0
    models.segmenter = good
    clock.pass_s(31)
    assert worker.work_one("w")
    assert ledger.view.job(job).state is State.SENDING


def test_a_card_that_a_trial_finds_broken_ends_the_process(
    worker: Worker, models, config: BridgeConfig
) -> None:
    broken = ModelError(Reason.MODEL_ERROR, "CUDA error: unspecified launch failure")
    models.segmenter = FailingSegmenter(models.segmenter, broken, always=True)
    models.is_device_sound = False
    worker.begin_with_trial(config.routes[0])
    with pytest.raises(BrokenDeviceError):
        worker.work_one("w")


@pytest.mark.parametrize("trouble", ["lease", "ledger"])
def test_a_device_that_computes_no_more_ends_the_process_though_the_job_is_lost(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    models,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    job, other = received(), received(make_series(bright_volume, series=2))

    def lose() -> None:
        if trouble == "lease":
            with ledger.database.write() as connection:
                connection.execute("UPDATE jobs SET fence = fence + 1 WHERE id = ?", (job,))

    if trouble == "ledger":
        fault = TransientError(Reason.LEDGER_UNAVAILABLE, "locked")
        monkeypatch.setattr(ledger.jobs, "retry", lambda *_: (_ for _ in ()).throw(fault))
    models.segmenter = BreakingSegmenter(models, models.segmenter, lose)
    with pytest.raises(BrokenDeviceError):
        worker.work_one("w")
    assert not worker.work_one("w")  # what is left is for a process with a sound device
    view = ledger.view.job(other)
    assert view is not None
    assert (view.state, view.attempts) == (State.READY, 0)


def test_the_report_says_what_only_the_run_itself_showed(
    received: Callable[..., int], worker: Worker, models, config: BridgeConfig
) -> None:
    good = models.segmenter

    class Telling:
        identity = good.identity

        def segment(self, volume, progress):
            self.identity = dataclasses.replace(
                good.identity, execution=(("outside_region", "40.0%"),)
            )
            return good.segment(volume, progress)

    job, models.segmenter = received(), Telling()
    assert worker.work_one("w")

    (path,) = (config.results_folder / f"{job:08d}").rglob("report.json")
    model = SeriesReport.read(path).model
    assert model is not None
    assert dict(model.execution) == {"outside_region": "40.0%"}


def test_a_fault_of_ours_ends_the_worker_and_leaves_the_lease_to_run_out(
    received: Callable[..., int], worker: Worker, ledger: Ledger, models, config: BridgeConfig
) -> None:
    job = received()
    good = models.segmenter
    models.segmenter = FailingSegmenter(good, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        worker.work_one("w")
    assert ledger.jobs.claim("other", 1.0) is None
    ledger.jobs.presume_dead("w")
    models.segmenter = good
    assert worker.work_one("other")
    view = ledger.view.job(job)
    assert view is not None
    assert view.state is State.SENDING
    # what the dead one left behind is gone, and nothing else
    (left,) = (config.results_folder / f"{job:08d}").iterdir()
    assert {path.name for path in left.iterdir()} == {
        "seg-binary.dcm",
        "seg-labelmap.dcm",
        "report.json",
    }


def test_a_worker_that_is_told_to_leave_gives_its_job_back_untouched(
    received: Callable[..., int], worker: Worker, ledger: Ledger, leave: threading.Event, config
) -> None:
    job = received()
    leave.set()
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.attempts) == (State.READY, 0)
    assert not [path for path in config.results_folder.rglob("*") if path.is_file()]


def test_a_worker_that_was_presumed_dead_completes_nothing(
    received: Callable[..., int], worker: Worker, ledger: Ledger, models, config
) -> None:
    job = received()
    good = models.segmenter

    class Overtaken:
        identity = good.identity

        def segment(self, volume, progress):
            ledger.jobs.presume_dead("w")
            assert ledger.jobs.claim("other", 60.0) is not None
            return good.segment(volume, progress)

    models.segmenter = Overtaken()
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.worker) == (State.CLAIMED, "other")
    assert not [path for path in config.results_folder.rglob("*") if path.is_file()]


def test_a_spooled_file_that_is_gone_is_said(
    received: Callable[..., int], worker: Worker, ledger: Ledger, config: BridgeConfig
) -> None:
    job = received()
    next(path for path in config.spool_folder.rglob("*") if path.stat().st_size > 1000).unlink()
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (State.DEAD, Reason.SOURCE_MISSING)


def test_a_spooled_file_that_changed_on_disk_is_said(
    received: Callable[..., int], worker: Worker, ledger: Ledger, config: BridgeConfig
) -> None:
    job = received()
    path = next(path for path in config.spool_folder.rglob("*") if path.stat().st_size > 1000)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (State.DEAD, Reason.SOURCE_MISSING)


def test_the_service_and_the_segment_command_name_a_result_alike(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    models,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    tmp_path: Path,
) -> None:
    paths = make_series(bright_volume)
    received(paths)
    worker.work_one("w")
    delivery = ledger.outbox.claim("s", 60.0)
    assert delivery is not None
    source = SeriesSource(tuple(paths), datetime.now(UTC))
    report = process_series(source, models.segmenter, ProcessOptions(), tmp_path / "out")
    assert {each.sop_instance_uid for each in delivery.candidates} == {
        each.sop_instance_uid for each in report.stacks[0].outputs
    }


def test_a_job_that_hangs_is_ended_with_its_process(
    received: Callable[..., int],
    make_worker: Callable[[BridgeConfig], Worker],
    ledger: Ledger,
    models,
    make_config: Callable[..., BridgeConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = make_worker(make_config(workers="{ job_timeout_s = 0.2 }"))
    job = received()
    ended = threading.Event()
    good = models.segmenter
    monkeypatch.setattr("pacs_bridge.time_limit.os._exit", lambda _status: ended.set())

    class Hanging:
        identity = good.identity

        def segment(self, volume, progress):
            assert ended.wait(20)
            return good.segment(volume, progress)

    models.segmenter = Hanging()
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.reason) == (State.DEAD, Reason.TIMEOUT)


def test_the_trial_after_a_failure_uses_up_no_time_of_its_job(
    received: Callable[..., int],
    make_worker: Callable[[BridgeConfig], Worker],
    ledger: Ledger,
    models,
    make_config: Callable[..., BridgeConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = make_worker(make_config(workers="{ job_timeout_s = 1.0 }"))
    job = received()
    ended = threading.Event()
    monkeypatch.setattr("pacs_bridge.time_limit.os._exit", lambda _status: ended.set())
    good = models.segmenter

    class Slow:
        identity = good.identity

        def segment(self, volume, progress):
            if volume.geometry.shape != TRIAL_SHAPE:
                raise ModelError(Reason.OOM_GPU, "8 GiB")
            ended.wait(2.0)
            return good.segment(volume, progress)

    models.segmenter = Slow()
    worker.work_one("w")

    assert not ended.is_set()
    assert ledger.view.job(job).state is State.RETRY


def test_waiting_for_the_lane_of_another_job_uses_up_no_time(
    received: Callable[..., int],
    make_worker: Callable[[BridgeConfig], Worker],
    ledger: Ledger,
    make_config: Callable[..., BridgeConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = make_worker(make_config(workers="{ job_timeout_s = 1.0 }"))
    job = received()
    ended = threading.Event()
    monkeypatch.setattr("pacs_bridge.time_limit.os._exit", lambda _status: ended.set())

    class LongQueue:
        gives_way = False

        def enter(self, stage: Stage, check: Callable[[], None]) -> None:
            ended.wait(2.0)
            worker.abandon()
            check()

    claim = worker.claim("w")
    assert claim is not None
    worker.work(claim, LongQueue())
    assert not ended.is_set()
    view = ledger.view.job(job)
    assert view is not None
    assert (view.state, view.attempts) == (State.READY, 0)


@pytest.mark.parametrize("trouble", ["ledger", "lease"])
def test_a_job_that_hangs_is_ended_though_the_ledger_cannot_note_it(
    received: Callable[..., int],
    make_worker: Callable[[BridgeConfig], Worker],
    ledger: Ledger,
    models,
    make_config: Callable[..., BridgeConfig],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    worker = make_worker(make_config(workers="{ job_timeout_s = 0.2 }"))
    received()
    ended = threading.Event()
    good = models.segmenter
    monkeypatch.setattr("pacs_bridge.time_limit.os._exit", lambda _status: ended.set())
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)
    if trouble == "ledger":
        fault = TransientError(Reason.LEDGER_UNAVAILABLE, "locked")
        monkeypatch.setattr(ledger.jobs, "park", lambda *_: (_ for _ in ()).throw(fault))

    class Hanging:
        identity = good.identity

        def segment(self, volume, progress):
            if trouble == "lease":
                with ledger.database.write() as connection:
                    connection.execute("UPDATE jobs SET fence = fence + 1")
            assert ended.wait(20)
            return good.segment(volume, progress)

    models.segmenter = Hanging()
    worker.work_one("w")
    assert ended.is_set()


def test_limits_and_texts_of_the_configuration_reach_the_result(
    received: Callable[..., int],
    make_config: Callable[..., BridgeConfig],
    make_worker: Callable[[BridgeConfig], Worker],
    ledger: Ledger,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    texts = '{ series_description = "House style", content_description = "Organs" }'
    strict = make_worker(make_config(series="{ min_slices = 13 }"))
    worded = make_config(results=texts)
    skipped = received()
    strict.work_one("w")
    view = ledger.view.job(skipped)
    assert view is not None
    assert (view.state, view.reason) == (State.SKIPPED, Reason.TOO_FEW_SLICES)

    received(make_series(bright_volume, series=2))
    make_worker(worded).work_one("w")
    delivery = ledger.outbox.claim("s", 60.0)
    assert delivery is not None
    ds = pydicom.dcmread(worded.data_folder / delivery.candidates[0].path)
    assert (ds.SeriesDescription, ds.ContentDescription) == ("House style", "Organs")


def test_work_that_is_done_outlasts_a_ledger_that_cannot_be_reached(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    models,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = received()
    monkeypatch.setattr("pacs_bridge.reporter._WAIT_S", 0.01)
    complete, faults = ledger.jobs.complete, 5

    def away(*arguments: object) -> None:
        nonlocal faults
        faults -= 1
        if faults:
            raise TransientError(Reason.LEDGER_UNAVAILABLE, "disk I/O error")
        complete(*arguments)

    monkeypatch.setattr(ledger.jobs, "complete", away)
    worker.work_one("w")
    view = ledger.view.job(job)
    assert view is not None
    assert view.state is State.SENDING
    assert models.segmenter.calls == 1


@pytest.mark.parametrize("report", ["release", "complete"])
@pytest.mark.parametrize("is_back", [True, False])
def test_a_worker_that_leaves_while_the_queue_is_away_reports_if_it_is_back_soon(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    models,
    leave: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    report: str,
    is_back: bool,
) -> None:
    monkeypatch.setattr("pacs_bridge.reporter._WAIT_S", 0.01)
    monkeypatch.setattr("pacs_bridge.reporter._LEAVE_WITHIN_S", 60.0 if is_back else 0.1)
    job = received()
    tell, faults = getattr(ledger.jobs, report), 0
    if report == "release":
        leave.set()

    def away(*arguments: object) -> None:
        nonlocal faults
        faults += 1
        leave.set()
        if not is_back or faults < 5:
            raise TransientError(Reason.QUEUE_UNAVAILABLE, "it is stopped")
        tell(*arguments)

    monkeypatch.setattr(ledger.jobs, report, away)
    worker.work_one("w")

    view = ledger.view.job(job)
    assert view is not None
    told = {"release": State.READY, "complete": State.SENDING}[report]
    held = {"release": State.CLAIMED, "complete": State.ENCODED}[report]
    assert view.state is (told if is_back else held)
    assert (view.attempts == 0) is (report == "release" and is_back)


@pytest.mark.parametrize(
    ("error", "reports"),
    [
        (None, ["advance", "advance", "complete"]),
        (PermanentError(Reason.CORRUPT_PIXEL_DATA, "1.2"), ["park"]),
        (TransientError(Reason.SOURCE_UNREACHABLE, "away"), ["retry"]),
    ],
)
def test_no_time_of_a_job_passes_while_what_was_done_waits_for_the_ledger(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    models,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | None,
    reports: list[str],
) -> None:
    is_paused = False
    if error is not None:
        models.segmenter = FailingSegmenter(models.segmenter, error)

    class Noted(TimeLimit):
        @contextmanager
        def paused(self) -> Iterator[None]:
            nonlocal is_paused
            with super().paused():
                is_paused = True
                yield
            is_paused = False

    monkeypatch.setattr("pacs_bridge.worker.TimeLimit", Noted)
    told = []

    class Asked:
        """The queue of the ledger; notes whether time passes when it is told something."""

        def __getattr__(self, name: str):
            if name in ("advance", "complete", "park", "retry"):
                told.append((name, is_paused))
            return getattr(ledger.jobs, name)

    worker._queue = Asked()
    received()
    worker.work_one("w")

    assert told == [(name, True) for name in reports]


def test_a_late_slice_makes_a_second_result_that_names_the_first(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    config: BridgeConfig,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
) -> None:
    paths = make_series(bright_volume)
    received(paths[:-1])
    worker.work_one("w")
    first = ledger.outbox.claim("s", 60.0)
    assert first is not None
    ledger.outbox.sent(first, first.candidates[0])

    received(paths[-1:])
    worker.work_one("w")
    second = ledger.outbox.claim("s", 60.0)
    assert second is not None
    report = SeriesReport.read(
        (config.data_folder / second.candidates[0].path).parent / "report.json"
    )
    assert (report.series.revision, len(report.stacks[0].used)) == (2, 12)
    for old, new in zip(first.candidates, second.candidates, strict=True):
        assert old.sop_instance_uid != new.sop_instance_uid
        assert old.sop_instance_uid in str(pydicom.dcmread(config.data_folder / new.path))


@pytest.mark.parametrize("is_report_kept", [True, False])
def test_a_result_replaces_the_one_of_its_own_planes_though_stacks_are_counted_anew(
    received: Callable[..., int],
    worker: Worker,
    ledger: Ledger,
    config: BridgeConfig,
    make_series: Callable[..., list[Path]],
    bright_volume: Volume,
    is_report_kept: bool,
) -> None:
    received(make_series(bright_volume, stack=1, acquisition_number=2))
    worker.work_one("w")
    first = ledger.outbox.claim("s", 60.0)
    assert first is not None
    ledger.outbox.sent(first, first.candidates[0])
    if not is_report_kept:  # what it rests on is not known any more
        (config.data_folder / first.candidates[0].path).with_name("report.json").unlink()

    received(make_series(bright_volume, stack=2, acquisition_number=1))
    worker.work_one("w")
    replaced = {}
    while (claim := ledger.outbox.claim("s", 60.0)) is not None:
        for each in claim.candidates:
            ds = pydicom.dcmread(config.data_folder / each.path)
            references = ds.get("ReferencedImageSequence", [])
            named = [item.ReferencedSOPInstanceUID for item in references]
            replaced[each.stack, each.kind] = named
        ledger.outbox.sent(claim, claim.candidates[0])
    assert replaced == {
        (stack, old.kind): [old.sop_instance_uid] if stack == 1 and is_report_kept else []
        for old in first.candidates
        for stack in (0, 1)
    }


def test_the_log_tells_of_jobs_and_of_no_patient(
    received: Callable[..., int], worker: Worker, tmp_path: Path
) -> None:
    received(overrides={"PatientName": "Canary^Yellow", "PatientID": "CANARY-7"})
    worker.work_one("w")
    text = (tmp_path / "log.jsonl").read_text()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert [each for each in events if each != "job-stage"] == ["job-claimed", "job-complete"]
    assert "canary" not in text.lower()


def test_results_that_may_have_been_taken_are_not_deleted(worker, ledger, config, received):
    received()
    complete = ledger.jobs.complete

    class Doubtful:
        """A queue that has taken the results, and whose answer was lost."""

        def __getattr__(self, name):
            return getattr(ledger.jobs, name)

        def complete(self, *outcome):
            complete(*outcome)
            raise OutcomeInDoubtError("1")

    worker._queue = Doubtful()
    assert worker.work_one("w")

    results = ledger.outbox.claim("s", 60).candidates
    assert [each.problem(config.data_folder) for each in results] == ["", ""]
