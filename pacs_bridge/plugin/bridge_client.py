"""The bridge's state and steering, asked over HTTP; standard library only."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pacs_bridge.plugin.identity import Identity
from pacs_bridge.plugin.server import LeavingError

#: How long Orthanc's own callers are let wait for a bridge that does not answer, or drips.
_TIMEOUT_S = 3.0
#: A call that is still connecting cannot be cut off: it must not hold up Orthanc's end.
_CONNECT_TIMEOUT_S = 1.0
_MAX_ANSWER_BYTES = 4_000_000
_UID = re.compile(r"[0-9.]{1,64}")


class BridgeUnreachableError(Exception):
    """The bridge gives no answer that can be used."""


@dataclass(frozen=True, slots=True)
class BridgeAnswer:
    """A status and what was said with it."""

    status: int
    body: dict[str, Any]


class BridgeClient:
    """Calls the bridge; threads may share it. Once left, calls raise ``LeavingError``.

    Parameters
    ----------
    url
        ``http://HOST:PORT``, or ``https``.
    token_file
        Holds the bridge's token; read at each call, so that it may change.
    ca_file
        Holds the certificates that an https bridge is trusted by; None: those of the system.
    """

    def __init__(self, url: str, token_file: Path | None, ca_file: Path | None = None) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._is_https = parts.scheme == "https"
        self._token_file = token_file
        self._ca_file = ca_file
        self._lock = threading.Lock()
        self._under_way: set[socket.socket] = set()
        self._is_left = False

    def leave(self) -> None:
        """Cut off what is under way, and call no more."""
        with self._lock:
            self._is_left = True
            for connected in self._under_way:
                _cut(connected)

    def is_alive(self) -> bool:
        """Whether a bridge answers there."""
        try:
            return self._call("GET", "/health", with_token=False).status == 200
        except BridgeUnreachableError:
            return False

    def status(self) -> BridgeAnswer:
        """How the whole bridge stands. Raises ``BridgeUnreachableError``."""
        return self._call("GET", "/status")

    def series(self, identity: Identity) -> BridgeAnswer:
        """Where a series stands. Raises ``BridgeUnreachableError``."""
        return self._call("GET", f"/series/{_checked(identity)}", identity=identity)

    def steer(self, identity: Identity, action: str) -> BridgeAnswer:
        """retry, repeat or force a series. Raises ``BridgeUnreachableError``."""
        return self._call("POST", f"/series/{_checked(identity)}/{action}", identity=identity)

    def expect(
        self, identity: Identity, instance_count: int, is_backlog: bool = False
    ) -> BridgeAnswer:
        """Say how many instances a series has, and whether clinical work goes before it.

        Raises ``BridgeUnreachableError``.
        """
        path = f"/series/{_checked(identity)}/expect?instances={instance_count}"
        if is_backlog:
            path += "&priority=archive"
        return self._call("POST", path, identity=identity)

    def _call(
        self, method: str, path: str, with_token: bool = True, identity: Identity | None = None
    ) -> BridgeAnswer:
        if self._is_left:
            raise LeavingError
        try:
            headers = {"Authorization": f"Bearer {self._token()}"} if with_token else {}
            if identity is not None:
                headers["Pacs-Bridge-Study"] = quote(identity.study_uid)
                headers["Pacs-Bridge-Patient"] = quote(identity.patient_id)
            with self._connected() as connection:
                connection.request(method, path, headers=headers)
                answer = connection.getresponse()
                body = json.loads(answer.read(_MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError, RuntimeError) as error:
            if self._is_left:
                raise LeavingError from error
            where = f"{self._host}:{self._port}"
            raise BridgeUnreachableError(f"{where}: {type(error).__name__}") from error
        if not isinstance(body, dict):
            raise BridgeUnreachableError("the answer is no object")
        return BridgeAnswer(answer.status, body)

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection that ``leave`` cuts off."""
        connection = self._connection()
        try:
            connection.connect()
            connected: socket.socket = connection.sock
            connected.settimeout(_TIMEOUT_S)
            with self._lock:
                if self._is_left:
                    raise LeavingError
                self._under_way.add(connected)
            limit = threading.Timer(_TIMEOUT_S, _cut, (connected,))
            limit.daemon = True
            try:
                limit.start()
                yield connection
            finally:
                limit.cancel()
                with self._lock:
                    self._under_way.discard(connected)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not self._is_https:
            return http.client.HTTPConnection(self._host, self._port, timeout=_CONNECT_TIMEOUT_S)
        import ssl  # only where it is needed: Orthanc brings an OpenSSL of its own along

        context = ssl.create_default_context(cafile=self._ca_file)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=_CONNECT_TIMEOUT_S, context=context
        )

    def _token(self) -> str:
        if self._token_file is None:
            return ""
        try:
            return self._token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            detail = f"{self._token_file}: {type(error).__name__}"
            raise BridgeUnreachableError(detail) from error


def _cut(connected: socket.socket) -> None:
    """End a connection under the hands of the thread that waits for it."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _checked(identity: Identity) -> str:
    if not _UID.fullmatch(identity.series_uid):
        raise BridgeUnreachableError("the series has no Series Instance UID")
    return identity.series_uid
