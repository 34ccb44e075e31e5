"""How requests reach connections that keep to a pace.

httpx has no setting for what opens its connections. It lets others bring a whole transport,
though, and httpcore, which does the HTTP underneath it, takes a network backend. Everything here
is the public interface of the two; their base classes are the way in which httpx knows a
transport and a stream.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import httpcore
import httpx

from pacs_bridge.dicomweb.paced_stream import PacedBackend

_MAX_CONNECTIONS = 64
_KEEP_S = 5.0
#: Each has a namesake in httpx.
_FAULTS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class PacedTransport(httpx.BaseTransport):
    """Sends the requests of a client over connections of a backend.

    Parameters
    ----------
    backend
        Opens them.
    context
        For TLS.
    """

    def __init__(self, backend: PacedBackend, context: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEP_S,
            network_backend=cast(httpcore.NetworkBackend, backend),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See ``httpx.BaseTransport``: the head of the answer, its body still on its way."""
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=cast(httpx.SyncByteStream, request.stream),
            extensions=request.extensions,
        )
        with _as_of_httpx():
            answer = self._pool.handle_request(sent)
        return httpx.Response(
            status_code=answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """End all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """The body of an answer."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _as_of_httpx():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _as_of_httpx() -> Iterator[None]:
    """Raise what went wrong as httpx names it; the error itself is its cause."""
    try:
        yield
    except _FAULTS as error:
        kind = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise kind(str(error)) from error
