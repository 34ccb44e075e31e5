"""What is said of a connection that broke: no word of the peer, which may name a patient."""

from __future__ import annotations

import os
import socket
import ssl

_SAID = frozenset({"Server disconnected without sending a response."})


def fault_text(error: BaseException) -> str:
    """The type of an error, and what the system or the TLS library says of its code.

    Parameters
    ----------
    error
        Of the HTTP library; its causes are looked at, its own text is not repeated.
    """
    name = type(error).__name__
    cause: BaseException | None = error
    for _ in range(8):
        if cause is None:
            break
        said = _known(cause)
        if said:
            return f"{name}: {said}"
        cause = cause.__cause__ or cause.__context__
    return name


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
