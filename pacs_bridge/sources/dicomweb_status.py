"""What a status of HTTP means for a search or a retrieval (RFC 9110 15, PS3.18 8.5)."""

from __future__ import annotations

from inference.reasons import Reason
from pacs_bridge.dicomweb.peer import WebAnswer, WebPeerError
from pacs_bridge.errors import BridgeError, PermanentError, TransientError

_UNAUTHORIZED = 401
_FORBIDDEN = 403
_NOT_THERE = (404, 410)
_PASSING = (408, 425, 429)
_SERVER_ERRORS = 500
_LASTING_SERVER_ERRORS = (501, 505)


def refusal(answer: WebAnswer, is_renewable: bool) -> BridgeError:
    """The error for an answer that is not the success that was asked for.

    Parameters
    ----------
    answer
        Its body is not looked at: it may quote a patient.
    is_renewable
        Whether other credentials, or a certificate, may be in their file the next time.
    """
    status = answer.status
    said = f"{answer.where}: status {status}"
    if status == _UNAUTHORIZED:
        kind = TransientError if is_renewable else PermanentError
        return kind(Reason.NOT_AUTHORISED, said)
    if status == _FORBIDDEN:  # said of a certificate too, which nothing else is said of
        kind = TransientError if answer.is_by_certificate else PermanentError
        return kind(Reason.NOT_AUTHORISED, said)
    if status in _NOT_THERE:
        return PermanentError(Reason.SOURCE_MISSING, said)
    if status in _PASSING or (status >= _SERVER_ERRORS and status not in _LASTING_SERVER_ERRORS):
        return WebPeerError(Reason.SOURCE_UNREACHABLE, said, answer.wait_s)
    if status < 400:
        return PermanentError(Reason.BAD_ANSWER, said)
    return PermanentError(Reason.SOURCE_REFUSED, said)
