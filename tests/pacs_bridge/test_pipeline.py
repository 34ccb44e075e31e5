"""Jobs that overlap in one worker: order of stages, equal results, and troubles of one alone."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom.dsutils import split_dataset

from dicom_seg.errors import SegmentationError, SeriesRefusedError
from dicom_seg.segmentation import EncodedSegmentation
from inference.errors import ModelError
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.segmenter import Progress, Segmenter
from inference.volume import Volume
from pacs_bridge import process
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.job_source import SpoolSources
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.sources import SpooledInstance
from pacs_bridge.log import JsonLog
from pacs_bridge.memory_ledger import MemoryLedger
from pacs_bridge.pipeline import Lane, Lanes, Pipeline
from pacs_bridge.queue import JobRequest, Priority, State
from pacs_bridge.stopwatch import Stage
from pacs_bridge.worker import BrokenDeviceError, Worker

WAIT_S = 60.0


class Gate:
    """A segmenter that waits, series by series, until a test lets it go on."""

    wanted_bytes = 0

    def __init__(self, like: Segmenter) -> None:
        self.identity = like.identity
        self._like = like
        self.begun: list[threading.Event] = [threading.Event() for _ in range(8)]
        self.may_end: list[threading.Event] = [threading.Event() for _ in range(8)]
        self.errors: dict[int, BaseException] = {}
        self.calls = 0

    def main_memory_bytes(self, geometry: Geometry) -> int:
        return self.wanted_bytes

    def fitted(self, scans: Sequence[Geometry], **_: object) -> Segmenter:
        return self

    def segment(self, volume: Volume, progress: Progress | None = None) -> LabelMap:
        number = self.calls
        self.calls += 1
        self.begun[number].set()
        while not self.may_end[number].wait(0.02):
            if progress is not None:
                progress(0.5)
        if number in self.errors:
            raise self.errors[number]
        return self._like.segment(volume, progress)

    def open(self) -> None:
        for event in self.may_end:
            event.set()


class Models:
    """Gives the same segmenter for every model."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.is_device_sound = True

    def get(self, *_: object) -> Segmenter:
        return self.segmenter

    def device_computes(self) -> bool:
        return self.is_device_sound


class Shelf:
    """Series on disk, as the ledger would know them."""

    def __init__(self) -> None:
        self.series: dict[str, tuple[SpooledInstance, ...]] = {}

    def sources(self, series_instance_uid: str, _revision: int) -> tuple[SpooledInstance, ...]:
        return self.series[series_instance_uid]

    def set_aside(self, _series_instance_uid: str) -> tuple[()]:
        return ()


def _spooled(path: Path) -> SpooledInstance:
    offset = split_dataset(path)[1]
    data = path.read_bytes()
    digest = hashlib.sha256(data[offset:]).hexdigest()
    return SpooledInstance(str(dcmread(path).SOPInstanceUID), path, digest, offset, len(data))


@pytest.fixture
def config(make_config: Callable[..., BridgeConfig]) -> BridgeConfig:
    return make_config(workers="{ max_attempts = 2 }")


@pytest.fixture
def ledger(config: BridgeConfig) -> Iterator[Ledger]:
    made = Ledger.open(config.ledger_path, max_failures=config.workers.max_attempts)
    yield made
    made.close()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def submit(
    ledger: Ledger, shelf: Shelf, make_series: Callable[..., list[Path]], bright_volume: Volume
) -> Callable[..., int]:
    """Put a series on the shelf, and its job into the queue."""

    def run(priority: Priority = Priority.ARCHIVE, **options: object) -> int:
        number = len(shelf.series) + 1
        paths = make_series(bright_volume, series=number, **options)
        uid = str(dcmread(paths[0]).SeriesInstanceUID)
        shelf.series[uid] = tuple(_spooled(path) for path in paths)
        request = JobRequest(uid, 1, "all", "synthetic-3mm", ("archive",), priority)
        return ledger.jobs.submit(request)

    return run


@pytest.fixture
def gate(bright_segmenter: Segmenter) -> Iterator[Gate]:
    made = Gate(bright_segmenter)
    yield made
    made.open()


@pytest.fixture
def models(gate: Gate) -> Models:
    return Models(gate)


@pytest.fixture
def leave() -> threading.Event:
    return threading.Event()


@pytest.fixture
def worker(
    config: BridgeConfig,
    ledger: Ledger,
    shelf: Shelf,
    models: Models,
    leave: threading.Event,
    tmp_path: Path,
) -> Worker:
    log = JsonLog.open(tmp_path / "log.jsonl", IdentityHash(b"test"), "debug")
    sources = SpoolSources(shelf, config.data_folder)
    return Worker(config, ledger.jobs, sources, models, log, leave)


@pytest.fixture
def pipeline(worker: Worker, gate: Gate) -> Iterator[Pipeline]:
    made = Pipeline(worker)
    yield made
    gate.open()
    worker.abandon()
    made.drain()


@pytest.fixture
def stages(tmp_path: Path) -> Callable[[], list[tuple[int, str]]]:
    """Job and stage of every stage that has begun so far, in order."""

    def read() -> list[tuple[int, str]]:
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
        return [(line["job"], line["stage"]) for line in lines if line["event"] == "job-stage"]

    return read


@pytest.fixture
def fill(pipeline: Pipeline, tmp_path: Path) -> Callable[[int], None]:
    """Have the pipeline claim until so many jobs were claimed in all."""

    def run(jobs: int) -> None:
        for _ in range(200):
            if _count(tmp_path, "job-claimed") == jobs:
                return
            pipeline.work_one("w")
        raise AssertionError(f"not {jobs} jobs were claimed")

    return run


def _count(folder: Path, event: str) -> int:
    log = folder / "log.jsonl"
    return log.read_text().count(f'"event": "{event}"') if log.exists() else 0


def _work_for_ever(pipeline: Pipeline) -> None:
    while True:
        pipeline.work_one("w")


def _state(ledger: Ledger, job: int) -> State:
    view = ledger.view.job(job)
    assert view is not None
    return view.state


def _digests(ledger: Ledger) -> dict[tuple[int, str], str]:
    """SHA-256 of every result, by job and kind."""
    with ledger.database.read() as connection:
        rows = connection.execute("SELECT job_id, kind, sha256 FROM results").fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


def test_a_pipeline_is_busy_until_the_last_job_that_it_has_begun_is_over(
    submit: Callable[..., int], pipeline: Pipeline, fill: Callable[[int], None], gate: Gate
) -> None:
    assert not pipeline.is_busy
    submit()
    fill(1)
    assert gate.begun[0].wait(WAIT_S)
    assert pipeline.is_busy
    gate.open()
    pipeline.drain()
    assert not pipeline.is_busy


def test_the_next_series_is_decoded_and_the_last_encoded_while_one_is_segmented(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    stages: Callable[[], list[tuple[int, str]]],
    ledger: Ledger,
    wait_for: Callable[..., None],
) -> None:
    jobs = [submit() for _ in range(3)]
    fill(2)
    assert gate.begun[0].wait(WAIT_S)
    wait_for(lambda: (2, "read") in stages())
    assert pipeline.work_one("w")  # no room: one series is decoded ahead, no more
    assert {job for job, _ in stages()} == {1, 2}

    gate.may_end[0].set()
    assert gate.begun[1].wait(WAIT_S)
    fill(3)
    wait_for(lambda: (3, "read") in stages() and _state(ledger, jobs[0]) is State.SENDING)
    assert not gate.may_end[1].is_set()
    order = stages()
    assert order.index((2, "read")) < order.index((1, "check")) < order.index((3, "read"))
    assert (3, "segment") not in order
    assert (2, "check") not in order

    gate.open()
    pipeline.drain()
    assert [_state(ledger, job) for job in jobs] == [State.SENDING] * 3


@pytest.mark.parametrize("is_roomy", [True, False])
def test_a_series_is_decoded_ahead_where_it_fits_beside_what_the_network_will_take(
    submit: Callable[..., int],
    pipeline: Pipeline,
    worker: Worker,
    fill: Callable[[int], None],
    gate: Gate,
    stages: Callable[[], list[tuple[int, str]]],
    ledger: Ledger,
    wait_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    is_roomy: bool,
) -> None:
    volume_bytes, gate.wanted_bytes = 2 * 12 * 24 * 32, 10**6
    free = gate.wanted_bytes + (volume_bytes if is_roomy else volume_bytes - 1)
    worker._memory = MemoryLedger(lambda: free, look_interval_s=0.02)
    decoded: list[bool] = []
    read_stack = process.read_stack

    def watched(plan, progress) -> object:
        decoded.append(gate.may_end[0].is_set())
        return read_stack(plan, progress=progress)

    monkeypatch.setattr(process, "read_stack", watched)
    jobs = [submit() for _ in range(2)]
    fill(2)
    assert gate.begun[0].wait(WAIT_S)
    wait_for(lambda: (2, "read") in stages())
    if is_roomy:
        wait_for(lambda: len(decoded) == 2)
    gate.may_end[0].set()
    assert gate.begun[1].wait(WAIT_S)
    gate.open()
    pipeline.drain()

    assert [_state(ledger, job) for job in jobs] == [State.SENDING] * 2
    assert decoded == [False, not is_roomy]
    assert worker._memory._parts == {}


def test_the_trial_after_a_failure_waits_until_no_other_job_is_at_the_network(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    models: Models,
    ledger: Ledger,
    wait_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = threading.Event()
    loaded_beside: list[bool] = []
    read_stack, get = process.read_stack, models.get

    def short_of_memory(plan, progress) -> object:
        if not gate.begun[0].is_set():
            return read_stack(plan, progress=progress)
        failed.set()
        raise SeriesRefusedError(Reason.OOM_CPU, "a volume")

    def watched(*asked: object) -> Segmenter:
        if failed.is_set():
            loaded_beside.append(not gate.may_end[0].is_set())
        return get(*asked)

    monkeypatch.setattr(process, "read_stack", short_of_memory)
    monkeypatch.setattr(models, "get", watched)
    first = submit()
    fill(1)
    assert gate.begun[0].wait(WAIT_S)
    second = submit()
    fill(2)
    assert failed.wait(WAIT_S)
    assert not gate.begun[1].wait(1.0)
    gate.open()
    pipeline.drain()

    assert gate.calls == 2  # one series and a trial
    assert loaded_beside
    assert not any(loaded_beside)
    assert [_state(ledger, job) for job in (first, second)] == [State.SENDING, State.RETRY]


def test_results_with_and_without_overlap_are_equal(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    worker: Worker,
    ledger: Ledger,
) -> None:
    gate.open()
    for patient_position in ("HFS", "FFS", "HFP"):
        submit(patient_position=patient_position)
    fill(3)
    pipeline.drain()
    overlapped = _digests(ledger)
    assert len(overlapped) == 6
    with ledger.database.write() as connection:
        connection.execute("DELETE FROM deliveries")
        connection.execute("DELETE FROM results")
        connection.execute("UPDATE jobs SET state = 'ready'")
    while worker.work_one("w"):
        pass
    assert _digests(ledger) == overlapped


@pytest.mark.parametrize("stage", [Stage.READ, Stage.SEGMENT, Stage.ENCODE])
def test_an_error_in_one_stage_concerns_the_job_that_is_there(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    ledger: Ledger,
    shelf: Shelf,
    monkeypatch: pytest.MonkeyPatch,
    stage: Stage,
) -> None:
    jobs = [submit() for _ in range(3)]
    wanted = State.DEAD
    if stage is Stage.READ:
        list(shelf.series.values())[1][4].path.write_bytes(b"no DICOM")
    elif stage is Stage.SEGMENT:
        gate.errors[1] = ModelError(Reason.OOM_CPU, "2 GiB short")
        wanted = State.RETRY
    else:
        spoil = {each.sop_instance_uid for each in list(shelf.series.values())[1]}
        write = process.write_segmentation

        def failing(labels, plan, request, path) -> EncodedSegmentation:
            if request.sources[0].sop_instance_uid in spoil:
                raise SegmentationError(Reason.SEG_ENCODE, "no")
            return write(labels, plan, request, path)

        monkeypatch.setattr(process, "write_segmentation", failing)
    gate.open()
    fill(3)
    pipeline.drain()
    assert [_state(ledger, job) for job in jobs] == [State.SENDING, wanted, State.SENDING]


def test_a_fault_of_ours_ends_the_worker_and_the_others_are_given_back(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    ledger: Ledger,
) -> None:
    jobs = [submit() for _ in range(2)]
    fill(2)
    assert gate.begun[0].wait(WAIT_S)
    gate.errors[0] = ZeroDivisionError()
    gate.may_end[0].set()
    with pytest.raises(ZeroDivisionError):
        _work_for_ever(pipeline)
    assert [_state(ledger, job) for job in jobs] == [State.CLAIMED, State.READY]
    assert [ledger.view.job(job).attempts for job in jobs] == [1, 0]


def test_a_device_that_breaks_is_left_alone_by_the_jobs_behind(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    models: Models,
    ledger: Ledger,
) -> None:
    jobs = [submit() for _ in range(2)]
    fill(2)
    assert gate.begun[0].wait(WAIT_S)
    models.is_device_sound = False
    gate.errors[0] = ModelError(Reason.MODEL_ERROR, "CUDA error: an illegal memory access")
    gate.may_end[0].set()
    with pytest.raises(BrokenDeviceError):
        _work_for_ever(pipeline)
    assert [_state(ledger, job) for job in jobs] == [State.RETRY, State.READY]
    assert gate.calls == 1


def test_a_worker_that_is_told_to_leave_gives_back_all_that_it_has(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    leave: threading.Event,
    ledger: Ledger,
    config: BridgeConfig,
) -> None:
    jobs = [submit() for _ in range(2)]
    fill(2)
    assert gate.begun[0].wait(WAIT_S)
    leave.set()
    pipeline.drain()
    views = [ledger.view.job(job) for job in jobs]
    assert [(view.state, view.attempts) for view in views] == [(State.READY, 0)] * 2
    assert not [path for path in config.results_folder.rglob("*") if path.is_file()]


def test_a_job_that_was_tried_before_goes_alone(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    stages: Callable[[], list[tuple[int, str]]],
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    jobs = [submit() for _ in range(2)]
    dead = ledger.jobs.claim("dead", 3600.0)
    assert dead is not None
    ledger.presume_dead("dead")
    fill(1)
    assert gate.begun[0].wait(WAIT_S)
    assert pipeline.work_one("w")
    assert _count(tmp_path, "job-claimed") == 1
    gate.open()
    fill(2)
    pipeline.drain()
    order = stages()
    assert order.index((jobs[0], "verify")) < order.index((jobs[1], "examine"))


def test_a_stat_job_passes_those_that_wait_for_the_network(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    stages: Callable[[], list[tuple[int, str]]],
    ledger: Ledger,
    wait_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pacs_bridge.pipeline._STAT_INTERVAL_S", 0.0)
    jobs = [submit() for _ in range(3)]
    fill(3)  # one is segmented, one decoded, and one fetched: there is no room
    assert gate.begun[0].wait(WAIT_S)
    wait_for(lambda: (jobs[1], "read") in stages())
    stat = submit(Priority.STAT)
    fill(4)
    wait_for(lambda: (stat, "read") in stages())
    assert [_state(ledger, job) for job in jobs] == [State.CLAIMED, State.READY, State.READY]
    assert [ledger.view.job(job).attempts for job in jobs] == [1, 0, 0]
    gate.open()
    fill(6)
    pipeline.drain()

    order = [job for job, stage in stages() if stage == "segment"]
    assert order == [jobs[0], stat, jobs[1], jobs[2]]
    assert [_state(ledger, job) for job in (*jobs, stat)] == [State.SENDING] * 4


def test_a_stat_job_passes_no_other_stat_job(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    stages: Callable[[], list[tuple[int, str]]],
    wait_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pacs_bridge.pipeline._STAT_INTERVAL_S", 0.0)
    jobs = [submit(Priority.STAT) for _ in range(4)]
    fill(3)
    assert gate.begun[0].wait(WAIT_S)
    wait_for(lambda: (jobs[1], "read") in stages())
    assert pipeline.work_one("w")
    gate.open()
    fill(4)
    pipeline.drain()

    assert [job for job, stage in stages() if stage == "segment"] == jobs


def test_a_lease_that_is_lost_concerns_one_job_of_those_in_hand(
    submit: Callable[..., int],
    pipeline: Pipeline,
    fill: Callable[[int], None],
    gate: Gate,
    ledger: Ledger,
    stages: Callable[[], list[tuple[int, str]]],
    wait_for: Callable[..., None],
) -> None:
    jobs = [submit() for _ in range(2)]
    fill(2)
    assert gate.begun[0].wait(WAIT_S)
    wait_for(lambda: (2, "read") in stages())
    with ledger.database.write() as connection:
        connection.execute("UPDATE jobs SET lease_until_s = 0 WHERE id = ?", (jobs[1],))
    taken = ledger.jobs.claim("other", 3600.0)
    assert taken is not None
    assert taken.job_id == jobs[1]
    gate.open()
    pipeline.drain()
    assert [_state(ledger, job) for job in jobs] == [State.SENDING, State.CLAIMED]


def test_a_job_that_goes_alone_lets_a_second_stack_of_another_pass() -> None:
    lanes = Lanes()
    first = lanes.begin(1.0)
    assert first is not None
    assert lanes.move(first, Lane.INFER)
    assert lanes.move(first, Lane.ENCODE)
    alone = lanes.begin(1.0)
    assert alone is not None
    alone.is_alone = True
    assert not lanes.move(alone, Lane.DECODE)
    assert lanes.move(first, Lane.DECODE)
    assert lanes.begin(0.0) is None
    first.end()
    assert lanes.move(alone, Lane.DECODE)
    assert lanes.begin(0.0) is None
    alone.end()
    assert lanes.begin(0.0) is not None


def test_nothing_passes_a_job_that_goes_alone_or_one_that_passes_already() -> None:
    lanes = Lanes()
    first = lanes.begin(1.0)
    assert first is not None
    express = lanes.begin_express()
    assert express is not None
    assert lanes.begin_express() is None
    express.is_urgent = True
    lanes.clear_way()
    assert (first.gives_way, express.gives_way) == (True, False)
    assert not lanes.move(first, Lane.INFER)
    first.end()
    assert lanes.begin(0.0) is None  # nobody gets in front of it
    assert lanes.move(express, Lane.INFER)
    alone = lanes.begin(1.0)
    assert alone is not None
    alone.is_alone = True
    assert lanes.begin_express() is None
