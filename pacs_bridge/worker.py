"""The worker: claims a job, processes its series, and says what became of it.

This is the only place that turns errors into job states. What is not foreseen here is a fault
of this software: the process dies, its lease runs out, and another worker gets the job.

What the job itself may have caused counts against it: memory, the model, the death of its
worker. What is the machine's fault, such as a full disk or a share that is away, does not: such
a job waits and is tried again for days.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from dicom_seg.errors import SegmentationError
from dicom_seg.provenance import SourceInstance
from dicom_seg.segmentation import Predecessor, SegKind
from inference.errors import InferenceError, ModelError
from inference.reasons import Reason
from inference.segmenter import Segmenter
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.lease import KeptLease
from pacs_bridge.ledger.instances import InstanceBook
from pacs_bridge.log import Log
from pacs_bridge.models import WarmSegmenters
from pacs_bridge.process import ProcessOptions, SeriesSource, process_series
from pacs_bridge.queue import JobClaim, JobRequest, LeaseLostError, Queue, ResultFile, State
from pacs_bridge.report import LeftOutInstance, SeriesReport
from pacs_bridge.stopwatch import Stage

#: Memory may be free and the device in order at the next attempt; or it is this job each time.
_COUNTED = (Reason.OOM_CPU, Reason.OOM_GPU, Reason.MODEL_ERROR)
_HEARTBEATS_A_LEASE = 4
EX_SOFTWARE = 70  #: sysexits.h


class BrokenDeviceError(Exception):
    """The device computes no more in this process; a new one may use it."""


class _LeavingError(Exception):
    """The worker was told to stop in the middle of a job."""


class Worker:
    """Works off jobs, one after the other.

    Parameters
    ----------
    config
        The whole configuration.
    queue
        Gives the jobs and takes their outcome.
    instances
        Knows the files of a series.
    segmenters
        Models, kept warm between jobs.
    log
        Told each job's beginning and end.
    leave
        Set when the worker is to stop: the job in hand is given back.
    """

    def __init__(
        self,
        config: BridgeConfig,
        queue: Queue,
        instances: InstanceBook,
        segmenters: WarmSegmenters,
        log: Log,
        leave: threading.Event,
    ) -> None:
        self._config = config
        self._queue = queue
        self._instances = instances
        self._segmenters = segmenters
        self._log = log
        self._leave = leave

    def work_one(self, name: str) -> bool:
        """Claim the most urgent job and work it off; False if there is none.

        Raises
        ------
        BrokenDeviceError
            If the job, which is given back, left the device unfit for any other.
        """
        lease_s = self._config.workers.lease_s
        claim = self._queue.claim(name, lease_s)
        if claim is None:
            return False
        job = _Job(self._config, claim, self._queue)
        self._log.info(
            "job-claimed",
            job=claim.job_id,
            series=claim.request.series_instance_uid,
            revision=claim.request.revision,
            attempt=claim.attempt,
        )
        lease = KeptLease(
            lambda: self._queue.heartbeat(claim, lease_s), lease_s / _HEARTBEATS_A_LEASE
        )
        with lease, job.time_limit(self._log):
            try:
                self._settle(job, lease)
            except LeaseLostError:
                job.discard()
                self._log.warning("job-lost", job=claim.job_id)
            except _LeavingError:
                job.discard()
                self._queue.release(claim)
                self._log.info("job-released", job=claim.job_id)
        return True

    def _settle(self, job: _Job, lease: KeptLease) -> None:
        """From a claimed job to its next state."""
        claim = job.claim
        try:  # the only place that turns errors into job states
            report = self._process(job, lease)
            if report.ending.has_result:
                job.make_durable()
        except TransientError as error:
            self._retry(job, error.reason, error.detail)
        except OSError as error:
            name = Path(str(error.filename or "")).name
            self._retry(job, disk_reason(error), f"{name}: {error.strerror}")
        except (PermanentError, InferenceError, SegmentationError) as error:
            if error.reason not in _COUNTED:
                self._park(job, error.reason, error.detail)
                return
            self._retry(job, error.reason, error.detail, self._config.workers.max_attempts)
            if not self._segmenters.device_computes():
                raise BrokenDeviceError(error.detail) from error
        else:
            ending = report.ending
            reason = ending.reason or Reason.INTERNAL_ERROR
            if ending.has_result:
                results = job.results(report)
                findings = [each for stack in report.stacks for each in stack.findings]
                self._queue.complete(claim, results, tuple(dict.fromkeys(findings)))
                job.discard_others()
                self._log.info("job-complete", job=claim.job_id, results=len(results))
            elif ending.outcome == "skip":
                self._queue.skip(claim, reason, ending.detail)
                self._log.info("job-skipped", job=claim.job_id, reason=reason)
            else:
                self._park(job, reason, ending.detail)

    def _process(self, job: _Job, lease: KeptLease) -> SeriesReport:
        segmenter = self._segmenter(job.claim.request)

        def watch(stage: Stage, fraction: float) -> None:
            if lease.is_lost:
                raise LeaseLostError(f"job {job.claim.job_id}")
            if self._leave.is_set():
                raise _LeavingError
            if stage is Stage.CHECK and fraction <= 0:
                self._queue.advance(job.claim, State.SEGMENTED)

        report = process_series(
            job.source(self._instances), segmenter, job.options(), job.folder, watch
        )
        if report.ending.has_result:
            self._queue.advance(job.claim, State.ENCODED)
        return report

    def _segmenter(self, request: JobRequest) -> Segmenter:
        """The model of a job, which was whole when this process started."""
        route = self._config.route(request.route)
        try:
            return self._segmenters.get(request.model, route.postprocessing if route else None)
        except ModelError as error:
            if error.reason in _COUNTED:
                raise
            raise TransientError(error.reason, error.detail) from error  # its folder is away

    def _retry(
        self, job: _Job, reason: Reason, detail: str, max_attempts: int | None = None
    ) -> None:
        """Wait and try again; with ``max_attempts`` the failure counts against the job."""
        job.discard()
        policy = self._config.workers.retry.policy(max_attempts)
        state = self._queue.retry(job.claim, reason, detail, policy)
        self._log.warning(
            "job-failed", job=job.claim.job_id, state=state, reason=reason, detail=detail
        )

    def _park(self, job: _Job, reason: Reason, detail: str) -> None:
        self._queue.park(job.claim, reason, detail)
        self._log.error("job-dead", job=job.claim.job_id, reason=reason, detail=detail)


class _Job:
    """One claim: what goes in, where results go, and its time limit."""

    def __init__(self, config: BridgeConfig, claim: JobClaim, queue: Queue) -> None:
        self.claim = claim
        self._config = config
        self._queue = queue
        # one folder a claim: a worker that was presumed dead writes into its own
        self.folder = config.results_folder / f"{claim.job_id:08d}" / f"{claim.fence:04d}"

    def source(self, instances: InstanceBook) -> SeriesSource:
        """The files of the series, and everything of it that is not among them."""
        request = self.claim.request
        spooled = instances.sources(request.series_instance_uid, request.revision)
        lost = [each.sop_instance_uid for each in spooled if each.problem()]
        if lost or not spooled:
            raise PermanentError(
                Reason.SOURCE_MISSING,
                f"{len(lost)} of {len(spooled)} files are gone or changed: {lost[:3]}",
            )
        return SeriesSource(
            paths=tuple(each.path for each in spooled),
            created=self.claim.created,
            root=self._config.data_folder,
            revision=request.revision,
            predecessors={
                (earlier.stack, SegKind(earlier.kind)): Predecessor(
                    earlier.sop_class_uid, earlier.sop_instance_uid, earlier.series_instance_uid
                )
                for earlier in self.claim.predecessors
            },
            digests=tuple(SourceInstance(each.sop_instance_uid, each.digest) for each in spooled),
            set_aside=tuple(
                LeftOutInstance(
                    file=each.path.name,
                    sop_instance_uid=each.sop_instance_uid,
                    frame_number=None,
                    reason=each.reason,
                    detail="in quarantine",
                )
                for each in instances.set_aside(request.series_instance_uid)
            ),
        )

    def options(self) -> ProcessOptions:
        """Every kind that some destination may be given; the sender then only sends files."""
        wanted = {
            SegKind(kind)
            for name in self.claim.request.destinations
            if (destination := self._config.destination(name)) is not None
            for kind in destination.kinds
        }
        texts = self._config.results
        return ProcessOptions(
            kinds=tuple(kind for kind in SegKind if kind in wanted or not wanted),
            rules=self._config.series.rules(),
            series_description=texts.series_description,
            content_description=texts.content_description,
        )

    def results(self, report: SeriesReport) -> tuple[ResultFile, ...]:
        """What the report lists, with paths as the ledger keeps them."""
        folder = self.folder.relative_to(self._config.data_folder)
        return tuple(
            ResultFile(
                stack=number,
                kind=output.kind,
                path=(folder / output.file).as_posix(),
                sop_class_uid=output.sop_class_uid,
                sop_instance_uid=output.sop_instance_uid,
                series_instance_uid=output.series_instance_uid,
                transfer_syntax_uid=output.transfer_syntax_uid,
                sha256=output.sha256,
                size_bytes=output.size_bytes,
            )
            for number, stack in enumerate(report.stacks)
            for output in stack.outputs
        )

    def make_durable(self) -> None:
        """Bring files and names to the disk before the ledger says that they are there."""
        for path in (*self.folder.iterdir(), self.folder, *self.folder.parents[:3]):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def discard(self) -> None:
        """Delete what was written so far; nobody else writes here."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def discard_others(self) -> None:
        """Delete what earlier claims left behind when their worker died."""
        for folder in self.folder.parent.iterdir():
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)

    def time_limit(self, log: Log) -> _TimeLimit:
        """Ends job and process when the job takes too long; for a ``with`` statement."""
        limit_s = self._config.workers.job_timeout_s

        def note() -> None:
            try:
                self._queue.park(self.claim, Reason.TIMEOUT, f"longer than {limit_s:g} s")
                log.error("job-dead", job=self.claim.job_id, reason=Reason.TIMEOUT)
            except LeaseLostError:
                log.warning("job-lost", job=self.claim.job_id)

        return _TimeLimit(limit_s, note)


class _TimeLimit:
    """Ends the process, having called ``note``, unless the body is done in time."""

    def __init__(self, limit_s: float, note: Callable[[], None]) -> None:
        self._note = note
        self._is_done = threading.Event()
        self._timer = threading.Timer(limit_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._timer.cancel()

    def _end(self) -> None:
        try:
            self._note()
        finally:  # whatever hangs is native code that nothing else can stop
            if not self._is_done.is_set():
                os._exit(EX_SOFTWARE)
