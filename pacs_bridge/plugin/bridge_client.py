"""The bridge's state and steering, asked over HTTP; standard library only."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pacs_bridge.plugin.identity import Identity
from pacs_bridge.plugin.name_lookup import NameLookup
from pacs_bridge.plugin.server import LeavingError

#: How long Orthanc's own callers are let wait for a bridge that does not answer, or drips.
_TIMEOUT_S = 3.0
#: For the look-up of its name too. A call that is still connecting cannot be cut off: it must not
#: hold up Orthanc's end.
_CONNECT_TIMEOUT_S = 1.0
_MAX_ANSWER_BYTES = 4_000_000
_UID = re.compile(r"[0-9.]{1,64}")


class BridgeUnreachableError(Exception):
    """The bridge gives no answer that can be used."""


class UnaskableError(BridgeUnreachableError):
    """Nothing can be asked of a series that has no Series Instance UID."""


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
        self._lookup = NameLookup(self._host, self._port)
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
        connection = http.client.HTTPConnection(self._host, self._port)
        connected = connection.sock = self._socket()
        try:
            connected.settimeout(_TIMEOUT_S)
            with self._lock:
                if self._is_left:
                    raise LeavingError
                self._under_way.add(connected)
            limit = threading.Timer(_TIMEOUT_S, _cut, (connected,))
            limit.daemon = True
            try:
                limit.start()
                if self._is_https:
                    connected.do_handshake()
                yield connection
            finally:
                limit.cancel()
                with self._lock:
                    self._under_way.discard(connected)
        finally:
            connection.close()

    def _socket(self) -> Any:
        """A socket to the bridge; of TLS before its handshake.

        Raises
        ------
        OSError
            If the bridge is not reached in time, the look-up of its name included.
        """
        plain = self._reached()
        if not self._is_https:
            return plain
        import ssl  # only where it is needed: Orthanc brings an OpenSSL of its own along

        try:
            context = ssl.create_default_context(cafile=self._ca_file)
            return context.wrap_socket(
                plain, server_hostname=self._host, do_handshake_on_connect=False
            )
        except BaseException:
            plain.close()
            raise

    def _reached(self) -> socket.socket:
        end_s = time.monotonic() + _CONNECT_TIMEOUT_S
        failure = OSError("its name has no address")
        for family, kind, protocol, _, address in self._lookup.addresses(_CONNECT_TIMEOUT_S):
            left_s = end_s - time.monotonic()
            if left_s <= 0.0:
                raise TimeoutError("not reached in time") from failure
            reached = socket.socket(family, kind, protocol)
            try:
                reached.settimeout(left_s)
                reached.connect(address)
                reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                reached.close()
                failure = error
                continue
            return reached
        raise failure

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
        raise UnaskableError("the series has no Series Instance UID")
    return identity.series_uid
