"""The dispatcher: between the ledger of a site and the workers elsewhere.

::

    ledger  --claim-->  ticket, queue  -->  worker elsewhere
    ledger  <--outcome--  queue  <--  worker elsewhere

Of several dispatchers of a queue one works and the others wait for its end.

The ledger stays the truth. What the dispatcher holds it holds under one name that outlives its
process: a new one takes up where the last one was, and no job is blamed for the change. What the
queue holds is derived: jobs that it has lost are handed over again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import psycopg

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import Log
from pacs_bridge.postgres.handed_over import Handed, HandedOver, Settled
from pacs_bridge.postgres.payload import job_payload, request_key
from pacs_bridge.postgres.room import Room
from pacs_bridge.postgres.takers import Takers
from pacs_bridge.postgres.ticket import TicketBook
from pacs_bridge.queue import (
    DISPATCHER,
    SPOOL,
    JobClaim,
    JobOutcome,
    LeaseLostError,
    State,
)
from pacs_bridge.retry_policy import RetryPolicy
from pacs_bridge.worker_job import discard_but

_MOST_AT_ONCE = 100
_NO_TICKETS_S = 30.0  #: until the next try where none could be written
_PAST_S = 1.0  #: until the next look past jobs that have no room, if one found others
_NOTHING_PAST_S = 10.0  #: if it found none


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """What a site chooses about handing over."""

    lease_s: float  #: in the ledger
    waiting_jobs: int  #: of a kind, ahead of a free worker, of each priority and those above
    retry: RetryPolicy  #: of what the shared folder is to blame for
    has_local_workers: bool = False  #: they have all but one waiting job a worker elsewhere


class Dispatcher:
    """Hands jobs over and takes their outcomes. For one thread.

    Parameters
    ----------
    ledger
        Of the site.
    handed
        The bridge's side of the queue.
    tickets
        Of the jobs that are handed over.
    rules
        What the site chooses.
    log
        Told what was handed over and what came back.
    steady_s
        Seconds that never step.
    """

    def __init__(
        self,
        ledger: Ledger,
        handed: HandedOver,
        tickets: TicketBook,
        rules: DispatchRules,
        log: Log,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._handed = handed
        self._tickets = tickets
        self._data_folder = tickets.data_folder
        self._rules = rules
        self._log = log
        self._steady_s = steady_s
        self._held: dict[int, JobClaim] = {}
        self._is_known = False  #: whether ledger and queue were compared since the last trouble
        self._is_ours: bool | None = None  #: whether nobody else dispatches, when last asked
        self._takers = Takers(handed, rules.waiting_jobs, rules.has_local_workers, steady_s)
        self._kept_s = float("-inf")
        self._prolonged_s = float("-inf")
        self._compared_s = float("-inf")
        self._no_tickets_until_s = float("-inf")
        self._look_past_s = float("-inf")

    def step(self) -> bool:
        """Do what there is to do once; False if there was nothing, or another dispatches.

        Raises
        ------
        TransientError
            If ledger or queue cannot be used now.
        """
        try:
            self.keep_leases()
            if not self._has_turn():
                return False
            self._keep()
            if self._takers.look():
                self._take_back(self._takers.beyond(self._waiting()))
            if not self._is_known or self._is_due(self._compared_s, self._rules.lease_s):
                self._compare()
            collected = self._collect()
            # the ledger would give these to nobody: a later revision may have a result
            self._take_back(self._ledger.jobs.overtaken(DISPATCHER))
            return self._hand_over() or collected
        except TransientError:
            self._is_known = False
            raise
        except (OSError, psycopg.Error) as error:
            self._is_known = False
            detail = f"{type(error).__name__} {getattr(error, 'sqlstate', '') or ''}"
            raise TransientError(Reason.QUEUE_UNAVAILABLE, detail) from error

    def _has_turn(self) -> bool:
        had, self._is_ours = self._is_ours, self._handed.turn.is_ours()
        if not self._is_ours:
            self._is_known = False
            if had is not False:
                self._log.warning("dispatcher-waits", detail="another dispatches this queue")
        return self._is_ours

    def keep_leases(self) -> None:
        """Prolong the leases in the ledger, now and then; wanted while PostgreSQL is away, too.

        Raises
        ------
        TransientError
            If the ledger cannot be used now.
        """
        if self._is_due(self._prolonged_s, self._rules.lease_s / 4):
            self._ledger.jobs.prolong(DISPATCHER, self._rules.lease_s)
            self._prolonged_s = self._steady_s()

    def _is_due(self, since_s: float, interval_s: float) -> bool:
        return self._steady_s() - since_s >= interval_s

    def _compare(self) -> None:
        """Bring queue and ledger together: at a start, after trouble with either, and regularly.

        Any of the two may have been restored from a backup: ids are believed with the request
        that they are of only.
        """
        self._held = {claim.job_id: claim for claim in self._ledger.jobs.held_by(DISPATCHER)}
        rows = {each.job_id: each for each in self._handed.all()}
        foreign = []
        for job_id, each in rows.items():
            claim = self._held.get(job_id) or self._ledger.jobs.claim_this(
                job_id, DISPATCHER, self._rules.lease_s
            )
            if claim is None:
                self._withdraw([job_id])
                continue
            self._held[job_id] = claim
            is_ours = each.request_key == request_key(claim.request)
            if self._is_foreign(claim, each):
                foreign.append(job_id)
                is_ours = is_ours and claim.fence == each.ledger_fence
            elif claim.fence != each.ledger_fence:
                self._handed.adopt(claim)
            if is_ours:
                self._note_failures(claim, each.failures)
        if foreign:
            self._log.warning("queue-differs", jobs=len(foreign))
            self._handed.withdraw(foreign)
        here = rows.keys() & self._held.keys() - set(foreign)
        self._tickets.keep_only(here | self._held.keys())
        missing = {job_id: claim for job_id, claim in self._held.items() if job_id not in here}
        for claim in self._ledger.jobs.overtaken(DISPATCHER):
            if missing.pop(claim.job_id, None) is not None:
                self._release(claim)
        self._put(list(missing.values()))
        self._is_known, self._compared_s = True, self._steady_s()

    def _is_foreign(self, claim: JobClaim, row: Handed) -> bool:
        """Whether a row is lost, or of another job of its id, another time or configuration."""
        request = claim.request
        if row.is_lost or row.request_key != request_key(request):
            return True
        if row.has_failed and row.ledger_fence != claim.fence:
            return True  # an operator may have seen that end, and asked for another try
        if not self._tickets.is_there(claim.job_id, row.ticket_fence):
            return True
        return row.recipe is not None and bool(row.recipe.difference(self._handed.recipe(request)))

    def _keep(self) -> None:
        """Withdraw what is ours no longer."""
        if not self._is_due(self._kept_s, self._rules.lease_s / 4):
            return
        held = {claim.job_id: claim.fence for claim in self._ledger.jobs.held_by(DISPATCHER)}
        lost = [job_id for job_id, claim in self._held.items() if held.get(job_id) != claim.fence]
        self._withdraw(lost)
        for job_id in lost:
            self._log.warning("job-lost", job=job_id)
        self._handed.free_stalled()
        self._kept_s = self._steady_s()

    def _collect(self) -> bool:
        """Write outcomes into the ledger, and only then take them out of the queue."""
        settled = self._handed.settled(_MOST_AT_ONCE)
        if any(self._claim_of(each) is None for each in settled):
            self._compare()  # the ledger knows whether a claim is over, or was not heard of here
            settled = self._handed.settled(_MOST_AT_ONCE)
        outcomes = []
        for each in settled:
            self.keep_leases()
            if (claim := self._claim_of(each)) is None:
                continue
            if each.outcome.state is State.RETRY:  # it waits here, for whoever is free then
                self._note_failures(claim, each.failures, each.series_failures)
                reason = each.outcome.reason or Reason.INTERNAL_ERROR
                self._try_again(claim, reason, each.outcome.detail, each.wait_s)
                continue
            if problem := self._problem(each.outcome):
                self._note_failures(claim, each.failures)
                self._try_again(claim, Reason.QUEUE_UNAVAILABLE, problem)
                continue
            outcomes.append((claim, each.outcome))
        if outcomes:
            lost = self._entered(outcomes)
            for claim, outcome in outcomes:
                event = "job-lost" if claim in lost else "job-returned"
                self._log.info(event, job=claim.job_id, state=outcome.state)
                if claim not in lost:
                    self._discard_others(claim, outcome)
        self._withdraw([each.job_id for each in settled if self._claim_of(each) is not None])
        return bool(settled)

    def _discard_others(self, claim: JobClaim, outcome: JobOutcome) -> None:
        """Delete what other leases of the job left; only here is it known which one counts."""
        of_job = self._data_folder / "results" / f"{claim.job_id:08d}"
        folders = {(self._data_folder / each.path).parent for each in outcome.results}
        if len(folders) == 1 and (folder := folders.pop()).parent == of_job:
            discard_but(folder)

    def _entered(self, outcomes: Sequence[tuple[JobClaim, JobOutcome]]) -> tuple[JobClaim, ...]:
        """Enter outcomes at once, or one by one if the ledger refuses any; gives those lost."""
        try:
            return self._ledger.jobs.settle(outcomes)
        except (ValueError, OverflowError, sqlite3.Error) as error:
            if len(outcomes) == 1:
                dead = JobOutcome(State.DEAD, Reason.BAD_PAYLOAD, type(error).__name__)
                return self._ledger.jobs.settle([(outcomes[0][0], dead)])
        return tuple(lost for each in outcomes for lost in self._entered([each]))

    def _claim_of(self, settled: Settled) -> JobClaim | None:
        claim = self._held.get(settled.job_id)
        return claim if claim is not None and claim.fence == settled.ledger_fence else None

    def _problem(self, outcome: JobOutcome) -> str:
        """What is wrong with the results: a worker may have written into another folder."""
        for result in outcome.results:
            try:
                problem = result.problem(self._data_folder)
            except OSError as error:
                problem = error.strerror or "cannot be read"
            if problem:
                return f"{result.path} {problem}"
        return ""

    def _waiting(self) -> list[JobClaim]:
        held = (self._held.get(job_id) for job_id in self._handed.waiting())
        return [claim for claim in held if claim is not None]

    def _take_back(self, claims: Sequence[JobClaim]) -> None:
        """Have those jobs wait here that nobody elsewhere has."""
        if not claims:
            return
        known = {claim.job_id: claim for claim in claims}
        for job_id, failures in self._handed.withdraw_waiting(list(known)).items():
            self._note_failures(known[job_id], failures)
            self._release(known[job_id])

    def _note_failures(self, claim: JobClaim, failures: int, of_series: int = 0) -> None:
        """What counts against a job goes with it, wherever it is tried next."""
        if failures > claim.failures or of_series > claim.series_failures:
            noted = replace(
                claim,
                failures=max(failures, claim.failures),
                series_failures=max(of_series, claim.series_failures),
            )
            self._ledger.jobs.note_failures(noted)
            self._held[claim.job_id] = noted

    def _release(self, claim: JobClaim) -> None:
        """Let a job that is not in the queue wait in the ledger; no attempt of it counts."""
        with suppress(LeaseLostError):
            self._ledger.jobs.release(claim)
            self._log.info("job-released", job=claim.job_id)
        self._held.pop(claim.job_id, None)
        self._tickets.remove(claim.job_id)

    def _hand_over(self) -> bool:
        """Claim what there is room for; each kind of jobs, and a more urgent one, has its own."""
        if self._steady_s() < self._no_tickets_until_s or self._takers.are_none():
            return False
        waiting = (each.request for each in self._waiting())
        room = Room(self._takers.most_waiting, waiting)
        self.keep_leases()  # what ran out would be taken for a dead worker's
        most = _MOST_AT_ONCE if self._no_tickets_until_s == float("-inf") else 1
        jobs, lease_s = self._ledger.jobs, self._rules.lease_s
        claims = jobs.claim_some(DISPATCHER, lease_s, most, room.take) or self._claimed_past(room)
        self._held |= {claim.job_id: claim for claim in claims}
        self._put(claims)
        return bool(claims)

    def _claimed_past(self, room: Room) -> tuple[JobClaim, ...]:
        """What waits in the ledger behind jobs of kinds that have no more room.

        Looked for now and then: all jobs in front of it are passed by.
        """
        if self._steady_s() < self._look_past_s:
            return ()
        jobs, lease_s = self._ledger.jobs, self._rules.lease_s
        found = room.taken_past(lambda full: jobs.due_besides(full, _MOST_AT_ONCE))
        claims = (jobs.claim_this(job_id, DISPATCHER, lease_s) for job_id in found)
        self._look_past_s = self._steady_s() + (_PAST_S if found else _NOTHING_PAST_S)
        return tuple(claim for claim in claims if claim is not None)

    def _put(self, claims: Sequence[JobClaim]) -> None:
        """Tickets and jobs; one that cannot be handed over waits in the ledger, or is dead."""
        fit = [claim for claim in claims if self._is_ready(claim)]
        if fit:
            try:
                self._handed.hand_over(fit)
            except PermanentError:  # the ledger has the say: what else stands for them goes
                self._handed.withdraw([claim.job_id for claim in fit])
                self._handed.withdraw_like([claim.request for claim in fit])
                self._handed.hand_over(fit)
        for claim in fit:
            self._log.info("job-handed-over", job=claim.job_id, attempt=claim.attempt)

    def _is_ready(self, claim: JobClaim) -> bool:
        """Write the ticket of a job, having looked at its ids."""
        try:
            job_payload(claim.job_id, claim.request, claim.created.isoformat())
            self._write_ticket(claim)
        except PermanentError as error:
            with suppress(LeaseLostError):
                self._ledger.jobs.park(claim, error.reason, error.detail)
            self._log.error("job-dead", job=claim.job_id, reason=error.reason)
            del self._held[claim.job_id]
        except TransientError as error:  # of its plan; one of the ledger comes again at once
            self._try_again(claim, error.reason, error.detail)
            del self._held[claim.job_id]
        except OSError as error:  # as it will be with every other job
            self._no_tickets_until_s = self._steady_s() + _NO_TICKETS_S
            self._log.error("ticket-unwritten", job=claim.job_id, reason=disk_reason(error))
            self._release(claim)
        else:
            return True
        return False

    def _write_ticket(self, claim: JobClaim) -> None:
        request, instances = claim.request, self._ledger.instances
        if request.source == SPOOL:
            sources = instances.sources(request.series_instance_uid, request.revision)
            set_aside = instances.set_aside(request.series_instance_uid)
            self._tickets.write(claim, sources, set_aside)
        else:
            self._tickets.write(claim, (), ())
        self._no_tickets_until_s = float("-inf")

    def _try_again(
        self, claim: JobClaim, reason: Reason, detail: str, least_wait_s: float = 0.0
    ) -> None:
        policy = replace(self._rules.retry, least_wait_s=least_wait_s)
        with suppress(LeaseLostError):
            self._ledger.jobs.retry(claim, reason, detail, policy)
        self._log.warning("job-failed", job=claim.job_id, reason=reason, detail=detail)

    def _withdraw(self, job_ids: list[int]) -> None:
        if not job_ids:
            return
        self._handed.withdraw(job_ids)
        for job_id in job_ids:
            self._held.pop(job_id, None)
            self._tickets.remove(job_id)
