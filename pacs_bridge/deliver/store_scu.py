"""The Storage SCU: one result to one destination, over an association of its own (PS3.4 B)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import MaximumLengthNotification

from inference.reasons import Reason
from pacs_bridge.config.destinations import StoreDestinationConfig
from pacs_bridge.deliver.line import Line
from pacs_bridge.deliver.negotiation import Offer, Syntax, accepted, offers
from pacs_bridge.deliver.prepared import prepared
from pacs_bridge.deliver.responses import keep_responses
from pacs_bridge.deliver.store_status import Verdict, verdict
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.queue import ResultFile

#: A peer that announces no limit, or a higher one, is sent PDUs of this size.
_MAX_SENT_PDU_BYTES = 1 << 20
_NEGOTIATION_TIMEOUT_S = 30.0
_MESSAGE_PRIORITY_MEDIUM = 0


class UnreachableError(TransientError):
    """The destination as a whole cannot be reached or will not talk to us now.

    Parameters
    ----------
    reason, detail
        As for every error.
    wait_s
        Seconds for which it asked to be left alone.
    """

    def __init__(self, reason: Reason, detail: str, wait_s: float = 0.0) -> None:
        super().__init__(reason, detail)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Sent:
    """What the destination took, and what it said."""

    result: ResultFile
    syntax: Syntax
    status: int
    comment: str  #: of the peer; empty where it gave none


class StoreScu:
    """Sends results to one destination.

    Parameters
    ----------
    destination
        Address, titles, kinds and time limits.
    calling_ae_title
        Ours.
    data_folder
        Paths of results are relative to it.
    check
        Called now and then while sending; what it raises ends that.
    """

    def __init__(
        self,
        destination: StoreDestinationConfig,
        calling_ae_title: str,
        data_folder: Path,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._destination = destination
        self._calling_ae_title = calling_ae_title
        self._data_folder = data_folder
        self._check_leaving = check

    def send(
        self,
        candidates: Sequence[ResultFile],
        attempt: int = 1,  # noqa: ARG002 - a peer that has it already says so: 0111H
    ) -> Sent:
        """Send the one candidate that the site prefers of those that the peer accepts.

        Raises
        ------
        UnreachableError
            ``send-timeout`` if there is no association, ``send-refused`` if the peer rejects it.
        TransientError
            ``send-timeout`` if the association breaks or goes silent, ``send-refused`` if the
            peer is out of resources, ``disk-full`` or ``internal-error`` if a result cannot be
            read now.
        PermanentError
            ``send-refused`` if the peer accepts no kind or refuses the object,
            ``source-missing`` if a result is not on disk as it was made.
        """
        wanted = offers(candidates, self._destination.kinds, self._destination.deflated)
        if not wanted:
            kinds = ", ".join(self._destination.kinds)
            raise PermanentError(Reason.SEND_REFUSED, f"no result of kind {kinds} was made")
        with self._associated(wanted) as association:
            choices = accepted(wanted, _accepted_contexts(association))
            return self._send_first_taken(association, choices)

    def _send_first_taken(self, association: Association, choices: Sequence[Offer]) -> Sent:
        """Send each kind in turn, in its best syntax, until the peer takes one."""
        answer = ""
        for kind in dict.fromkeys(offer.result.kind for offer in choices):
            offer = next(each for each in choices if each.result.kind == kind)
            status, comment = self._store(association, offer)
            # The peer's comment may name the patient: it stays out of the log.
            answer = f"{self._peer}: status {status:04X}H for {kind}"
            meaning = verdict(status)
            if meaning in (Verdict.SENT, Verdict.SENT_WITH_WARNING):
                return Sent(offer.result, offer.syntax, status, comment)
            if meaning is Verdict.TRY_LATER:
                raise TransientError(Reason.SEND_REFUSED, answer)
            if meaning is Verdict.REFUSED:
                break
        raise PermanentError(Reason.SEND_REFUSED, answer)

    @property
    def _peer(self) -> str:
        to = self._destination
        return f"{to.name} ({to.ae_title} at {to.host}:{to.port})"

    @contextmanager
    def _associated(self, wanted: Sequence[Offer]) -> Iterator[Association]:
        """An association with a watchdog, released or aborted in the end."""
        line = Line(self._destination.response_timeout_s)
        try:
            association = self._negotiated(line, wanted)
            try:
                self._check(association, wanted)
                keep_responses(association)
                _limit_sent_pdus(association)
                with line.watched(self._check_leaving):
                    yield association
                    association.release()
            finally:
                if association.is_established:
                    line.abort(association)
        finally:
            line.close()

    def _negotiated(self, line: Line, wanted: Sequence[Offer]) -> Association:
        """An association as the peer answered, which may be none to work with."""
        to = self._destination
        ae = AE(ae_title=self._calling_ae_title)
        ae.connection_timeout = to.connect_timeout_s
        ae.acse_timeout = _NEGOTIATION_TIMEOUT_S
        ae.dimse_timeout = None  # the watchdog keeps the time
        ae.network_timeout = None
        contexts = [
            build_context(offer.result.sop_class_uid, offer.syntax.value) for offer in wanted
        ]
        limit_s = to.connect_timeout_s + _NEGOTIATION_TIMEOUT_S
        try:
            with line.within(limit_s, self._check_leaving):
                return ae.associate(
                    to.host,
                    to.port,
                    contexts=contexts,
                    ae_title=to.ae_title,
                    max_pdu=to.max_pdu_bytes,
                    evt_handlers=line.handlers(),
                )
        except OSError as error:  # the name of the host has no address
            raise UnreachableError(Reason.SEND_TIMEOUT, f"{self._peer}: {error}") from error

    def _check(self, association: Association, wanted: Sequence[Offer]) -> None:
        """Say why there is no association to work with, if there is none."""
        if association.is_established:
            return
        if association.is_rejected:
            answer = association.acceptor.primitive
            raise UnreachableError(
                Reason.SEND_REFUSED,
                f"{self._peer}: association rejected: {answer.result_str}, {answer.reason_str}",
            )
        if association.rejected_contexts:  # accepted, with nothing that could be sent over it
            kinds = ", ".join(dict.fromkeys(offer.result.kind for offer in wanted))
            raise PermanentError(
                Reason.SEND_REFUSED, f"{self._peer}: accepts no Segmentation of kind {kinds}"
            )
        raise UnreachableError(Reason.SEND_TIMEOUT, f"{self._peer}: no association")

    def _store(self, association: Association, offer: Offer) -> tuple[int, str]:
        """One C-STORE; status and error comment."""
        try:
            with prepared(offer, self._data_folder, self._destination.name) as path:
                status = association.send_c_store(path, priority=_MESSAGE_PRIORITY_MEDIUM)
        except (RuntimeError, ValueError) as error:  # the association ended under us
            raise TransientError(Reason.SEND_TIMEOUT, f"{self._peer}: {error}") from error
        if "Status" not in status:
            raise TransientError(
                Reason.SEND_TIMEOUT, f"{self._peer}: association broke or went silent in C-STORE"
            )
        return int(status.Status), str(status.get("ErrorComment", ""))


def _accepted_contexts(association: Association) -> frozenset[tuple[str, str]]:
    return frozenset(
        (str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in association.accepted_contexts
    )


def _limit_sent_pdus(association: Association) -> None:
    """Smaller PDUs than the peer allows are always allowed (PS3.8 D.1); 0 is no limit."""
    for item in association.acceptor.user_information:
        if isinstance(item, MaximumLengthNotification):
            allowed_bytes = item.maximum_length_received or _MAX_SENT_PDU_BYTES
            item.maximum_length_received = min(allowed_bytes, _MAX_SENT_PDU_BYTES)
