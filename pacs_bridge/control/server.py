"""The HTTP side (RFC 9110, RFC 9112): small requests, short times, JSON in every answer."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from pacs_bridge.control.answers import Answer, CallFault, refusal
from pacs_bridge.control.routes import HEALTH, Whose
from pacs_bridge.control.token import Token
from pacs_bridge.errors import BridgeError
from pacs_bridge.log import Log

_MAX_BODY_BYTES = 4096
_MAX_LENGTH_DIGITS = 9
_MAX_CONNECTIONS = 16
_SILENCE_S = 5.0
#: From connecting to the end of the answer.
_WHOLE_S = 20.0
#: How long the place of a caller that is turned out may take to become free.
_TURN_OUT_S = 1.0
_BACKLOG = 64
#: Percent-encoded UTF-8 (RFC 3986 2.1).
_STUDY, _PATIENT = "Pacs-Bridge-Study", "Pacs-Bridge-Patient"

Answering = Callable[[str, str, Mapping[str, Sequence[str]], Whose], Answer]


class ControlServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers calls, each in a thread and on a connection of its own.

    Where every place is taken, the oldest of the callers that have not shown the token yet is
    turned out for a new one: who is silent, or sends a byte now and then, keeps nobody away.

    Parameters
    ----------
    address
        IP address and port to bind; port 0 takes a free one.
    token
        What every call but for the health must name.
    answer
        Gives the answer to method, path, query and whose series is meant.
    log
        Told what is refused and what goes wrong.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(self, address: tuple[str, int], token: Token, answer: Answering, log: Log) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.token = token
        self.answer = answer
        self.log = log
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._strangers: dict[socket.socket, None] = {}  # the oldest first
        super().__init__(address, _Call)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Take a connection if there is a place for it."""
        assert isinstance(request, socket.socket)
        if not self._has_place():
            self.log.warning("control-full", connections=_MAX_CONNECTIONS)
            self.shutdown_request(request)
            return
        with self._lock:
            self._strangers[request] = None
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread could be started: its place is free again
            self.know(request)
            self._places.release()
            self.log.warning("control-full", connections=_MAX_CONNECTIONS)
            self.shutdown_request(request)

    def know(self, request: socket.socket) -> None:
        """A caller has shown the token, or is gone: nobody takes its place."""
        with self._lock:
            self._strangers.pop(request, None)

    def _has_place(self) -> bool:
        """Whether there is a place; somebody may be turned out for it."""
        if self._places.acquire(blocking=False):
            return True
        with self._lock:
            oldest = next(iter(self._strangers), None)
            if oldest is None:
                return False
            del self._strangers[oldest]
        self.log.warning("control-crowded", connections=_MAX_CONNECTIONS)
        _cut(oldest)
        return self._places.acquire(timeout=_TURN_OUT_S)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Serve one connection, within its time."""
        assert isinstance(request, socket.socket)
        limit = threading.Timer(_WHOLE_S, _cut, (request,))
        limit.daemon = True
        try:
            limit.start()
            super().process_request_thread(request, client_address)
        except RuntimeError:  # no thread could be started for its limit
            self.log.warning("control-full", connections=_MAX_CONNECTIONS)
            self.shutdown_request(request)
        finally:
            limit.cancel()
            self.know(request)
            self._places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that went away is no fault of ours; anything else was answered and logged."""
        del request, client_address


def _cut(connection: socket.socket) -> None:
    """End a connection under the hands of the thread that serves it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _Call(BaseHTTPRequestHandler):
    """One call; HTTP/1.0, so that the connection ends with it."""

    server: ControlServer
    timeout = _SILENCE_S
    server_version = "pacs-bridge"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer GET."""
        self._serve()

    def do_POST(self) -> None:
        """Answer POST."""
        self._serve()

    def _serve(self) -> None:
        try:
            answer = self._answer()
        except BridgeError as error:
            self.server.log.warning("control-failed", reason=error.reason, detail=error.detail)
            answer = refusal(HTTPStatus.SERVICE_UNAVAILABLE, error.reason, error.detail)
        except OSError:  # the peer went away
            raise
        except Exception as error:
            self.server.log.fault("control-fault", error)
            body = {"reason": "internal-error", "detail": "a fault of this software"}
            answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, body)
        self._send(answer)

    def _answer(self) -> Answer:
        target = urlsplit(self.path)
        if target.path == HEALTH and self.command == "GET":
            return Answer(HTTPStatus.OK, {"status": "ok"})
        if not self.server.token.admits(self.headers.get("Authorization")):
            self.server.log.warning("control-refused", address=self.client_address[0])
            return refusal(HTTPStatus.UNAUTHORIZED, CallFault.TOKEN, "a bearer token is needed")
        self.server.know(self.connection)
        if (body_fault := self._read_body()) is not None:
            return body_fault
        query = parse_qs(target.query, keep_blank_values=True, max_num_fields=20)
        return self.server.answer(self.command, target.path, query, self._whose())

    def _whose(self) -> Whose:
        """In headers, which no log of a proxy tells."""
        study, patient = (self.headers.get(name) for name in (_STUDY, _PATIENT))
        return Whose(
            None if study is None else unquote(study),
            None if patient is None else unquote(patient),
        )

    def _read_body(self) -> Answer | None:
        """Take the body off the line; no call needs one."""
        if "Transfer-Encoding" in self.headers:
            detail = "a body comes with its length"
            return refusal(HTTPStatus.LENGTH_REQUIRED, CallFault.BAD_REQUEST, detail)
        text = self.headers.get("Content-Length", "0")
        if not (text.isascii() and text.isdigit()):
            detail = "Content-Length is no number"
            return refusal(HTTPStatus.BAD_REQUEST, CallFault.BAD_REQUEST, detail)
        if len(text) > _MAX_LENGTH_DIGITS or int(text) > _MAX_BODY_BYTES:
            detail = f"a body has at most {_MAX_BODY_BYTES} bytes"
            return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, CallFault.TOO_LARGE, detail)
        self.rfile.read(int(text))
        return None

    def _send(self, answer: Answer) -> None:
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself, as JSON too."""
        del message, explain
        status = HTTPStatus(code)
        known = {
            HTTPStatus.NOT_IMPLEMENTED: (HTTPStatus.METHOD_NOT_ALLOWED, CallFault.METHOD),
            HTTPStatus.REQUEST_URI_TOO_LONG: (status, CallFault.TOO_LARGE),
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: (status, CallFault.TOO_LARGE),
        }
        status, fault = known.get(status, (status, CallFault.BAD_REQUEST))
        self.close_connection = True
        self.request_version = self.protocol_version  # a line that is no request has none
        self._send(refusal(status, fault, status.phrase.lower()))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a request line holds UIDs."""
        del format, args
