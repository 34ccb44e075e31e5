"""Peers that stop in the middle of a PDU which the library reads without a limit of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF

from inference.reasons import Reason
from pacs_bridge.config.destinations import ResultKind, StoreDestinationConfig
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.deliver import echo, line, store_scu
from pacs_bridge.deliver.store_scu import StoreScu, UnreachableError
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.queue import ResultFile
from pacs_bridge.sources import dimse_line
from pacs_bridge.sources.dimse_line import ArchiveLine, Proposal

BINARY = "1.2.840.10008.5.1.4.1.1.66.4"
#: The head of a PDU of 4096 bytes: A-ASSOCIATE-AC, P-DATA-TF (PS3.8 9.3).
ACCEPT_BEGUN, DATA_BEGUN = bytes([2, 0, 0, 0, 16, 0]), bytes([4, 0, 0, 0, 16, 0])


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    apply_library_settings()
    monkeypatch.setattr(store_scu, "_NEGOTIATION_TIMEOUT_S", 0.5)
    monkeypatch.setattr(dimse_line, "_NEGOTIATION_TIMEOUT_S", 0.5)
    monkeypatch.setattr(echo, "_TIMEOUT_S", 0.5)
    monkeypatch.setattr(line, "_FAREWELL_S", 0.5)


@contextmanager
def _beginning(answer: bytes, drips: bool) -> Iterator[int]:
    """A peer that reads one request, and begins an answer to it that does not end."""
    leave = threading.Event()

    def respond() -> None:
        near, _ = listening.accept()
        with near, suppress(OSError):
            near.recv(65536)
            near.sendall(answer)
            while not leave.wait(0.05):
                if drips:
                    near.sendall(b"\0")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = threading.Thread(target=respond)
        peer.start()
        yield listening.getsockname()[1]
        leave.set()
        peer.join()


def _ended(action: Callable[[], object]) -> BridgeError | None:
    """How the action failed, if it ended at all."""
    failed: list[BridgeError] = []

    def run() -> None:
        try:
            action()
        except BridgeError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    return failed[0] if failed else None


def _destination(port: int) -> StoreDestinationConfig:
    table = {"name": "pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    limits = {"connect_timeout_s": 0.5, "response_timeout_s": 1.0}
    return StoreDestinationConfig.model_validate_json(json.dumps(table | limits))


def _source(port: int) -> DimseSourceConfig:
    table = {"name": "pacs", "kind": "dimse", "ae_title": "ARCHIVE", "host": "127.0.0.1"}
    limits = {"port": port, "connect_timeout_s": 0.5, "response_timeout_s": 1.0}
    return DimseSourceConfig.model_validate_json(json.dumps(table | limits))


@pytest.fixture
def result(write_seg: Callable[..., ResultFile], tmp_path: Path) -> ResultFile:
    labels = np.zeros((1, 8, 8), dtype=np.uint8)
    return write_seg(tmp_path / "binary.dcm", ResultKind.BINARY, labels)


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
def test_an_answer_that_does_not_end_holds_no_sender(
    result: ResultFile, tmp_path: Path, drips: bool
) -> None:
    with _beginning(ACCEPT_BEGUN, drips) as port:
        scu = StoreScu(_destination(port), "PACSBRIDGE", tmp_path)
        error = _ended(lambda: scu.send((result,)))
    assert isinstance(error, UnreachableError)
    assert error.reason is Reason.SEND_TIMEOUT


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
def test_an_answer_that_does_not_end_holds_no_check_of_a_destination(drips: bool) -> None:
    with _beginning(ACCEPT_BEGUN, drips) as port:
        error = _ended(lambda: echo.ask(_destination(port), "PACSBRIDGE"))
    assert isinstance(error, UnreachableError)
    assert error.reason is Reason.SEND_TIMEOUT


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
def test_an_answer_that_does_not_end_holds_no_request_to_an_archive(drips: bool) -> None:
    proposal = Proposal((build_context(BINARY, ExplicitVRLittleEndian),), needed=BINARY)
    with _beginning(ACCEPT_BEGUN, drips) as port:
        archive = ArchiveLine(_source(port), "PACSBRIDGE")
        error = _ended(lambda: archive.open(proposal))
        archive.close()
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_UNREACHABLE


@contextmanager
def _archive_that_goes_on(status: int) -> Iterator[int]:
    """A Storage SCP that begins another PDU behind its response, and reads no more."""
    leave = threading.Event()

    def go_on(event: evt.Event) -> None:
        if isinstance(event.pdu, P_DATA_TF):
            event.assoc.dul.socket.socket.sendall(DATA_BEGUN)
            leave.wait(30)

    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(BINARY)
    handlers = [(evt.EVT_C_STORE, lambda _event: status), (evt.EVT_PDU_SENT, go_on)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    yield server.server_address[1]
    leave.set()
    server.shutdown()


def test_a_peer_that_goes_on_behind_its_refusal_holds_no_sender(
    result: ResultFile, tmp_path: Path
) -> None:
    with _archive_that_goes_on(status=0xC000) as port:
        scu = StoreScu(_destination(port), "PACSBRIDGE", tmp_path)
        error = _ended(lambda: scu.send((result,)))
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.SEND_REFUSED


def test_a_peer_that_goes_on_holds_no_request_that_is_given_up(
    result: ResultFile, tmp_path: Path
) -> None:
    proposal = Proposal((build_context(BINARY, ExplicitVRLittleEndian),), needed=BINARY)
    with _archive_that_goes_on(status=0) as port:
        archive = ArchiveLine(_source(port), "PACSBRIDGE")
        archive.open(proposal)

        def give_up() -> None:
            with archive.request(_storing(tmp_path / result.path), lambda: None) as responses:
                next(responses)
            archive.abort()
            raise TransientError(Reason.SOURCE_UNREACHABLE, "given up")

        error = _ended(give_up)
    assert error is not None
    assert error.detail == "given up"


def _storing(path: Path) -> Callable[[Association], Iterator[tuple[Dataset, None]]]:
    def send(association: Association) -> Iterator[tuple[Dataset, None]]:
        yield association.send_c_store(path), None

    return send
