"""The connections to one service, opened anew when the files of its certificates change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from pacs_bridge.config.web_service import WebServiceConfig
from pacs_bridge.dicomweb.paced_stream import PacedBackend
from pacs_bridge.dicomweb.paced_transport import PacedTransport
from pacs_bridge.dicomweb.tls import TlsStamp, tls_context, tls_stamp

_USER_AGENT = "pacs-bridge"


@dataclass(slots=True)
class _Opened:
    """A client, and how many use it now."""

    client: httpx.Client
    stamp: TlsStamp
    users: int = 0


class Connections:
    """The HTTP client of one service, for any number of threads.

    A connection keeps the certificates that it was opened with. So when they are renewed, all
    connections make way for new ones, each as soon as nobody uses it.

    Parameters
    ----------
    config
        Address, certificates, time limits.
    backend
        Opens them.
    """

    def __init__(self, config: WebServiceConfig, backend: PacedBackend) -> None:
        self._config = config
        self._backend = backend
        self._lock = threading.Lock()
        self._current: _Opened | None = None

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client with the certificates as they are now, for as long as the body runs.

        Raises
        ------
        TransientError
            ``not-authorised`` if a file of certificates cannot be read.
        """
        opened = self._taken()
        try:
            yield opened.client
        finally:
            with self._lock:
                opened.users -= 1
                self._close_if_left(opened)

    def close(self) -> None:
        """End them all, also under those who use them; they can still be opened anew."""
        with self._lock:
            opened, self._current = self._current, None
            if opened is not None:
                opened.client.close()

    def _taken(self) -> _Opened:
        with self._lock:
            stamp = tls_stamp(self._config)  # before the files are read, in case they change
            opened = self._current
            if opened is None or opened.stamp != stamp:
                before, opened = opened, _Opened(self._opened(), stamp)
                self._current = opened
                if before is not None:
                    self._close_if_left(before)
            opened.users += 1
            return opened

    def _close_if_left(self, opened: _Opened) -> None:
        if opened is not self._current and opened.users == 0:
            opened.client.close()

    def _opened(self) -> httpx.Client:
        return httpx.Client(
            transport=PacedTransport(self._backend, tls_context(self._config)),
            timeout=self._config.connect_timeout_s,  # the pace keeps the other limits
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
        )
