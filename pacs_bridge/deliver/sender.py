"""The sender: results from the outbox to their destinations, for as many days as it takes.

Every destination has a thread of its own, so that one that is down or slow holds up no other,
and a gate, so that one that is down is asked once a waiting step and not once a result. No
delivery ever causes another inference: what is sent was made and verified before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from inference.reasons import Reason
from pacs_bridge.clock import Clock
from pacs_bridge.config.destinations import DestinationConfig, RetryConfig
from pacs_bridge.deliver.departure import LeavingError
from pacs_bridge.deliver.gate import Gate
from pacs_bridge.deliver.refusals import Refusals
from pacs_bridge.deliver.store_scu import Sent, UnreachableError
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.lease import KeptLease
from pacs_bridge.log import Log
from pacs_bridge.queue import DeliveryClaim, LeaseLostError, Outbox, ResultFile
from pacs_bridge.retry_policy import RetryPolicy

#: A sender that has not been heard of for so long is presumed dead.
LEASE_S = 60.0
_HEARTBEATS_A_LEASE = 4
#: How long a failed delivery waits, as a share of the time that the gate stays closed.
_SOONER, _LATER = 0.9, 2.0


def delivery_policy(retry: RetryConfig) -> RetryPolicy:
    """Waiting times of one delivery, in days rather than attempts."""
    return RetryPolicy(
        first_wait_s=retry.first_wait_s,
        max_wait_s=retry.max_wait_s,
        give_up_after_s=retry.give_up_after_h * 3600,
    )


class ResultSender(Protocol):
    """Sends one result to one destination: ``StoreScu``, ``StowClient``."""

    def send(self, candidates: Sequence[ResultFile], attempt: int = 1) -> Sent:
        """Send the one candidate that the site prefers of those that the peer accepts.

        Parameters
        ----------
        candidates
            One result in several kinds.
        attempt
            From 1; an earlier one may have succeeded and its answer been lost.

        Raises
        ------
        UnreachableError
            If the destination as a whole takes nothing now.
        TransientError
            If this result may be taken another time.
        PermanentError
            If it was refused for good, or is not on disk as it was made.
        LeavingError
            If it was told to stop.
        """
        ...


class DestinationSender:
    """Works off the deliveries to one destination.

    Parameters
    ----------
    destination
        Where to.
    sender
        Sends one result there.
    outbox
        Gives the deliveries and takes their outcome.
    clock
        For the gate.
    log
        Told each attempt.
    """

    def __init__(
        self,
        destination: DestinationConfig,
        sender: ResultSender,
        outbox: Outbox,
        clock: Clock,
        log: Log,
    ) -> None:
        self._name = destination.name
        self._sender = sender
        self._outbox = outbox
        self._clock = clock
        self._log = log
        self._policy = delivery_policy(destination.retry)
        self._gate = Gate(self._policy)
        self._refusals = Refusals()

    def run(self, sender: str, leave: threading.Event, poll_s: float) -> None:
        """Send what is due until ``leave`` is set; what the sender breaks off is given back."""
        while not leave.is_set():
            try:
                busy = self.send_one(sender)
            except TransientError as error:  # the ledger; deliveries themselves are settled
                self._log.warning("outbox-unavailable", reason=error.reason, detail=error.detail)
                busy = False
            if not busy:
                leave.wait(poll_s)

    def send_one(self, sender: str) -> bool:
        """Send the most urgent delivery; False if none is due or the gate is closed."""
        if not self._gate.is_open(self._clock.steady_s()):
            return False
        claim = self._next(sender)
        if claim is None:
            return False
        lease = KeptLease(
            lambda: self._outbox.heartbeat(claim, LEASE_S), LEASE_S / _HEARTBEATS_A_LEASE
        )
        try:
            with lease:
                self._settle(claim)
        except LeaseLostError:
            self._log.warning("delivery-lost", delivery=claim.delivery_id)
        return True

    def _next(self, sender: str) -> DeliveryClaim | None:
        """The most urgent delivery; of those that were refused just now only if nothing else is."""
        refused, names = self._refusals.lately(), [self._name]
        claim = self._outbox.claim(sender, LEASE_S, names, refused)
        if claim is None and refused:
            claim = self._outbox.claim(sender, LEASE_S, names)
        return claim

    def _settle(self, claim: DeliveryClaim) -> None:
        """From a claimed delivery to its next state."""
        try:
            sent = self._sender.send(claim.candidates, claim.attempt)
        except LeavingError:
            self._outbox.release(claim)
            self._log.info("delivery-released", delivery=claim.delivery_id, destination=self._name)
        except UnreachableError as error:
            # The destination is at fault, not this result: it is due again before the gate
            # opens, so that the most urgent one goes first when the destination is back. One
            # that asks for a wait may ask for it each time, for this result alone.
            longer = self._refusals.note(claim.delivery_id) if error.wait_s else 0
            share = _LATER * longer if longer else _SOONER
            self._failed(claim, error, share, error.wait_s)
        except TransientError as error:
            # Perhaps it is this result: the gate opens for others before it is due again.
            longer = self._refusals.note(claim.delivery_id)
            self._failed(claim, error, _LATER * max(longer, 1))
        except PermanentError as error:
            self._refusals.forget(claim.delivery_id)
            self._outbox.park(claim, error.reason, error.detail)
            self._log.error(
                "delivery-dead",
                delivery=claim.delivery_id,
                destination=self._name,
                reason=error.reason,
                detail=error.detail,
            )
        except Exception as error:  # a fault of this software, which may concern this result only
            self._log.fault(
                "delivery-fault", error, delivery=claim.delivery_id, destination=self._name
            )
            kind = type(error).__qualname__
            longer = self._refusals.note(claim.delivery_id)
            fault = TransientError(Reason.INTERNAL_ERROR, kind)
            self._failed(claim, fault, _LATER * max(longer, 1))
        else:
            self._gate.succeeded()
            self._refusals.taken(claim.delivery_id)
            self._outbox.sent(claim, sent.result)
            self._note(claim, sent)

    def _failed(
        self, claim: DeliveryClaim, error: TransientError, share: float, at_least_s: float = 0.0
    ) -> None:
        """Close the gate, and let the delivery wait for a share of that time."""
        gate_s = self._gate.failed(self._clock.steady_s(), at_least_s)
        policy = RetryPolicy(share * gate_s, share * gate_s, self._policy.give_up_after_s)
        state = self._outbox.retry(claim, error.reason, error.detail, policy)
        self._log.warning(
            "delivery-failed",
            delivery=claim.delivery_id,
            destination=self._name,
            state=state,
            reason=error.reason,
            detail=error.detail,
            destination_waits_s=gate_s,
        )

    def _note(self, claim: DeliveryClaim, sent: Sent) -> None:
        tell: Callable[..., None] = self._log.info if sent.status == 0 else self._log.warning
        tell(
            "delivery-sent",
            delivery=claim.delivery_id,
            destination=self._name,
            kind=sent.result.kind,
            transfer_syntax=sent.syntax.name,
            status=f"{sent.status:04X}H",
            bytes=sent.result.size_bytes,
        )
