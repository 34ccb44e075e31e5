"""Requests to one DICOMweb service, and what is not followed, believed or waited for.

A redirect is followed within the service's own origin only: credentials and images go nowhere
that the configuration does not name. Nothing is decompressed, so that no answer is larger than
what came over the line. Proxies and certificates that the environment names are not used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from inference.reasons import Reason
from pacs_bridge.config.web_service import WebServiceConfig
from pacs_bridge.dicomweb.connections import Connections
from pacs_bridge.dicomweb.credentials import Credentials
from pacs_bridge.dicomweb.fault_text import fault_text, is_tls_refusal
from pacs_bridge.dicomweb.media_type import MediaType
from pacs_bridge.dicomweb.paced_stream import Pace, PacedBackend
from pacs_bridge.dicomweb.retry_after import retry_after_s
from pacs_bridge.errors import BridgeError, PermanentError, TransientError

_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_KEEPING_REDIRECTS = (307, 308)  # RFC 9110 15.4: the others may turn a POST into a GET
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_MAX_PAGE_BYTES = 64 * 1024
_MAX_JSON_NODES = 250_000
_BEFORE_THE_REQUEST = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)
_CODINGS = ("gzip", "x-gzip", "deflate", "br", "compress", "zstd")


class WebPeerError(TransientError):
    """The service cannot be reached, broke off, or asks to be left alone.

    Parameters
    ----------
    reason, detail
        As for every error.
    wait_s
        Seconds for which it asked to be left alone.
    was_sent
        Whether the request was begun, so that what happened may come of it.
    """

    def __init__(
        self, reason: Reason, detail: str, wait_s: float = 0.0, was_sent: bool = True
    ) -> None:
        super().__init__(reason, detail)
        self.wait_s = wait_s
        self.was_sent = was_sent


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
    is_by_certificate
        Whether a certificate of ours was there to be shown.
    """

    def __init__(
        self,
        response: httpx.Response,
        where: str,
        unreachable: Reason,
        is_by_certificate: bool = False,
    ) -> None:
        self._response = response
        self._unreachable = unreachable
        self.is_by_certificate = is_by_certificate
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

        What cannot be read and has no end of its own is taken for broken off, not for wrong.

        Parameters
        ----------
        max_bytes
            Of the body.
        max_nodes
            Of objects and lists in it; more are ``bad-answer``.
        """
        data = self.whole(max_bytes)
        if not data.strip() and self.has_known_end:
            return None
        if data.count(b"{") + data.count(b"[") > max_nodes:
            raise PermanentError(Reason.BAD_ANSWER, f"{self.where}: over {max_nodes} JSON values")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:  # its text would quote the answer
            if isinstance(error, ValueError) and not self.has_known_end:
                raise WebPeerError(
                    self._unreachable, f"{self.where}: the answer broke off"
                ) from None
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
        self._connections = Connections(config, self._backend)
        self._has_certificate = config.tls.certificate_file is not None

    @property
    def url(self) -> str:
        """Address of the service."""
        return self._config.url

    @property
    def has_renewable_credentials(self) -> bool:
        """Whether what it refuses today may be let in tomorrow."""
        return self._config.is_renewable

    def close(self) -> None:
        """End its connections."""
        self._connections.close()

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
            ``not-authorised`` if credentials or certificates cannot be read, or the service
            says that it does not believe ours.
        RedirectError
            ``bad-answer`` if it redirects to another origin, or in a circle.
        """
        check()
        where = f"{request.method} {self._config.url}{request.path}"
        pace = Pace(self._config.response_timeout_s, check)
        with ExitStack() as stack:
            stack.enter_context(self._backend.paced(pace))
            client = stack.enter_context(self._connections.client())
            response = self._sent(client, request, where)
            stack.callback(response.close)
            pace.begin_body()
            answer = WebAnswer(response, where, self._unreachable, self._has_certificate)
            if answer.is_by_certificate and _is_of_certificate(answer):
                raise TransientError(Reason.NOT_AUTHORISED, f"{where}: our certificate is refused")
            yield answer

    def _sent(self, client: httpx.Client, request: WebRequest, where: str) -> httpx.Response:
        """The response to the request as it is, or as redirected within the origin."""
        origin = httpx.URL(self._config.url)
        url = httpx.URL(self._config.url + request.path, params=list(request.query) or None)
        shown = self._credentials.headers()
        may_ask_again = self.has_renewable_credentials
        redirects = 0
        while True:
            made = client.build_request(
                request.method,
                url,
                headers={**request.headers, **shown},
                content=None if request.body is None else request.body(),
            )
            try:
                response = client.send(made, stream=True)
            except httpx.HTTPError as error:
                raise _broken(error, where, self._unreachable) from None
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


def _is_of_certificate(answer: WebAnswer) -> bool:
    """Whether it is the page with which nginx refuses a certificate, for which it answers 400."""
    if answer.status != _BAD_REQUEST or answer.media_type.name != "text/html":
        return False
    with suppress(BridgeError):
        return b"SSL certificate" in answer.whole(_MAX_PAGE_BYTES)
    return False


def _broken(error: httpx.HTTPError, where: str, unreachable: Reason) -> WebPeerError:
    was_sent = not isinstance(error, _BEFORE_THE_REQUEST) and not is_tls_refusal(error)
    return WebPeerError(unreachable, f"{where}: {fault_text(error)}", was_sent=was_sent)


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
