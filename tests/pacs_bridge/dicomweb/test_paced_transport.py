"""The seam between the two HTTP libraries: what the one raises, the other has a name for."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpcore
import httpx
import pytest

from pacs_bridge.dicomweb.paced_stream import Pace, PacedBackend
from pacs_bridge.dicomweb.paced_transport import PacedTransport


def _faults(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for below in kind.__subclasses__() for each in _faults(below))]


@pytest.mark.parametrize(
    "fault",
    [
        *_faults(httpcore.TimeoutException),
        *_faults(httpcore.NetworkError),
        *_faults(httpcore.ProtocolError),
        httpcore.UnsupportedProtocol,
    ],
)
def test_every_fault_of_a_connection_has_a_namesake(fault: type[Exception]) -> None:
    assert issubclass(getattr(httpx, fault.__name__), httpx.TransportError)


def test_a_request_goes_out_and_its_answer_comes_in_through_the_backend() -> None:
    asked: list[bytes] = []

    def answer() -> None:
        connection, _ = listening.accept()
        with connection:
            asked.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nX-A: b\r\nContent-Length: 3\r\n\r\nabc")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        with _client() as client:
            got = client.get(f"http://127.0.0.1:{listening.getsockname()[1]}/a?b=c")
        thread.join()
    assert (got.status_code, got.headers["X-A"], got.content) == (202, "b", b"abc")
    assert asked[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")


def test_a_connection_that_is_refused_is_said_in_the_names_of_httpx() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with _client() as client, pytest.raises(httpx.ConnectError) as caught:
        client.get(f"http://127.0.0.1:{port}/")
    assert isinstance(caught.value.__cause__, httpcore.ConnectError)


def test_who_waits_for_a_connection_can_be_told_to_end() -> None:
    class Leaving(Exception):
        pass

    def leave() -> None:
        raise Leaving

    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):  # more than wait to be accepted: those after them are not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with _client(leave) as client, pytest.raises(Leaving):
            client.get(f"http://127.0.0.1:{full.getsockname()[1]}/")


def test_a_connection_that_comes_too_late_is_closed() -> None:
    ended: list[bytes] = []

    class Leaving(Exception):
        pass

    def leave() -> None:
        raise Leaving

    with socket.create_server(("127.0.0.1", 0)) as listening:
        backend = PacedBackend()

        def open_late(*_: object) -> httpcore.NetworkStream:
            time.sleep(0.8)
            return httpcore.SyncBackend().connect_tcp(*listening.getsockname())

        backend._opener.connect_tcp = open_late
        with backend.paced(Pace(60.0, leave)), pytest.raises(Leaving):
            backend.connect_tcp("127.0.0.1", 1)
        connection, _ = listening.accept()
        with connection:
            ended.append(connection.recv(1))
    assert ended == [b""]


@contextmanager
def _client(check: Callable[[], None] = lambda: None) -> Iterator[httpx.Client]:
    backend = PacedBackend()
    transport = PacedTransport(backend, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    client = httpx.Client(transport=transport, trust_env=False)
    with backend.paced(Pace(60.0, check)), client:
        yield client
