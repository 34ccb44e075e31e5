"""Archives that send more than anybody asked for, byte by byte over a socket."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from inference.reasons import Reason
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.errors import BridgeError
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dimse_archive import DimseArchive
from pacs_bridge.sources.remote_archive import SeriesQuery

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


@pytest.fixture
def open_archive(kept_log: Any) -> Callable[[int], DimseArchive]:
    def make(port: int) -> DimseArchive:
        table = {"name": "pacs", "kind": "dimse", "ae_title": "A", "host": "127.0.0.1"}
        config = DimseSourceConfig.model_validate_json(
            json.dumps(table | {"port": port, "response_timeout_s": 20})
        )
        return DimseArchive(config, "PACSBRIDGE", kept_log, BriefRetry(lambda seconds: None))

    return make


@pytest.fixture
def huge_pdu() -> Iterator[tuple[int, list[int]]]:
    """A port where a PDU of 768 MiB is announced, and how much of it went out each time."""
    sent: list[int] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                sent.append(0)
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(struct.pack(">BxI", 4, 0x30000000))
                    for _ in range(64):
                        sent[-1] += connection.send(bytes(1 << 20))

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1], sent
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_a_pdu_longer_than_any_is_not_read(
    huge_pdu: tuple[int, list[int]], open_archive: Callable[[int], DimseArchive]
) -> None:
    port, sent = huge_pdu
    with pytest.raises(BridgeError) as caught:
        open_archive(port).ask()
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert max(sent) < 32 << 20  # what the buffers of the sockets hold


def _flood(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    """The first part of a match, over and over, and never the last."""
    association = event.assoc
    context = event.context.context_id
    line = association.dul.socket.socket

    def pdu(data: bytes, control: int) -> bytes:
        item = struct.pack(">IBB", len(data) + 2, context, control) + data
        return struct.pack(">BxI", 4, len(item)) + item

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    uid = FIND.encode() + b"\0" * (len(FIND) % 2)
    body = (
        element(2, uid)
        + element(0x100, struct.pack("<H", 0x8020))
        + element(0x120, struct.pack("<H", event.request.MessageID))
        + element(0x800, struct.pack("<H", 1))
        + element(0x900, struct.pack("<H", 0xFF00))
    )
    with suppress(OSError):
        line.sendall(pdu(element(0, struct.pack("<I", len(body))) + body, 3))
        piece = pdu(bytes(250_000), 0)
        for _ in range(600):
            line.sendall(piece)
    yield 0x0000, None


def test_a_match_without_end_is_too_large(open_archive: Callable[[int], DimseArchive]) -> None:
    ae = AE(ae_title="A")
    ae.add_supported_context(FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, _flood)])
    try:
        with pytest.raises(BridgeError) as caught:
            list(open_archive(server.server_address[1]).find(SeriesQuery()))
        assert caught.value.reason is Reason.TOO_LARGE
    finally:
        server.shutdown()


def _two_studies(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    """Both have a series of the same UID, and one row has a UID that is none."""
    asked = event.identifier
    for study, series in (("1.100", "1.2.3"), ("1.200", "1.2.3"), ("1.200", "../x")):
        if asked.QueryRetrieveLevel == "SERIES" and asked.StudyInstanceUID != study:
            continue
        match = Dataset()
        match.QueryRetrieveLevel = asked.QueryRetrieveLevel
        match.StudyInstanceUID = study
        if asked.QueryRetrieveLevel == "SERIES":
            match.SeriesInstanceUID = series
            match.Modality = "CT"
        yield 0xFF00, match
    yield 0x0000, None


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_one_series_uid_in_two_studies_is_two_series(
    open_archive: Callable[[int], DimseArchive], kept_log: Any
) -> None:
    ae = AE(ae_title="A")
    ae.add_supported_context(FIND)
    handlers = [(evt.EVT_C_FIND, _two_studies)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        found = list(open_archive(server.server_address[1]).find(SeriesQuery()))
        named = [each.study_instance_uid for each in found if each.is_named]
        assert (named, len(found)) == (["1.100", "1.200"], 3)
        assert [event for event, _ in kept_log.lines] == ["series-without-uid"]
    finally:
        server.shutdown()
