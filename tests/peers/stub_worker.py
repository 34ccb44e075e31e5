"""Workers without a model, which die whenever a test wants them to."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from queue_bench import result_of

from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.queue import JobClaim, LeaseLostError, Queue, State
from pacs_bridge.retry_policy import RetryPolicy

_FORK = multiprocessing.get_context("fork")  # a start costs milliseconds, and deaths are many
_AT_ONCE = RetryPolicy(first_wait_s=0.05, max_wait_s=0.05, give_up_after_s=1e9)

#: What becomes of a series: nine of ten give a result, the others are skipped or dead.
REASONS = (Reason.TOO_FEW_SLICES, Reason.LOCALIZER, Reason.CORRUPT_PIXEL_DATA)


def destiny(series: str) -> tuple[State, Reason | None]:
    """How the job of a series ends, whoever does it."""
    number = int.from_bytes(hashlib.sha256(series.encode()).digest()[:4], "big")
    if number % 10:
        return State.SENDING, None
    reason = REASONS[number // 10 % 3]
    return (State.DEAD if reason is Reason.CORRUPT_PIXEL_DATA else State.SKIPPED), reason


def report(queue: Queue, claim: JobClaim) -> bool:
    """Say how a job ended, or that it failed in passing, as one of 20 does first: then False."""
    state, reason = destiny(claim.request.series_instance_uid)
    if claim.attempt == 1 and claim.job_id % 20 == 0:
        queue.retry(claim, Reason.SOURCE_UNREACHABLE, "", _AT_ONCE)
        return False
    if reason is None:
        queue.advance(claim, State.SEGMENTED)
        queue.complete(claim, [result_of()], [])
    elif state is State.DEAD:
        queue.park(claim, reason, "")
    else:
        queue.skip(claim, reason, "")
    return True


def work_off(open_queue: Callable[[], Queue], log: Path, lease_s: float, work_s: float) -> None:
    """Work until killed; each job whose end was accepted is a line of ``log``."""
    queue = open_queue()
    with log.open("a", buffering=1) as lines:
        while True:
            with suppress(TransientError, LeaseLostError):
                claim = queue.claim(f"stub:{os.getpid()}", lease_s)
                if claim is None:
                    time.sleep(0.02)
                    continue
                time.sleep(random.uniform(0, 2 * work_s))
                if report(queue, claim):
                    lines.write(f"{claim.job_id}\n")


class Stubs:
    """Several such workers, each of them started again after its death.

    Parameters
    ----------
    open_queue
        Opens the queue in a worker's process.
    folder
        For their logs.
    number
        How many workers.
    lease_s, work_s
        Length of a lease, and of the work on one job.
    """

    def __init__(
        self,
        open_queue: Callable[[], Queue],
        folder: Path,
        number: int,
        lease_s: float,
        work_s: float,
    ) -> None:
        self._arguments = (open_queue, folder / "accepted", lease_s, work_s)
        self._processes = [self._start() for _ in range(number)]
        self.kills = 0

    def kill_one(self, rng: random.Random) -> None:
        """SIGKILL one of them, and start another."""
        number = rng.randrange(len(self._processes))
        self._end(self._processes[number])
        self._processes[number] = self._start()
        self.kills += 1

    def end(self) -> None:
        """SIGKILL them all."""
        for process in self._processes:
            self._end(process)

    def accepted_twice(self) -> list[str]:
        """Jobs of which two ends were accepted."""
        log = self._arguments[1]
        lines = Counter(log.read_text().splitlines()) if log.exists() else Counter()
        return [line for line, count in lines.items() if count > 1]

    def _start(self) -> multiprocessing.process.BaseProcess:
        process = _FORK.Process(target=work_off, args=self._arguments, daemon=True)
        process.start()
        return process

    def _end(self, process: multiprocessing.process.BaseProcess) -> None:
        if process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        process.close()
