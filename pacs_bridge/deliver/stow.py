"""The STOW-RS user agent: one result to one service in one request (PS3.18 10.5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.reasons import Reason
from pacs_bridge.config.destinations import StowDestinationConfig
from pacs_bridge.deliver.negotiation import Offer, Syntax, offers
from pacs_bridge.deliver.prepared import prepared
from pacs_bridge.deliver.store_scu import Sent, UnreachableError
from pacs_bridge.deliver.store_status import DUPLICATE_SOP_INSTANCE, Verdict
from pacs_bridge.deliver.stow_answer import InstanceOutcome, has_instance, outcome_of
from pacs_bridge.dicomweb.media_type import DICOM, DICOM_JSON
from pacs_bridge.dicomweb.multipart import new_boundary
from pacs_bridge.dicomweb.peer import RedirectError, WebAnswer, WebPeer, WebPeerError, WebRequest
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.queue import ResultFile

_CHUNK_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_CONFLICT = 409
_TOO_LARGE = 413
_UNSUPPORTED_MEDIA_TYPE = 415
#: Of the request as it was: another syntax may do.
_OF_THIS_FORM = (400, 406, 409, 415, 422)
_OF_OUR_RIGHTS = (401, 403, 407)
_BUSY = (408, 425, 429, 502, 503, 504)
_FAULT = 500
#: These are no faults of this request.
_OF_THE_SERVICE = (*_BUSY, 501, 505, 507)


@dataclass(frozen=True, slots=True)
class StowReply:
    """How a service answered a look at it."""

    is_sure: bool  #: whether it showed that it is DICOMweb and lets us in
    said: str  #: for people


class StowClient:
    """Sends results to one service.

    Parameters
    ----------
    destination
        Address, credentials, kinds and time limits.
    data_folder
        Paths of results are relative to it.
    check
        Called now and then while waiting; what it raises ends that.
    """

    def __init__(
        self,
        destination: StowDestinationConfig,
        data_folder: Path,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._destination = destination
        self._data_folder = data_folder
        self._check = check
        self._peer = WebPeer(destination, Reason.SEND_TIMEOUT)

    def close(self) -> None:
        """End its connections; it can still be used."""
        self._peer.close()

    def send(self, candidates: Sequence[ResultFile], attempt: int = 1) -> Sent:
        """Send the first of the candidates, in the site's order, that the service takes.

        There is no negotiation: what is refused in one form is sent in the next, as stored, then
        in Explicit VR Little Endian. The next kind follows only where the service says that it
        does not take the SOP class, or the media type in any form: after any other refusal the
        object may be there, and another kind would be a second one of the same result.

        Parameters
        ----------
        candidates
            One result in several kinds.
        attempt
            From 1; after the first the service is asked for the results before they are sent,
            since the answer to an earlier attempt may have been lost.

        Raises
        ------
        UnreachableError
            ``send-timeout`` if there is no connection, ``not-authorised`` if what it is to be
            shown cannot be read; as below where it asks to be left alone for a time.
        TransientError
            Of whatever comes of a request that was begun, since it may come of this result:
            ``send-timeout`` if the connection breaks or the service is busy, ``not-authorised``
            if it does not let us in, ``send-refused`` if it failed for now or its address takes
            no instances, ``bad-answer`` if it does not say what became of the instance; and
            ``disk-full`` or ``internal-error`` if a result cannot be read now.
        PermanentError
            ``send-refused`` if it takes the result in no form, ``source-missing`` if a result
            is not on disk as it was made.
        """
        wanted = [
            offer
            for offer in offers(candidates, self._destination.kinds)
            if offer.syntax is not Syntax.IMPLICIT_LITTLE  # every service takes the explicit one
            or offer.result.transfer_syntax_uid == Syntax.IMPLICIT_LITTLE
        ]
        if not wanted:
            kinds = ", ".join(self._destination.kinds)
            raise PermanentError(Reason.SEND_REFUSED, f"no result of kind {kinds} was made")
        there = self._lost(wanted) if attempt > 1 else None
        if there is not None:
            return _found(there)
        answers: list[str] = []
        for _, group in itertools.groupby(wanted, lambda offer: offer.result.kind):
            sent = self._send_kind(tuple(group), answers)
            if isinstance(sent, Sent):
                return sent
            if not sent:
                break
        raise PermanentError(Reason.SEND_REFUSED, f"{self._name}: {'; '.join(answers)}")

    def _send_kind(self, offers_of_kind: Sequence[Offer], answers: list[str]) -> Sent | bool:
        """Send one kind in the first form that is taken; otherwise whether another may be sent."""
        may_change = True
        for offer in offers_of_kind:
            outcome = self._store(offer)
            if isinstance(outcome, int):
                answers.append(f"status {outcome} for {offer.result.kind}")
                may_change = may_change and outcome == _UNSUPPORTED_MEDIA_TYPE
            else:
                if outcome.verdict in (Verdict.SENT, Verdict.SENT_WITH_WARNING):
                    return Sent(offer.result, offer.syntax, outcome.status, "")
                answers.append(f"reason {outcome.status:04X}H for {offer.result.kind}")
                if outcome.verdict is Verdict.TRY_LATER:
                    raise TransientError(Reason.SEND_REFUSED, f"{self._name}: {answers[-1]}")
                if outcome.verdict is Verdict.TRY_OTHER_KIND:
                    return True
                may_change = False
            if not may_change and self._lost((offer,)) is not None:
                return _found(offer)
        return may_change

    def _lost(self, wanted: Sequence[Offer]) -> Offer | None:
        """The offer whose result the service has already, by a search for its UID.

        A service that cannot be searched tells nothing.
        """
        for offer in {offer.result.kind: offer for offer in reversed(wanted)}.values():
            uid = offer.result.sop_instance_uid
            query = (("SOPInstanceUID", uid), ("limit", "1"))
            request = WebRequest("GET", "/instances", query, {"Accept": DICOM_JSON})
            with self._asked(request) as answer:
                if answer.status in _BUSY:
                    raise self._refusal(answer)
                if answer.status == 200 and has_instance(self._json(answer), uid):
                    return offer
        return None

    def ask(self) -> StowReply:
        """Whether the service is there and lets us in, by a search for one study.

        Raises
        ------
        BridgeError
            As ``send`` of a service that cannot be reached or does not let us in.
        """
        request = WebRequest("GET", "/studies", (("limit", "1"),), {"Accept": DICOM_JSON})
        with self._asked(request) as answer:
            if answer.status == 204 or (answer.status == 200 and answer.media_type.is_json):
                return StowReply(True, "QIDO-RS answers")
            if answer.status in _OF_OUR_RIGHTS or answer.status >= _FAULT:
                raise self._refusal(answer)
            return StowReply(False, f"GET /studies: status {answer.status}")

    @contextmanager
    def _asked(self, request: WebRequest) -> Iterator[WebAnswer]:
        with ExitStack() as stack:
            try:
                answer = stack.enter_context(self._peer.asked(request, self._check))
            except RedirectError as error:
                raise TransientError(Reason.SEND_REFUSED, error.detail) from error
            except TransientError as error:
                if isinstance(error, WebPeerError) and error.was_sent:
                    raise
                raise UnreachableError(error.reason, error.detail) from error
            yield answer

    @property
    def _name(self) -> str:
        return f"{self._destination.name} ({self._peer.url})"

    def _store(self, offer: Offer) -> InstanceOutcome | int:
        """One request; what became of the instance, or the status that refused this form."""
        with (
            prepared(offer, self._data_folder, self._destination.name) as path,
            self._asked(_request(path)) as answer,
        ):
            return self._outcome(answer, offer.result.sop_instance_uid)

    def _outcome(self, answer: WebAnswer, sop_instance_uid: str) -> InstanceOutcome | int:
        is_success = 200 <= answer.status < 300
        if is_success or answer.status == _CONFLICT:
            outcome = self._told(answer, sop_instance_uid)
            if outcome is not None:
                return outcome
            if is_success:
                raise TransientError(
                    Reason.BAD_ANSWER,
                    f"{answer.where}: status {answer.status} without a word on the instance",
                )
        if answer.status in _OF_THIS_FORM:
            return answer.status
        raise self._refusal(answer)

    def _told(self, answer: WebAnswer, sop_instance_uid: str) -> InstanceOutcome | None:
        return outcome_of(self._json(answer), sop_instance_uid)

    def _json(self, answer: WebAnswer) -> Any:
        """What is not to be read says nothing: the result may have been stored."""
        if not answer.media_type.is_json:
            return None
        with suppress(PermanentError):
            return answer.json(_MAX_ANSWER_BYTES)
        return None

    def _refusal(self, answer: WebAnswer) -> BridgeError:
        """The error for a status that says nothing of one form of the result."""
        status = answer.status
        said = f"{answer.where}: status {status}"
        if status == _TOO_LARGE:
            return PermanentError(Reason.SEND_REFUSED, said)
        reason = Reason.SEND_REFUSED
        if status in _OF_OUR_RIGHTS:
            reason = Reason.NOT_AUTHORISED
        elif status in _BUSY:
            reason = Reason.SEND_TIMEOUT
        is_of_the_service = status < _FAULT or status in _OF_THE_SERVICE
        if is_of_the_service and answer.wait_s > 0:
            return UnreachableError(reason, said, answer.wait_s)
        return TransientError(reason, said)


def _found(offer: Offer) -> Sent:
    """It is there already, as it was made."""
    stored = Syntax(offer.result.transfer_syntax_uid)
    return Sent(offer.result, stored, DUPLICATE_SOP_INSTANCE, "")


def _request(path: Path) -> WebRequest:
    """Store one file; read while it is sent, and again if it has to be sent again."""
    boundary = new_boundary()
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    tail = f"\r\n--{boundary}--\r\n".encode()

    def body() -> Iterator[bytes]:
        yield head
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        yield tail

    length_bytes = len(head) + path.stat().st_size + len(tail)
    headers = {
        "Accept": DICOM_JSON,
        "Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}',
        "Content-Length": str(length_bytes),
    }
    return WebRequest("POST", "/studies", headers=headers, body=body)
