"""What is said of a connection that broke: no word of the peer, which may name a patient."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

_SAID = frozenset({"Server disconnected without sending a response."})


def fault_text(error: BaseException) -> str:
    """The type of an error, and what the system or the TLS library says of its code.

    Parameters
    ----------
    error
        Of the HTTP library; its causes are looked at, its own text is not repeated.
    """
    name = type(error).__name__
    for cause in _causes(error):
        said = _known(cause)
        if said:
            return f"{name}: {said}"
    return name


def is_tls_refusal(error: BaseException) -> bool:
    """Whether the peer ended the connection by an alert (RFC 8446 6).

    In TLS 1.3 that it believes no certificate of ours is read where an answer is due.

    Parameters
    ----------
    error
        Of the HTTP library.
    """
    return any(
        isinstance(cause, ssl.SSLError) and "ALERT" in (cause.reason or "")
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _known(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message  # the TLS library's, of our own host and its certificate
    if isinstance(error, ssl.SSLError):
        return error.reason or ""
    if isinstance(error, socket.gaierror):
        return "the name of the host has no address"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) if str(error) in _SAID else ""
