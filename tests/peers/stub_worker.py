"""Workers without a model, which die whenever a test wants them to."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from queue_bench import result_of

from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.queue import JobClaim, LeaseLostError, Queue, ResultFile, State
from pacs_bridge.retry_policy import RetryPolicy
from pacs_bridge.worker_job import folder_of

FORK = multiprocessing.get_context("fork")  # a start costs milliseconds, and deaths are many
_AT_ONCE = RetryPolicy(first_wait_s=0.05, max_wait_s=0.05, give_up_after_s=1e9)

#: What becomes of a series: nine of ten give a result, the others are skipped or dead.
REASONS = (Reason.TOO_FEW_SLICES, Reason.LOCALIZER, Reason.CORRUPT_PIXEL_DATA)


@dataclass(frozen=True, slots=True)
class StubWork:
    """What the workers do with a job."""

    lease_s: float
    seconds: float  #: of work on a job
    is_even: bool = False  #: each job the same; else up to twice as long, and some fail at first
    result: ResultFile = field(default_factory=result_of)
    data_folder: Path | None = None  #: where a copy of that result is put for each job

    def result_of(self, claim: JobClaim) -> ResultFile:
        """What is reported for a job: the one result that all share, in the folder of the lease."""
        if self.data_folder is None:
            return self.result
        path = "results" / folder_of(claim.job_id, claim.fence) / "shared.dcm"
        (self.data_folder / path).parent.mkdir(parents=True)
        shutil.copyfile(self.data_folder / self.result.path, self.data_folder / path)
        return replace(self.result, path=path.as_posix())


def destiny(series: str) -> tuple[State, Reason | None]:
    """How the job of a series ends, whoever does it."""
    number = int.from_bytes(hashlib.sha256(series.encode()).digest()[:4], "big")
    if number % 10:
        return State.SENDING, None
    reason = REASONS[number // 10 % 3]
    return (State.DEAD if reason is Reason.CORRUPT_PIXEL_DATA else State.SKIPPED), reason


def report(queue: Queue, claim: JobClaim, work: StubWork) -> bool:
    """Say how a job ended, or that it failed in passing, as one of 20 does first: then False."""
    state, reason = destiny(claim.request.series_instance_uid)
    if claim.attempt == 1 and claim.job_id % 20 == 0 and not work.is_even:
        queue.retry(claim, Reason.SOURCE_UNREACHABLE, "", _AT_ONCE)
        return False
    if reason is None:
        queue.advance(claim, State.SEGMENTED)
        queue.complete(claim, [work.result_of(claim)], [])
    elif state is State.DEAD:
        queue.park(claim, reason, "")
    else:
        queue.skip(claim, reason, "")
    return True


def work_off(open_queue: Callable[[], Queue], log: Path, work: StubWork) -> None:
    """Work until killed; claims and accepted ends are lines of ``log``, with their times."""
    queue = open_queue()
    with log.open("a", buffering=1) as lines:
        while True:
            with suppress(TransientError, LeaseLostError):
                asked_s = time.monotonic()
                claim = queue.claim(f"stub:{os.getpid()}", work.lease_s)
                if claim is None:
                    time.sleep(0.02)
                    continue
                series = claim.request.series_instance_uid
                lines.write(f"claimed {claim.job_id} {series} {asked_s} {time.monotonic()}\n")
                time.sleep(work.seconds * (1 if work.is_even else random.uniform(0, 2)))
                asked_s = time.monotonic()
                if report(queue, claim, work):
                    lines.write(f"ended {claim.job_id} {series} {asked_s} {time.monotonic()}\n")


@dataclass(frozen=True, slots=True)
class StubEvent:
    """One line of the workers' log."""

    what: str  #: ``claimed`` or ``ended``
    job_id: int
    series: str
    asked_s: float  #: ``time.monotonic``, before the queue was asked or told
    at_s: float  #: the same, when it had answered


class Stubs:
    """Several such workers, each of them started again after its death.

    Parameters
    ----------
    open_queue
        Opens the queue in a worker's process.
    folder
        For their log.
    number
        How many workers.
    work
        What they do.
    """

    def __init__(
        self, open_queue: Callable[[], Queue], folder: Path, number: int, work: StubWork
    ) -> None:
        self._log = folder / "stubs.log"
        self._arguments = (open_queue, self._log, work)
        self._processes = [self._start() for _ in range(number)]
        self.kills = 0

    def kill_one(self, rng: random.Random) -> None:
        """SIGKILL one of them, and start another."""
        number = rng.randrange(len(self._processes))
        end_process(self._processes[number])
        self._processes[number] = self._start()
        self.kills += 1

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send one of them a signal."""
        os.kill(self._processes[number].pid or 0, what)

    def end(self) -> None:
        """SIGKILL them all."""
        for process in self._processes:
            end_process(process)

    def events(self) -> list[StubEvent]:
        """What they did, roughly in order; the last line of one that was killed may be torn."""
        events = []
        for line in self._log.read_text().splitlines() if self._log.exists() else []:
            parts = line.split()
            if len(parts) == 5 and parts[0] in ("claimed", "ended"):
                asked_s, at_s = float(parts[3]), float(parts[4])
                events.append(StubEvent(parts[0], int(parts[1]), parts[2], asked_s, at_s))
        return events

    def ended_twice(self) -> list[int]:
        """Jobs of which two ends were accepted."""
        ends = Counter(each.job_id for each in self.events() if each.what == "ended")
        return [job_id for job_id, number in ends.items() if number > 1]

    def _start(self) -> multiprocessing.process.BaseProcess:
        process = FORK.Process(target=work_off, args=self._arguments, daemon=True)
        process.start()
        return process


def end_process(process: multiprocessing.process.BaseProcess) -> None:
    """SIGKILL a process that was started here, and bury it."""
    if process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    process.close()
