"""Requests to one DICOMweb service, and what is not followed, believed or waited for.

A redirect is followed within the service's own origin only: credentials and images go nowhere
that the configuration does not name. Nothing is decompressed, so that no answer is larger than
what came over the line. Proxies and certificates that the environment names are not used.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import httpcore
import httpx

from inference.reasons import Reason
from pacs_bridge.config.web_service import WebServiceConfig
from pacs_bridge.dicomweb.credentials import Credentials
from pacs_bridge.dicomweb.fault_text import fault_text
from pacs_bridge.dicomweb.media_type import MediaType
from pacs_bridge.dicomweb.paced_stream import Pace, PacedBackend
from pacs_bridge.dicomweb.retry_after import retry_after_s
from pacs_bridge.dicomweb.tls import tls_context
from pacs_bridge.errors import PermanentError, TransientError

_USER_AGENT = "pacs-bridge"
_MAX_REDIRECTS = 3
_MAX_CONNECTIONS = 64
_KEEP_S = 5.0
_REDIRECTS = (301, 302, 303, 307, 308)
_KEEPING_REDIRECTS = (307, 308)  # RFC 9110 15.4: the others may turn a POST into a GET
_UNAUTHORIZED = 401
_MAX_JSON_NODES = 250_000
_CODINGS = ("gzip", "x-gzip", "deflate", "br", "compress", "zstd")


class WebPeerError(TransientError):
    """The service cannot be reached, broke off, or asks to be left alone.

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


class RedirectError(PermanentError):
    """The service sends us to another origin, or in a circle."""


@dataclass(frozen=True, slots=True)
class WebRequest:
    """One request; a body is made anew for each time that it is sent."""

    method: str
    path: str  #: behind the service's address, with its slash
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterator[bytes]] | None = None


class WebAnswer:
    """An answer whose body is still on its way.

    Parameters
    ----------
    response
        Streamed.
    where
        Names service and request in errors.
    unreachable
        The code of a connection that breaks.
    """

    def __init__(self, response: httpx.Response, where: str, unreachable: Reason) -> None:
        self._response = response
        self._unreachable = unreachable
        self.where = where
        self.status = response.status_code
        self.media_type = MediaType.of(response.headers.get("Content-Type", ""))

    @property
    def content_length_bytes(self) -> int | None:
        """As it says itself, or None."""
        text = self._response.headers.get("Content-Length", "")
        return int(text[:19]) if text.isascii() and text.isdigit() else None

    @property
    def has_known_end(self) -> bool:
        """Whether a body that is cut short can be told from a whole one."""
        return self.content_length_bytes is not None or (
            "chunked" in self._response.headers.get("Transfer-Encoding", "").casefold()
        )

    @property
    def wait_s(self) -> float:
        """Seconds for which the service asks to be left alone."""
        return retry_after_s(self._response.headers.get("Retry-After"), datetime.now(UTC))

    @property
    def says_that_there_is_more(self) -> bool:
        """Whether it warns that it did not give all results (PS3.18 8.3.4.4)."""
        return any(
            text.strip().startswith("299") and "additional" in text.casefold()
            for text in self._response.headers.get_list("Warning")
        )

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises
        ------
        WebPeerError
            If the connection breaks, or the body comes too slowly.
        PermanentError
            ``bad-answer`` if it is compressed.
        """
        coding = self._response.headers.get("Content-Encoding", "identity").strip().casefold()
        if coding not in ("identity", ""):
            known = coding if coding in _CODINGS else "in an unknown way"
            raise PermanentError(
                Reason.BAD_ANSWER, f"{self.where}: compressed ({known}), unasked for"
            )
        try:
            yield from self._response.iter_raw()
        except httpx.HTTPError as error:
            raise _broken(error, self.where, self._unreachable) from None

    def whole(self, max_bytes: int) -> bytes:
        """The body, if it is not longer than that.

        Raises
        ------
        WebPeerError
            As ``chunks``.
        PermanentError
            ``bad-answer`` if it is too long, too.
        """
        too_long = PermanentError(
            Reason.BAD_ANSWER, f"{self.where}: an answer of over {max_bytes} bytes"
        )
        if (self.content_length_bytes or 0) > max_bytes:
            raise too_long
        data = bytearray()
        for chunk in self.chunks():
            data += chunk
            if len(data) > max_bytes:
                raise too_long
        return bytes(data)

    def json(self, max_bytes: int, max_nodes: int = _MAX_JSON_NODES) -> Any:
        """The body as JSON, None where there is none; raises as ``whole``.

        Parameters
        ----------
        max_bytes
            Of the body.
        max_nodes
            Of objects and lists in it; more are ``bad-answer``.
        """
        data = self.whole(max_bytes)
        if not data.strip():
            return None
        if data.count(b"{") + data.count(b"[") > max_nodes:
            raise PermanentError(Reason.BAD_ANSWER, f"{self.where}: over {max_nodes} JSON values")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:  # its text would quote the answer
            raise PermanentError(
                Reason.BAD_ANSWER, f"{self.where}: not JSON: {type(error).__name__}"
            ) from None


class WebPeer:
    """One DICOMweb service, for any number of threads.

    Parameters
    ----------
    config
        Address, credentials, certificates, time limits.
    unreachable
        The code of a service that cannot be reached.
    """

    def __init__(self, config: WebServiceConfig, unreachable: Reason) -> None:
        self._config = config
        self._unreachable = unreachable
        self._credentials = Credentials(config.auth)
        self._backend = PacedBackend()
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._config.url

    @property
    def has_renewable_credentials(self) -> bool:
        """Whether what it refuses today may be let in tomorrow."""
        return self._credentials.is_renewable

    def close(self) -> None:
        """End its connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    @contextmanager
    def asked(
        self, request: WebRequest, check: Callable[[], None] = lambda: None
    ) -> Iterator[WebAnswer]:
        """Send a request; the answer, whatever its status is. It is used up in this thread.

        Parameters
        ----------
        request
            What to send.
        check
            Called before, and about twice a second while waiting; what it raises ends the
            exchange.

        Raises
        ------
        WebPeerError
            If there is no connection, no answer in time, or the connection breaks.
        TransientError
            ``not-authorised`` if credentials or certificates cannot be read.
        RedirectError
            ``bad-answer`` if it redirects to another origin, or in a circle.
        """
        check()
        where = f"{request.method} {self._config.url}{request.path}"
        pace = Pace(self._config.response_timeout_s, check)
        with self._backend.paced(pace):
            response = self._sent(request, where)
            try:
                pace.begin_body()
                yield WebAnswer(response, where, self._unreachable)
            finally:
                response.close()

    def _sent(self, request: WebRequest, where: str) -> httpx.Response:
        """The response to the request as it is, or as redirected within the origin."""
        origin = httpx.URL(self._config.url)
        url = httpx.URL(self._config.url + request.path, params=list(request.query) or None)
        shown = self._credentials.headers()
        may_ask_again = self.has_renewable_credentials
        redirects = 0
        while True:
            response = self._send(request, url, shown, where)
            if response.status_code == _UNAUTHORIZED and may_ask_again:
                may_ask_again = False
                renewed = self._credentials.headers()
                if renewed != shown:
                    response.close()
                    shown = renewed
                    continue
            if not _is_redirect(response, request.method):
                return response
            response.close()
            url = _target(response, url)
            redirects += 1
            if not _is_same_origin(url, origin) or redirects > _MAX_REDIRECTS:
                place = "itself in a circle" if _is_same_origin(url, origin) else "another origin"
                raise RedirectError(Reason.BAD_ANSWER, f"{where}: redirects to {place}")

    def _send(
        self, request: WebRequest, url: httpx.URL, shown: Mapping[str, str], where: str
    ) -> httpx.Response:
        client = self._opened()
        made = client.build_request(
            request.method,
            url,
            headers={**request.headers, **shown},
            content=None if request.body is None else request.body(),
        )
        try:
            return client.send(made, stream=True)
        except httpx.HTTPError as error:
            raise _broken(error, where, self._unreachable) from None

    def _opened(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    transport=self._transport(),
                    timeout=self._config.connect_timeout_s,  # the pace keeps the other limits
                    trust_env=False,
                    follow_redirects=False,
                    headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
                )
            return self._client

    def _transport(self) -> httpx.HTTPTransport:
        context = tls_context(self._config)
        transport = httpx.HTTPTransport(verify=context, trust_env=False)
        transport._pool = httpcore.ConnectionPool(  # the library has no setting for the backend
            ssl_context=context,
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEP_S,
            network_backend=cast(httpcore.NetworkBackend, self._backend),
        )
        return transport


def _broken(error: httpx.HTTPError, where: str, unreachable: Reason) -> WebPeerError:
    return WebPeerError(unreachable, f"{where}: {fault_text(error)}")


def _is_redirect(response: httpx.Response, method: str) -> bool:
    followed = _REDIRECTS if method == "GET" else _KEEPING_REDIRECTS
    return response.status_code in followed and "Location" in response.headers


def _target(response: httpx.Response, url: httpx.URL) -> httpx.URL:
    with suppress(httpx.InvalidURL, ValueError):
        return url.join(response.headers["Location"])
    return httpx.URL("")


def _is_same_origin(url: httpx.URL, origin: httpx.URL) -> bool:
    def key(one: httpx.URL) -> tuple[str, str, int | None]:
        return one.scheme, one.host, one.port  # a default port is None

    return key(url) == key(origin)
