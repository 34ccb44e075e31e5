"""Services that break HTTP itself: what of theirs is repeated, and for how long they are heard."""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.config.destinations import ResultKind, StowDestinationConfig
from pacs_bridge.config.sources import DicomwebSourceConfig
from pacs_bridge.deliver.stow import StowClient
from pacs_bridge.errors import BridgeError, TransientError
from pacs_bridge.queue import ResultFile
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive
from pacs_bridge.sources.remote_archive import SeriesQuery

_PATIENT = "MUSTERMANN^ERIKA"
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\n"
_DRIPS = 400


@pytest.fixture
def serve_raw() -> Iterator[Callable[..., str]]:
    """``serve_raw(answer)``: what is called with every connection, once its request began."""
    listening: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection)

    def accept(server: socket.socket, answer: Callable[[socket.socket], None]) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threads.append(threading.Thread(target=talk, args=(connection, answer)))
                threads[-1].start()

    def start(answer: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        threads.append(threading.Thread(target=accept, args=(server, answer)))
        threads[-1].start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/dicom"

    yield start
    for server in listening:
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
    for thread in threads:
        thread.join()


@pytest.fixture
def open_archive() -> Iterator[Callable[..., DicomwebArchive]]:
    opened: list[DicomwebArchive] = []

    def make(url: str, **settings: object) -> DicomwebArchive:
        table = {"name": "pacs", "kind": "dicomweb", "url": url, "response_timeout_s": 5}
        config = DicomwebSourceConfig.model_validate_json(json.dumps(table | settings))
        opened.append(DicomwebArchive(config, BriefRetry(lambda seconds: None)))
        return opened[-1]

    yield make
    for archive in opened:
        archive.close()


@pytest.mark.parametrize(
    "answer",
    [
        _JSON + b'Transfer-Encoding: chunked\r\n\r\n4\r\n[{"0' + _PATIENT.encode() + b"\r\n",
        _JSON + b"X-Patient " + _PATIENT.encode() + b" 19701224\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Type: "
        + _PATIENT.encode()
        + b"/19701224\r\nContent-Length: 2\r\n\r\n[]",
        _JSON + b"Content-Encoding: " + _PATIENT.encode() + b"\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 302 x\r\nContent-Length: 0\r\nLocation: http://"
        + _PATIENT.encode()
        + b"/\r\n\r\n",
        _PATIENT.encode() + b"\r\n\r\n",
    ],
    ids=["chunk", "header", "media-type", "coding", "redirect", "status-line"],
)
def test_nothing_that_a_service_wrote_is_repeated(
    serve_raw: Callable[..., str],
    open_archive: Callable[..., DicomwebArchive],
    answer: bytes,
) -> None:
    archive = open_archive(serve_raw(lambda connection: connection.sendall(answer)))
    with pytest.raises(BridgeError) as caught:
        list(archive.find(SeriesQuery()))
    told = caught.value.detail.casefold()
    assert "mustermann" not in told
    assert "19701224" not in told


@pytest.mark.parametrize(
    "answer",
    [
        _JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n",
        _JSON + b"Content-Length: 100\r\n\r\n[]",
        _JSON + b'Connection: close\r\n\r\n[{"00080060": ',
        _JSON + b"Connection: close\r\n\r\n",
    ],
    ids=["chunked", "length", "half", "nothing"],
)
def test_an_answer_that_ends_early_is_never_an_empty_list(
    serve_raw: Callable[..., str], open_archive: Callable[..., DicomwebArchive], answer: bytes
) -> None:
    archive = open_archive(serve_raw(lambda connection: connection.sendall(answer)))
    with pytest.raises(TransientError) as caught:
        list(archive.find(SeriesQuery()))
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE


def _drip(head: bytes, drop: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(_DRIPS):
            connection.sendall(drop)
            time.sleep(0.05)

    return answer


_DRIPPING = {
    "header": _drip(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "interim": _drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "chunk": _drip(_JSON + b"Transfer-Encoding: chunked\r\n\r\n4;a=", b"a"),
}


@pytest.mark.parametrize("name", _DRIPPING)
def test_an_answer_that_drips_without_end_is_cut_off(
    serve_raw: Callable[..., str], open_archive: Callable[..., DicomwebArchive], name: str
) -> None:
    archive = open_archive(serve_raw(_DRIPPING[name]), response_timeout_s=0.3)
    with pytest.raises(TransientError) as caught:
        archive.ask()
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "ReadTimeout" in caught.value.detail


class Leaving(Exception):
    """What a check raises to end a wait."""


def _leave_after(most: int) -> Callable[[], None]:
    checks = itertools.count(1)

    def check() -> None:
        if next(checks) > most:
            raise Leaving

    return check


@pytest.fixture(params=[*_DRIPPING, "silence"])
def waited_for(
    request: pytest.FixtureRequest,
    serve_raw: Callable[..., str],
    open_archive: Callable[..., DicomwebArchive],
) -> Iterator[DicomwebArchive]:
    """An archive whose answer does not come to an end."""
    silent = threading.Event()
    answer = _DRIPPING.get(request.param, lambda _: silent.wait(60))
    yield open_archive(serve_raw(answer), response_timeout_s=600)
    silent.set()


def test_a_check_that_raises_ends_a_wait(waited_for: DicomwebArchive, tmp_path: Path) -> None:
    with pytest.raises(Leaving):
        waited_for.fetch("1.2", "1.2.3", tmp_path / "got", _leave_after(5))


def test_a_check_that_raises_ends_a_search_that_waits(waited_for: DicomwebArchive) -> None:
    with pytest.raises(Leaving):
        list(waited_for.find(SeriesQuery(), _leave_after(3)))


@pytest.mark.parametrize("name", ["header", "interim"])
def test_a_result_is_not_held_by_an_answer_that_drips(
    serve_raw: Callable[..., str],
    tmp_path: Path,
    name: str,
) -> None:
    path = tmp_path / "result.dcm"
    path.write_bytes(bytes(1000))
    result = ResultFile(
        stack=0,
        kind=ResultKind.BINARY.value,
        path=path.name,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.66.4",
        sop_instance_uid="1.2.3",
        series_instance_uid="1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size_bytes=1000,
    )
    table = {"name": "web", "url": serve_raw(_DRIPPING[name]), "response_timeout_s": 0.3}
    client = StowClient(StowDestinationConfig.model_validate_json(json.dumps(table)), tmp_path)
    with pytest.raises(TransientError) as caught:
        client.send((result,))
    assert "ReadTimeout" in caught.value.detail
    client.close()
