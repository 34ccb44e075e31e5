"""Several jobs at once in one worker, each in another stage.

::

    fetch   | 1 | 2 | 3     | 4     | 5
    decode      | 1 | 2     | 3     | 4
    infer           | 1     | 2     | 3
    encode                  | 1 |   | 2 |

Every job goes through the same ``process_series`` as without overlap, in a thread of its own.
Lanes let one job at a time into each stage, and a job keeps its lane until it is let into the
next: one series at most is fetched and one decoded ahead. Where memory is short for that, it is
decoded when the one before it is segmented (``memory_ledger``).
A job that was tried before goes alone, so that one that kills its worker takes others down with
it only once. A STAT job is claimed though the lanes are full; those that wait for the network
before it are given back, and it is the next that is segmented.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import IntEnum

from pacs_bridge.queue import JobClaim, Priority
from pacs_bridge.stopwatch import Stage
from pacs_bridge.worker import Worker

_LOOK_INTERVAL_S = 0.5
_STAT_INTERVAL_S = 2.0  #: between two looks for a STAT job where there is no room


class Lane(IntEnum):
    """What one job at a time does; in the order in which a job passes through."""

    FETCH = 0
    DECODE = 1
    INFER = 2
    ENCODE = 3


_LANE_OF_STAGE = {
    Stage.FETCH: Lane.FETCH,
    Stage.EXAMINE: Lane.DECODE,
    Stage.READ: Lane.DECODE,
    Stage.SEGMENT: Lane.INFER,
    Stage.CHECK: Lane.ENCODE,
    Stage.ENCODE: Lane.ENCODE,
    Stage.VERIFY: Lane.ENCODE,
}


class Lanes:
    """Who is in which lane."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders: dict[Lane, LaneTurn] = {}
        self._turns: list[LaneTurn] = []

    def begin(self, timeout_s: float) -> LaneTurn | None:
        """A turn that has the first lane, as soon as there is room; None if there is none."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not self._has_room():
                if not self._changed.wait(deadline_s - time.monotonic()):
                    return None
            turn = LaneTurn(self)
            self._turns.append(turn)
            self._holders[Lane.FETCH] = turn
            return turn

    def begin_express(self) -> LaneTurn | None:
        """A turn beside those that fill the lanes, if some of them could give way to it."""
        with self._changed:
            if any(turn.is_alone or turn.is_express for turn in self._turns):
                return None
            if all(turn.is_urgent or turn.has_begun for turn in self._turns):
                return None
            turn = LaneTurn(self, is_express=True)
            self._turns.append(turn)
            return turn

    def clear_way(self) -> None:
        """Have those that are less urgent, and have not come to the network yet, give way."""
        with self._changed:
            for turn in self._turns:
                turn.gives_way = not (turn.is_urgent or turn.has_begun)
            self._changed.notify_all()

    def move(self, turn: LaneTurn, lane: Lane) -> bool:
        """Let a turn into a lane and out of its own; False if it is not free for now."""
        with self._changed:
            if turn.gives_way:
                return False
            held = self._lane_of(turn)
            must_wait = turn.is_alone and len(self._turns) > 1
            if held is not None and (must_wait or lane < held):
                self._free(held)  # others must pass, who may have a further stack to decode
                held = None
            if must_wait or self._holders.get(lane, turn) is not turn:
                self._changed.wait(_LOOK_INTERVAL_S)
                return False
            self._holders[lane] = turn
            if held is not None and held is not lane:
                self._free(held)
            if lane is Lane.INFER:
                turn.has_begun, turn.is_express = True, False
            return True

    def end(self, turn: LaneTurn) -> None:
        """Out of every lane, for good."""
        with self._changed:
            held = self._lane_of(turn)
            if held is not None:
                del self._holders[held]
            self._turns.remove(turn)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return (
            Lane.FETCH not in self._holders
            and len(self._turns) < len(Lane)
            and not any(turn.is_alone or turn.is_express for turn in self._turns)
        )

    def _lane_of(self, turn: LaneTurn) -> Lane | None:
        return next((lane for lane, holder in self._holders.items() if holder is turn), None)

    def _free(self, lane: Lane) -> None:
        del self._holders[lane]
        self._changed.notify_all()


class LaneTurn:
    """One job on its way through the lanes; a ``Turn`` of the worker.

    Parameters
    ----------
    lanes
        Those that it shares with others.
    is_express
        Whether others give way to it, until it has come to the network.
    """

    def __init__(self, lanes: Lanes, is_express: bool = False) -> None:
        self._lanes = lanes
        self.is_express = is_express
        self.is_alone = False  #: whether nobody else may be on the way
        self.is_urgent = False  #: whether it gives way to nobody
        self.has_begun = False  #: whether it has come to the network
        self.gives_way = False  #: see ``Turn.gives_way``

    def enter(self, stage: Stage, check: Callable[[], None]) -> None:
        """Wait until the lane of a stage is free; ``check`` may raise to end the wait."""
        while not self._lanes.move(self, _LANE_OF_STAGE[stage]):
            check()

    def end(self) -> None:
        """Leave; once."""
        self._lanes.end(self)


class Pipeline:
    """Works off the jobs of a worker with overlap. For one thread.

    Parameters
    ----------
    worker
        Claims jobs and works each of them off.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._lanes = Lanes()
        self._threads: list[threading.Thread] = []
        self._looked_s = float("-inf")
        self._faults: list[BaseException] = []

    @property
    def is_busy(self) -> bool:
        """Whether a job that it has begun is not over."""
        return any(thread.is_alive() for thread in self._threads)

    def work_one(self, name: str) -> bool:
        """Claim the most urgent job if there is room for it; False if there is no job.

        Raises
        ------
        BaseException
            What a job's thread died of, when the others have given their jobs back.
        """
        if self._faults:
            self.drain()
            raise self._faults[0]
        turn = self._lanes.begin(_LOOK_INTERVAL_S)
        if turn is None:
            self._let_pass(name)
            return True
        return self._begin(name, turn, Priority.ARCHIVE)

    def _let_pass(self, name: str) -> None:
        """Claim a STAT job, if there is one, past those that have not come to the network."""
        if time.monotonic() - self._looked_s < _STAT_INTERVAL_S:
            return
        self._looked_s = time.monotonic()
        turn = self._lanes.begin_express()
        if turn is not None:
            self._begin(name, turn, Priority.STAT)

    def _begin(self, name: str, turn: LaneTurn, least: Priority) -> bool:
        """Claim a job for a turn, and have it worked off; False if there is none."""
        try:
            claim = self._worker.claim(name, least)
        except BaseException:
            turn.end()
            raise
        if claim is None:
            turn.end()
            return False
        turn.is_alone = claim.attempt > 1
        turn.is_urgent = claim.request.priority is Priority.STAT
        if turn.is_urgent:
            self._lanes.clear_way()
        thread = threading.Thread(
            target=self._work, args=(claim, turn), name=f"job-{claim.job_id}", daemon=True
        )
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()
        return True

    def drain(self) -> None:
        """Wait until every job is done or given back."""
        for thread in self._threads:
            thread.join()

    def _work(self, claim: JobClaim, turn: LaneTurn) -> None:
        try:
            self._worker.work(claim, turn)
        except BaseException as error:
            # This job's lease is left to run out; others are not to blame.
            self._faults.append(error)
            self._worker.abandon()
        finally:
            turn.end()
