"""The dispatcher: between the ledger of a site and the workers elsewhere.

::

    ledger  --claim-->  ticket, queue  -->  worker elsewhere
    ledger  <--outcome--  queue  <--  worker elsewhere

The ledger stays the truth. What the dispatcher holds it holds under one name that outlives its
process: a new one takes up where the last one was, and no job is blamed for the change. What the
queue holds is derived: jobs that it has lost are handed over again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError, disk_reason
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import Log
from pacs_bridge.postgres.handed_over import HandedOver
from pacs_bridge.postgres.payload import job_payload
from pacs_bridge.postgres.ticket import TicketBook, needs_ticket
from pacs_bridge.queue import (
    DISPATCHER,
    SPOOL,
    JobClaim,
    JobOutcome,
    LeaseLostError,
    Priority,
)
from pacs_bridge.retry_policy import RetryPolicy

_MOST_AT_ONCE = 100
_PRUNE_AFTER_S = 300.0


@dataclass(frozen=True, slots=True)
class DispatchRules:
    """What a site chooses about handing over."""

    lease_s: float  #: in the ledger
    waiting_jobs: int  #: handed over ahead of a free worker, of each priority and those above
    retry: RetryPolicy  #: of what the shared folder is to blame for


class Dispatcher:
    """Hands jobs over and takes their outcomes. For one thread; one of a ledger.

    Parameters
    ----------
    ledger
        Of the site.
    handed
        The bridge's side of the queue.
    data_folder
        Of the bridge.
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
        data_folder: Path,
        rules: DispatchRules,
        log: Log,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._handed = handed
        self._data_folder = data_folder
        self._tickets = TicketBook(data_folder)
        self._rules = rules
        self._log = log
        self._steady_s = steady_s
        self._held: dict[int, JobClaim] = {}
        self._is_known = False  #: whether ledger and queue were compared since the last trouble
        self._kept_s = float("-inf")

    def step(self) -> bool:
        """Do what there is to do once; False if there was nothing.

        Raises
        ------
        TransientError
            If ledger or queue cannot be used now.
        """
        try:
            if not self._is_known:
                self._compare()
                self._is_known = True
            self._keep()
            collected = self._collect()
            return self._hand_over() or collected
        except TransientError:
            self._is_known = False
            raise

    def _compare(self) -> None:
        """Bring queue and ledger together, after a start, a boot or trouble with either."""
        self._ledger.jobs.prolong(DISPATCHER, self._rules.lease_s)
        self._held = {claim.job_id: claim for claim in self._ledger.jobs.held_by(DISPATCHER)}
        here = {each.job_id: each for each in self._handed.all()}
        for job_id, each in here.items():
            claim = self._held.get(job_id) or self._ledger.jobs.claim_this(
                job_id, DISPATCHER, self._rules.lease_s
            )
            if claim is None:
                self._withdraw([job_id])
                continue
            self._held[job_id] = claim
            if claim.fence != each.ledger_fence:
                self._handed.adopt(claim)
        missing = [claim for job_id, claim in self._held.items() if job_id not in here]
        self._tickets.keep_only(set(self._held))
        self._put(missing)

    def _keep(self) -> None:
        """Prolong the leases in the ledger, and withdraw what is ours no longer."""
        now_s = self._steady_s()
        if now_s - self._kept_s < self._rules.lease_s / 4:
            return
        self._ledger.jobs.prolong(DISPATCHER, self._rules.lease_s)
        held = {claim.job_id: claim.fence for claim in self._ledger.jobs.held_by(DISPATCHER)}
        lost = [job_id for job_id, claim in self._held.items() if held.get(job_id) != claim.fence]
        self._withdraw(lost)
        for job_id in lost:
            self._log.warning("job-lost", job=job_id)
        self._handed.strike_off_dead(_PRUNE_AFTER_S)
        self._kept_s = now_s

    def _collect(self) -> bool:
        """Write outcomes into the ledger, and only then take them out of the queue."""
        settled = self._handed.settled(_MOST_AT_ONCE)
        outcomes = []
        for each in settled:
            claim = self._held.get(each.job_id)
            if claim is None or claim.fence != each.ledger_fence:
                continue  # of a claim that is over
            if problem := self._problem(each.outcome):
                self._try_again(claim, Reason.QUEUE_UNAVAILABLE, problem)
                continue
            outcomes.append((claim, each.outcome))
        if outcomes:
            lost = self._ledger.jobs.settle(outcomes)
            for claim, outcome in outcomes:
                event = "job-lost" if claim in lost else "job-returned"
                self._log.info(event, job=claim.job_id, state=outcome.state)
        self._withdraw([each.job_id for each in settled])
        return bool(settled)

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

    def _hand_over(self) -> bool:
        """Claim what there is room for; a more urgent job has room of its own."""
        waiting = self._handed.waiting()

        def has_room(priority: Priority) -> bool:
            if _ahead(waiting, priority) >= self._rules.waiting_jobs:
                return False
            waiting[priority] = waiting.get(priority, 0) + 1
            return True

        claims = self._ledger.jobs.claim_some(
            DISPATCHER, self._rules.lease_s, _MOST_AT_ONCE, has_room
        )
        self._held |= {claim.job_id: claim for claim in claims}
        self._put(claims)
        return bool(claims)

    def _put(self, claims: Sequence[JobClaim]) -> None:
        """Tickets and jobs; one that cannot be handed over waits in the ledger, or is dead."""
        fit = [claim for claim in claims if self._is_ready(claim)]
        if fit:
            self._handed.hand_over(fit)
        for claim in fit:
            self._log.info("job-handed-over", job=claim.job_id, attempt=claim.attempt)

    def _is_ready(self, claim: JobClaim) -> bool:
        """Write the ticket of a job, having looked at its ids."""
        try:
            job_payload(claim.job_id, claim.request, claim.created.isoformat())
            self._write_ticket(claim)
        except PermanentError as error:
            self._ledger.jobs.park(claim, error.reason, error.detail)
            self._log.error("job-dead", job=claim.job_id, reason=error.reason)
        except OSError as error:
            self._try_again(claim, disk_reason(error), "the ticket")
        else:
            return True
        del self._held[claim.job_id]
        return False

    def _write_ticket(self, claim: JobClaim) -> None:
        request, instances = claim.request, self._ledger.instances
        if request.source == SPOOL:
            sources = instances.sources(request.series_instance_uid, request.revision)
            set_aside = instances.set_aside(request.series_instance_uid)
            self._tickets.write(claim, sources, set_aside)
        elif needs_ticket(request):
            self._tickets.write(claim, (), ())

    def _try_again(self, claim: JobClaim, reason: Reason, detail: str) -> None:
        with suppress(LeaseLostError):
            self._ledger.jobs.retry(claim, reason, detail, self._rules.retry)
        self._log.warning("job-failed", job=claim.job_id, reason=reason, detail=detail)

    def _withdraw(self, job_ids: list[int]) -> None:
        if not job_ids:
            return
        self._handed.withdraw(job_ids)
        for job_id in job_ids:
            claim = self._held.pop(job_id, None)
            if claim is None or needs_ticket(claim.request):
                self._tickets.remove(job_id)


def _ahead(waiting: dict[Priority, int], urgency: Priority) -> int:
    """How many waiting jobs a worker would take before a new one of this urgency."""
    order = list(Priority)
    return sum(waiting.get(each, 0) for each in order[: order.index(urgency) + 1])
