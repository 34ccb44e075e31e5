"""The worker: claims a job, processes its series, and says what became of it.

This is the only place that turns errors into job states. What is not foreseen here is a fault
of this software: the process dies, its lease runs out, and another worker gets the job.

What the job itself may have caused counts against it: memory, the model, the death of its
worker. What is the machine's fault, such as a full disk or a share that is away, does not: such
a job waits and is tried again for days. Where a trial shows that the machine would fail any job,
the job is given back at once, and the machine claims nothing until it is fit (see ``Fitness``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_seg.errors import SegmentationError
from inference.errors import InferenceError, ModelError
from inference.reasons import Reason
from inference.segmenter import Segmenter
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.routes import RouteConfig
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.fitness import Fitness
from pacs_bridge.job_source import JobSources
from pacs_bridge.job_turn import OwnTurn, Turn
from pacs_bridge.late_segmenter import COUNTED, LateSegmenter
from pacs_bridge.lease import KeptLease
from pacs_bridge.log import Log
from pacs_bridge.memory_ledger import MemoryLedger, MemoryShare
from pacs_bridge.models import WarmSegmenters
from pacs_bridge.process import process_series
from pacs_bridge.queue import (
    JobClaim,
    LeaseLostError,
    OutcomeInDoubtError,
    Priority,
    Queue,
    State,
)
from pacs_bridge.report import SeriesReport
from pacs_bridge.reporter import Reporter
from pacs_bridge.series_faults import counted_tries
from pacs_bridge.stopwatch import Stage
from pacs_bridge.time_limit import TimeLimit
from pacs_bridge.trial import Trials, beside_jobs, try_segmenter
from pacs_bridge.worker_job import ClaimedJob

_HEARTBEATS_A_LEASE = 4


class BrokenDeviceError(Exception):
    """The device computes no more in this process; a new one may use it."""


class _LeavingError(Exception):
    """The job is to be given back in the middle of it."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """What may pass."""

    reason: Reason
    detail: str
    max_attempts: int | None = None  #: if it counts against the job
    wait_s: float = 0.0  #: that was asked for


class Worker:
    """Works off jobs; any number of threads may do so at once, each with a job of its own.

    Parameters
    ----------
    config
        The whole configuration.
    queue
        Gives the jobs and takes their outcome.
    sources
        Gets the files of a job.
    segmenters
        Models, kept warm between jobs.
    log
        Told each job's beginning and end.
    leave
        Set when the worker is to stop: what is in hand is given back.
    """

    def __init__(
        self,
        config: BridgeConfig,
        queue: Queue,
        sources: JobSources,
        segmenters: WarmSegmenters,
        log: Log,
        leave: threading.Event,
    ) -> None:
        self._config = config
        self._queue = queue
        self._sources = sources
        self._segmenters = segmenters
        self._log = log
        self._leave = leave
        self._abandoned = threading.Event()
        self._reporter = Reporter(log, leave, self._abandoned)
        self._is_device_broken = False
        self._in_hand: dict[int, JobClaim] = {}
        self._fitness = Fitness(log)
        self._trials = Trials(config.scratch_folder)
        self._memory = MemoryLedger()

    def work_one(self, name: str) -> bool:
        """Claim the most urgent job and work it off; False if there is none. Raises as ``work``."""
        claim = self.claim(name)
        if claim is None:
            return False
        self.work(claim, OwnTurn())
        return True

    def claim(self, name: str, least: Priority = Priority.ARCHIVE) -> JobClaim | None:
        """Claim the most urgent job; None if there is none, or no more is to be begun.

        Raises
        ------
        BrokenDeviceError
            If a trial finds that the device computes no more.
        """
        if self._abandoned.is_set():
            return None
        if not self._fitness.may_claim(is_idle=not self._in_hand):
            if self._is_device_broken:
                raise BrokenDeviceError("seen by a trial")
            return None
        claim = self._queue.claim(name, self._config.workers.lease_s, least)
        if claim is not None:
            self._log.info(
                "job-claimed",
                job=claim.job_id,
                series=claim.request.series_instance_uid,
                revision=claim.request.revision,
                attempt=claim.attempt,
            )
        return claim

    def begin_with_trial(self, route: RouteConfig) -> None:
        """Claim nothing before the model of a route has segmented something on this device.

        A card may add numbers well and still fail every network, or hang in it.
        """
        memory = MemoryShare(self._memory)
        segmenter = self._late_segmenter(route.model, route.name, memory)
        self._fitness.doubt(beside_jobs(lambda: try_segmenter(segmenter), memory))

    def abandon(self) -> None:
        """Have every job that is in hand given back: this process is about to end."""
        self._abandoned.set()

    def work(self, claim: JobClaim, turn: Turn) -> None:
        """Work off a job that was claimed just now.

        Raises
        ------
        BrokenDeviceError
            If the device became unfit for any other job meanwhile, however this one ended.
        """
        job = ClaimedJob(self._config, claim)
        lease_s = self._config.workers.lease_s
        lease = KeptLease(
            lambda: self._queue.heartbeat(claim, lease_s), lease_s / _HEARTBEATS_A_LEASE
        )
        limit = TimeLimit(self._config.workers.job_timeout_s, lambda: self._time_is_up(claim))
        self._in_hand[claim.job_id] = claim
        with lease, limit:
            try:
                self._settle(job, lease, limit, turn)
            except OutcomeInDoubtError:  # the results may be on their way
                self._log.warning("job-in-doubt", job=claim.job_id)
            except LeaseLostError:
                job.discard()
                self._log.warning("job-lost", job=claim.job_id)
            except _LeavingError:
                job.discard()
                if turn.gives_way:
                    self._release(claim)  # what passes it waits for no queue
                else:
                    self._give_back(claim)
            except TransientError as error:  # the ledger, and no time to wait for it
                self._log.warning("queue-unavailable", reason=error.reason, detail=error.detail)
            finally:
                job.discard_scratch()
                self._in_hand.pop(claim.job_id, None)
        if self._is_device_broken:
            raise BrokenDeviceError(f"seen by the end of job {claim.job_id}")

    def _settle(self, job: ClaimedJob, lease: KeptLease, limit: TimeLimit, turn: Turn) -> None:
        """From a claimed job to its next state."""
        try:  # the only place that turns errors into job states
            report = self._process(job, lease, limit, turn)
            if report.ending.has_result:
                job.make_durable()
        except TransientError as error:
            tries = counted_tries(error.reason, self._config.workers.max_attempts)
            failure = _Failure(error.reason, error.detail, tries, error.wait_s)
        except OSError as error:
            failure = _Failure(disk_reason(error), self._told(error))
        except (PermanentError, InferenceError, SegmentationError) as error:
            if error.reason not in COUNTED:
                with limit.paused():
                    self._park(job, error.reason, error.detail)
                return
            failure = _Failure(error.reason, error.detail, self._config.workers.max_attempts)
        else:
            with limit.paused():  # what is done waits for the queue as long as it has to
                self._conclude(job, report)
            return
        # not before the error is gone, and with it what its frames hold of memory and card
        with limit.paused():  # a trial has a limit of its own

            def at_device() -> None:
                turn.enter(Stage.SEGMENT, lambda: self._check(job.claim, lease, turn))

            self._retry(job, failure, at_device)

    def _check(self, claim: JobClaim, lease: KeptLease, turn: Turn) -> None:
        """Raise what ends the job in the middle of it, if anything does."""
        if lease.is_lost:
            raise LeaseLostError(f"job {claim.job_id}")
        if self._leave.is_set() or self._abandoned.is_set() or turn.gives_way:
            raise _LeavingError

    def _process(
        self, job: ClaimedJob, lease: KeptLease, limit: TimeLimit, turn: Turn
    ) -> SeriesReport:
        def check() -> None:
            self._check(job.claim, lease, turn)

        def enter(stage: Stage) -> None:
            with limit.paused():
                turn.enter(stage, check)

        def watch(stage: Stage, fraction: float) -> None:
            check()
            if fraction > 0:
                return
            enter(stage)
            check()
            self._log.debug("job-stage", job=job.claim.job_id, stage=stage)
            if stage is Stage.CHECK:
                note(State.SEGMENTED)

        def note(state: State) -> None:
            with limit.paused():
                self._reporter.tell(lambda: self._queue.advance(job.claim, state))

        def wait(is_let_in: Callable[[], bool]) -> None:
            with limit.paused():
                while not is_let_in():
                    check()

        def segmenter() -> Segmenter:
            self._look_at_device()  # the job is not to blame for what was broken before it
            check()
            return self._segmenter(job.claim.request.model, job.claim.request.route)

        memory = MemoryShare(self._memory, wait)
        enter(Stage.FETCH)
        begun_s = time.monotonic()
        source = self._sources.fetch(job.claim, job.scratch, check)
        report = process_series(
            replace(source, fetch_s=time.monotonic() - begun_s),
            LateSegmenter(segmenter, self._look_at_device, memory),
            job.options(),
            job.folder,
            watch,
            memory,
        )
        if report.ending.has_result:
            note(State.ENCODED)
        return report

    def _conclude(self, job: ClaimedJob, report: SeriesReport) -> None:
        """What was processed, with or without a result."""
        claim, ending = job.claim, report.ending
        reason = ending.reason or Reason.INTERNAL_ERROR
        if ending.has_result:
            results = job.results(report)
            findings = tuple(dict.fromkeys(f for stack in report.stacks for f in stack.findings))
            self._reporter.tell(lambda: self._queue.complete(claim, results, findings))
            job.discard_others()
            self._fitness.note_result()
            self._log.info("job-complete", job=claim.job_id, results=len(results))
        elif ending.outcome == "skip":
            self._reporter.tell(lambda: self._queue.skip(claim, reason, ending.detail))
            self._log.info("job-skipped", job=claim.job_id, reason=reason)
        else:
            self._park(job, reason, ending.detail)

    def _late_segmenter(self, model: str, route_name: str, memory: MemoryShare) -> LateSegmenter:
        return LateSegmenter(
            lambda: self._segmenter(model, route_name), self._look_at_device, memory
        )

    def _segmenter(self, model: str, route_name: str) -> Segmenter:
        """The model of a job, which was whole when this process started."""
        route = self._config.route(route_name)
        try:
            if route is None:
                return self._segmenters.get(model)
            return self._segmenters.get(model, route.postprocessing, route.structures)
        except ModelError as error:
            if error.reason in COUNTED:
                raise
            raise TransientError(error.reason, error.detail) from error  # its folder is away

    def _look_at_device(self) -> None:
        """Before a job uses the device, and after a failure that it may be to blame for."""
        if not self._segmenters.device_computes():
            self._is_device_broken = True
            self.abandon()

    def _retry(self, job: ClaimedJob, failure: _Failure, at_device: Callable[[], None]) -> None:
        """Wait and try again, here or where the machine is fit."""
        reason, detail = failure.reason, failure.detail
        job.discard()
        if self._is_machine_to_blame(job.claim, reason, at_device):
            self._give_back(job.claim)
            return
        policy = self._config.workers.retry.policy(failure.max_attempts)
        policy = replace(policy, least_wait_s=failure.wait_s)
        state = self._reporter.tell(lambda: self._queue.retry(job.claim, reason, detail, policy))
        self._log.warning(
            "job-failed", job=job.claim.job_id, state=state, reason=reason, detail=detail
        )

    def _told(self, error: OSError) -> str:
        """What the system said; of files that are none of ours the names may tell of patients."""
        path, said = Path(str(error.filename or "")), error.strerror or type(error).__name__
        is_own = path.is_relative_to(self._config.data_folder)
        return f"{path.name}: {said}" if is_own else said

    def _is_machine_to_blame(
        self, claim: JobClaim, reason: Reason, at_device: Callable[[], None]
    ) -> bool:
        routes = {claim.request.model: claim.request.route}
        for each in self._config.routes:
            routes.setdefault(each.model, each.name)
        memory = MemoryShare(self._memory)
        segmenters = [self._late_segmenter(*each, memory) for each in routes.items()]
        trial = self._trials.after(reason, segmenters)
        if trial is None or self._is_device_broken:  # the job may be what broke it
            return False
        if self._trials.is_of_device(reason):
            at_device()  # it is not beside the work of another, and loads no second model
        trial = beside_jobs(trial, memory)
        return self._fitness.is_to_blame(claim.job_id, reason, trial) and not self._is_device_broken

    def _park(self, job: ClaimedJob, reason: Reason, detail: str) -> None:
        self._reporter.tell(lambda: self._queue.park(job.claim, reason, detail))
        self._log.error("job-dead", job=job.claim.job_id, reason=reason, detail=detail)

    def _time_is_up(self, claim: JobClaim) -> None:
        """End a job before its process ends, and give back those that are not to blame."""
        limit_s = self._config.workers.job_timeout_s
        others = [each for each in tuple(self._in_hand.values()) if each is not claim]
        try:
            self._queue.park(claim, Reason.TIMEOUT, f"longer than {limit_s:g} s")
            self._log.error("job-dead", job=claim.job_id, reason=Reason.TIMEOUT)
        except LeaseLostError:
            self._log.warning("job-lost", job=claim.job_id)
        finally:
            for each in others:
                self._release(each)

    def _give_back(self, claim: JobClaim) -> None:
        """Give a job back; while that cannot be noted, again: a lease that runs out is a death."""
        self._release(claim, self._reporter.tell)

    def _release(
        self,
        claim: JobClaim,
        tell: Callable[[Callable[[], None]], None] = lambda release: release(),
    ) -> None:
        """Give a job back; where that cannot be noted its lease runs out."""
        with suppress(LeaseLostError, TransientError):
            tell(lambda: self._queue.release(claim))
            self._log.info("job-released", job=claim.job_id)
