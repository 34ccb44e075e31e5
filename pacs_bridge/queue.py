"""The queue: work that is leased to a worker, never handed over for good.

A claim is a lease with a fence number (Kleppmann, *How to do distributed locking*, 2016): when
a worker has not been heard of for the length of its lease, the job is given to another and the
fence rises, so that whatever the first one still reports is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.retry_policy import RetryPolicy


class Priority(StrEnum):
    """Which job is claimed first."""

    STAT = "stat"
    ROUTINE = "routine"
    ARCHIVE = "archive"


class State(StrEnum):
    """Where a series revision, or the job made of it, stands.

    ``RECEIVING`` to ``READY``, ``INCOMPLETE`` and ``SKIPPED`` are states of a series revision;
    the job that a ``READY`` revision gives goes on from there.
    """

    RECEIVING = "receiving"  #: instances arrive, or an association that sent some is open
    QUIET = "quiet"  #: the quiet period runs
    READY = "ready"  #: complete; its job waits to be claimed
    CLAIMED = "claimed"  #: a worker has it
    SEGMENTED = "segmented"  #: a worker has the label map
    ENCODED = "encoded"  #: the results are on disk, verified
    SENDING = "sending"  #: deliveries are under way
    SENT = "sent"  #: every destination has it
    COMMITTED = "committed"  #: every destination confirmed that it keeps it
    RETRY = "retry"  #: failed in a way that may pass; claimed again at ``not_before``
    DEAD = "dead"  #: failed for good, with its reason; an operator can retry it
    SKIPPED = "skipped"  #: not for us, with its reason: a counted outcome, not an error
    INCOMPLETE = "incomplete"  #: held until a resend completes it or an operator forces it
    SUPERSEDED = "superseded"  #: a later revision stands in its place

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in _FINAL


_FINAL = frozenset({State.SENT, State.COMMITTED, State.DEAD, State.SKIPPED, State.SUPERSEDED})


#: The source of what was received here.
SPOOL = "spool"

#: Has in the ledger what was handed over to workers elsewhere, whichever process does that.
DISPATCHER = "dispatcher"


@dataclass(frozen=True, slots=True)
class JobKind:
    """What jobs have in common that a worker can do all of, or none."""

    route: str
    model: str
    source: str
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One revision of one series, to be segmented as a route says."""

    series_instance_uid: str
    revision: int  #: 1, 2, ...
    route: str  #: name in the configuration
    model: str  #: name in the model store
    destinations: tuple[str, ...]  #: names in the configuration
    priority: Priority = Priority.ROUTINE
    source: str = SPOOL  #: name in the configuration of where its files are, or the spool
    study_instance_uid: str = ""  #: where a source asks for it

    @property
    def kind(self) -> JobKind:
        """What it has in common with others that are for the same workers."""
        return JobKind(self.route, self.model, self.source, self.destinations)


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One Segmentation on disk: a result, in one of the kinds that destinations can be given."""

    stack: int  #: which stack of the series, from 0
    kind: str  #: ``binary`` or ``labelmap``
    path: str  #: relative to the data folder
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    sha256: str  #: of the file
    size_bytes: int

    def problem(self, data_folder: Path) -> str:
        """What is wrong with the file: it is missing or changed; empty if nothing is.

        Raises
        ------
        OSError
            If it is there and cannot be read.
        """
        try:
            with (data_folder / self.path).open("rb", buffering=0) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return "is missing"
        return "" if digest == self.sha256 else "has another digest"


@dataclass(frozen=True, slots=True)
class JobClaim:
    """A job, leased."""

    job_id: int
    fence: int
    request: JobRequest
    attempt: int  #: 1 at the first try
    worker: str
    created: datetime  #: when the job was made, UTC; the same at every attempt
    predecessors: tuple[ResultFile, ...]  #: of the last revision that was sent, in all kinds
    is_handed_over: bool = False  #: what earlier claims left is its bridge's, who may have taken it
    failures: int = 0  #: that count against it so far
    series_failures: int = 0  #: of those that are its series' own (``series_faults``)


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a job."""

    state: State  #: ``SENDING``: it has results; ``SKIPPED``, ``DEAD``, or ``RETRY``: it failed
    reason: Reason | None = None  #: of one without results
    detail: str = ""
    results: tuple[ResultFile, ...] = ()
    findings: tuple[Finding, ...] = ()


class LeaseLostError(Exception):
    """The lease has passed to another or the job is over: stop, and report nothing more."""


class OutcomeInDoubtError(LeaseLostError):
    """The job is over here, perhaps since its results were taken: they may be deleted by nobody."""


class Queue(Protocol):
    """Jobs by priority, then by age.

    Every method that takes a claim raises ``LeaseLostError`` when its fence is no longer the
    job's: the work was given to another, superseded, or steered by an operator.
    """

    def submit(self, request: JobRequest) -> int:
        """Make a job and give its id; the same request again gives the id that it has."""
        ...

    def claim(
        self, worker: str, lease_s: float, least: Priority = Priority.ARCHIVE
    ) -> JobClaim | None:
        """Lease the most urgent job that is due, or None. Counts as an attempt.

        None, too, if it is less urgent than ``least``.
        """
        ...

    def heartbeat(self, claim: JobClaim, lease_s: float) -> None:
        """Prolong the lease from now on."""
        ...

    def advance(self, claim: JobClaim, state: State) -> None:
        """Note ``SEGMENTED`` or ``ENCODED``."""
        ...

    def complete(
        self, claim: JobClaim, results: Sequence[ResultFile], findings: Sequence[Finding]
    ) -> None:
        """The results are durable: make one delivery for each stack and destination."""
        ...

    def retry(self, claim: JobClaim, reason: Reason, detail: str, policy: RetryPolicy) -> State:
        """Failed in a way that may pass: ``RETRY``, or ``DEAD`` when its time is up.

        With ``max_attempts`` the failure counts against the job, as the death of its worker
        does, and the last one that is allowed is its end. Failures that are its series' own
        (``series_faults``) are counted by themselves.
        """
        ...

    def park(self, claim: JobClaim, reason: Reason, detail: str) -> None:
        """Failed for good: ``DEAD``."""
        ...

    def skip(self, claim: JobClaim, reason: Reason, detail: str) -> None:
        """Not for us: ``SKIPPED``."""
        ...

    def release(self, claim: JobClaim) -> None:
        """Give the job back untouched, as at a shutdown; the attempt does not count."""
        ...


class DeliveryState(StrEnum):
    """Where one result stands on its way to one destination."""

    PENDING = "pending"  #: due at ``not_before``
    CLAIMED = "claimed"
    SENT = "sent"
    COMMITTED = "committed"
    DEAD = "dead"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """One stack's result on its way to one destination, leased."""

    delivery_id: int
    fence: int
    job_id: int
    stack: int
    destination: str
    attempt: int  #: 1 at the first try
    candidates: tuple[ResultFile, ...]  #: the same result in every kind that was made


class Outbox(Protocol):
    """Deliveries, each retried on its own; methods raise ``LeaseLostError`` as in ``Queue``."""

    def claim(
        self,
        sender: str,
        lease_s: float,
        destinations: Sequence[str] | None = None,
        besides: Collection[int] = (),
    ) -> DeliveryClaim | None:
        """Lease the most urgent delivery that is due, or None.

        None, too, if only those of ``besides``, by their ids, are due.
        """
        ...

    def heartbeat(self, claim: DeliveryClaim, lease_s: float) -> None:
        """Prolong the lease from now on."""
        ...

    def sent(self, claim: DeliveryClaim, result: ResultFile) -> None:
        """The destination answered success for this candidate."""
        ...

    def retry(
        self, claim: DeliveryClaim, reason: Reason, detail: str, policy: RetryPolicy
    ) -> DeliveryState:
        """Failed in a way that may pass: due again later, or ``DEAD`` when its time is up."""
        ...

    def park(self, claim: DeliveryClaim, reason: Reason, detail: str) -> None:
        """Refused for good: ``DEAD``."""
        ...

    def release(self, claim: DeliveryClaim) -> None:
        """Give the delivery back untouched; the attempt does not count."""
        ...
