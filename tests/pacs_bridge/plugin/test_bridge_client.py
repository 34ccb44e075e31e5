"""Calling the bridge: how it is reached, and that nobody waits for long where it is not."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.plugin import name_lookup
from pacs_bridge.plugin.bridge_client import BridgeClient, BridgeUnreachableError
from pacs_bridge.plugin.name_lookup import NameLookup

CERTIFICATES = Path(__file__).parents[1] / "sources" / "certificates"


class _Call(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        return


@contextmanager
def _serving(certificate: str = "") -> Iterator[int]:
    """The port of a bridge, behind TLS where a certificate is named."""
    with HTTPServer(("127.0.0.1", 0), _Call) as server:
        server.handle_error = lambda *_: None  # type: ignore[assignment]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATES / f"{certificate}.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_each_address_of_a_name_is_tried() -> None:
    with _serving() as port:  # not at ::1, which may be the first address of localhost
        assert BridgeClient(f"http://localhost:{port}", None).is_alive()
    assert not BridgeClient(f"http://localhost:{port}", None).is_alive()


@pytest.mark.parametrize(
    ("certificate", "is_trusted", "is_alive"),
    [("server", True, True), ("server", False, False), ("other-host", True, False)],
)
def test_a_bridge_behind_tls_is_known_by_its_certificate(
    certificate: str, is_trusted: bool, is_alive: bool
) -> None:
    ca_file = CERTIFICATES / "ca.pem" if is_trusted else None
    with _serving(certificate) as port:
        client = BridgeClient(f"https://127.0.0.1:{port}", None, ca_file)
        assert client.is_alive() is is_alive


def test_a_handshake_that_is_never_answered_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs_bridge.plugin.bridge_client._TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        assert not BridgeClient(url, None).is_alive()


@pytest.fixture
def held_lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, list[str]]]:
    """A name server that is silent until the event is set, and what it was asked."""
    may_answer, asked = threading.Event(), []
    ask = name_lookup._asked

    def ask_later(host: str, port: int | None) -> tuple[name_lookup.Address, ...]:
        asked.append(host)
        assert may_answer.wait(60)
        return ask(host, port)

    monkeypatch.setattr(name_lookup, "_asked", ask_later)
    yield may_answer, asked
    may_answer.set()


def test_a_name_server_that_is_silent_holds_nobody_up(
    held_lookups: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_bridge.plugin.bridge_client._CONNECT_TIMEOUT_S", 0.05)
    client = BridgeClient("http://localhost:1", None)
    with pytest.raises(BridgeUnreachableError, match="TimeoutError"):
        client.status()


def test_those_who_ask_for_a_name_at_the_same_time_wait_for_one_answer(
    held_lookups: Any, wait_for: Any
) -> None:
    may_answer, asked = held_lookups
    lookup = NameLookup("localhost", 80)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            lookup.addresses(0.01)
    assert asked == ["localhost"]
    may_answer.set()
    wait_for(lambda: lookup._pending is None)
    assert any(address[4][0] == "127.0.0.1" for address in lookup.addresses(60))
    assert asked == ["localhost"] * 2


def test_a_look_up_that_cannot_begin_is_an_error_and_the_next_one_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookup = NameLookup("localhost", 80)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="can't start new thread"):
            lookup.addresses(60)
    assert any(address[4][0] == "127.0.0.1" for address in lookup.addresses(60))


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a..b"])
def test_a_name_that_nobody_knows_is_an_error_of_the_system(name: str) -> None:
    with pytest.raises(OSError, match=r".+"):
        NameLookup(name, 80).addresses(60)
