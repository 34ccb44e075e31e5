"""The STOW-RS user agent: one result to one service in one request (PS3.18 10.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.reasons import Reason
from pacs_bridge.config.destinations import StowDestinationConfig
from pacs_bridge.deliver.negotiation import Offer, Syntax, offers
from pacs_bridge.deliver.prepared import prepared
from pacs_bridge.deliver.store_scu import Sent, UnreachableError
from pacs_bridge.deliver.store_status import Verdict
from pacs_bridge.deliver.stow_answer import InstanceOutcome, outcome_of
from pacs_bridge.dicomweb.media_type import DICOM, DICOM_JSON
from pacs_bridge.dicomweb.multipart import new_boundary
from pacs_bridge.dicomweb.peer import RedirectError, WebAnswer, WebPeer, WebPeerError, WebRequest
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.queue import ResultFile

_CHUNK_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
#: Statuses whose body says what became of the instance.
_TOLD = (200, 202, 409)
_CONFLICT = 409
_TOO_LARGE = 413
#: Of the request as it was: another kind or syntax may do.
_OF_THIS_FORM = (400, 406, 409, 415, 422)
#: Of the service as a whole; they may be put right there, or in our configuration.
_OF_OUR_RIGHTS = (401, 403, 407)
_BUSY = (408, 425, 429, 502, 503, 504)
_STORAGE_FULL = 507
_FAULT = 500


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
    """

    def __init__(self, destination: StowDestinationConfig, data_folder: Path) -> None:
        self._destination = destination
        self._data_folder = data_folder
        self._peer = WebPeer(destination, Reason.SEND_TIMEOUT)

    def close(self) -> None:
        """End its connections; it can still be used."""
        self._peer.close()

    def send(self, candidates: Sequence[ResultFile]) -> Sent:
        """Send the first of the candidates, in the site's order, that the service takes.

        There is no negotiation: what is refused in one form is sent in the next, as stored, then
        in Explicit VR Little Endian, then the next kind.

        Raises
        ------
        UnreachableError
            ``send-timeout`` if it cannot be reached or is busy, ``not-authorised`` if it does
            not let us in, ``send-refused`` if its address takes no instances.
        TransientError
            ``send-refused`` if it failed for now, ``bad-answer`` if it does not say what became
            of the instance, ``disk-full`` or ``internal-error`` if a result cannot be read now.
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
        answers = []
        refused_kinds: set[str] = set()
        for offer in wanted:
            if offer.result.kind in refused_kinds:
                continue
            outcome = self._store(offer)
            if isinstance(outcome, str):
                answers.append(f"{outcome} for {offer.result.kind}")
                continue
            if outcome.verdict in (Verdict.SENT, Verdict.SENT_WITH_WARNING):
                return Sent(offer.result, offer.syntax, outcome.status, "")
            answers.append(f"reason {outcome.status:04X}H for {offer.result.kind}")
            if outcome.verdict is Verdict.TRY_LATER:
                raise TransientError(Reason.SEND_REFUSED, f"{self._name}: {answers[-1]}")
            if outcome.verdict is Verdict.TRY_OTHER_KIND:
                refused_kinds.add(offer.result.kind)
        raise PermanentError(Reason.SEND_REFUSED, f"{self._name}: {'; '.join(answers)}")

    def ask(self) -> StowReply:
        """Whether the service is there and lets us in, by a search for one study.

        Raises
        ------
        BridgeError
            As ``send`` of a service that cannot be reached or does not let us in.
        """
        request = WebRequest("GET", "/studies", (("limit", "1"),), {"Accept": DICOM_JSON})
        try:
            with self._peer.asked(request) as answer:
                if answer.status == 204 or (answer.status == 200 and answer.media_type.is_json):
                    return StowReply(True, "QIDO-RS answers")
                if answer.status in _OF_OUR_RIGHTS or answer.status >= _FAULT:
                    raise self._refusal(answer)
                return StowReply(False, f"GET /studies: status {answer.status}")
        except (WebPeerError, RedirectError, TransientError) as error:
            whole = _as_a_whole(error)
            if whole is error:
                raise
            raise whole from error

    @property
    def _name(self) -> str:
        return f"{self._destination.name} ({self._peer.url})"

    def _store(self, offer: Offer) -> InstanceOutcome | str:
        """One request; what became of the instance, or why this form of it was refused."""
        try:
            with (
                prepared(offer, self._data_folder, self._destination.name) as path,
                self._peer.asked(_request(path)) as answer,
            ):
                return self._outcome(answer, offer.result.sop_instance_uid)
        except (WebPeerError, RedirectError, TransientError) as error:
            whole = _as_a_whole(error)
            if whole is error:
                raise
            raise whole from error

    def _outcome(self, answer: WebAnswer, sop_instance_uid: str) -> InstanceOutcome | str:
        if answer.status in _TOLD:
            outcome = self._told(answer, sop_instance_uid)
            if outcome is not None:
                return outcome
            if answer.status != _CONFLICT:
                raise TransientError(
                    Reason.BAD_ANSWER,
                    f"{answer.where}: status {answer.status} without a word on the instance",
                )
        if answer.status in _OF_THIS_FORM:
            return f"status {answer.status}"
        raise self._refusal(answer)

    def _told(self, answer: WebAnswer, sop_instance_uid: str) -> InstanceOutcome | None:
        if not answer.media_type.is_json:
            return None
        try:
            return outcome_of(answer.json(_MAX_ANSWER_BYTES), sop_instance_uid)
        except PermanentError:  # not to be read: it may have been stored, and may be sent again
            return None

    def _refusal(self, answer: WebAnswer) -> BridgeError:
        """The error for a status that says nothing of one form of the result."""
        status = answer.status
        said = f"{answer.where}: status {status}"
        if status in _OF_OUR_RIGHTS:
            return UnreachableError(Reason.NOT_AUTHORISED, said)
        if status in _BUSY:
            return UnreachableError(Reason.SEND_TIMEOUT, said, answer.wait_s)
        if status == _TOO_LARGE:
            return PermanentError(Reason.SEND_REFUSED, said)
        if status >= _FAULT and status not in (501, 505, _STORAGE_FULL):
            return TransientError(Reason.SEND_REFUSED, said)
        return UnreachableError(Reason.SEND_REFUSED, said, answer.wait_s)


def _as_a_whole(error: WebPeerError | RedirectError | TransientError) -> BridgeError:
    """The same error, as one of the destination and not of a result, where it is that."""
    if isinstance(error, WebPeerError):
        return UnreachableError(error.reason, error.detail, error.wait_s)
    if isinstance(error, RedirectError):
        return UnreachableError(Reason.SEND_REFUSED, error.detail)
    if error.reason is Reason.NOT_AUTHORISED:  # what we should show cannot be read
        return UnreachableError(error.reason, error.detail)
    return error


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
