"""Sending a result over real associations, to peers of every temper."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from inference.reasons import Reason
from pacs_bridge.config.destinations import ResultKind, StoreDestinationConfig
from pacs_bridge.deliver import store_scu
from pacs_bridge.deliver.negotiation import Syntax
from pacs_bridge.deliver.store_scu import StoreScu, UnreachableError
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.queue import ResultFile


@pytest.fixture(autouse=True)
def _settings() -> None:
    apply_library_settings()


BINARY = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


@pytest.fixture
def labels(rng: np.random.Generator) -> np.ndarray:
    return (rng.random((3, 64, 64)) > 0.9).astype(np.uint8)


@pytest.fixture
def results(
    write_seg: Callable[..., ResultFile], tmp_path: Path, labels: np.ndarray
) -> tuple[ResultFile, ...]:
    return tuple(write_seg(tmp_path / f"{kind.value}.dcm", kind, labels) for kind in ResultKind)


@dataclass
class Archive:
    """A Storage SCP that answers as it is told and keeps what it gets."""

    port: int = 0
    aborts: bool = False
    statuses: list[int] = field(default_factory=list)  # of each coming request, then 0000
    received: list[Dataset] = field(default_factory=list)
    largest_pdu_bytes: int = 0

    def note(self, event: evt.Event) -> None:
        if type(event.pdu).__name__ == "P_DATA_TF":
            self.largest_pdu_bytes = max(self.largest_pdu_bytes, event.pdu.pdu_length + 6)

    def store(self, event: evt.Event) -> int:
        if self.aborts:
            event.assoc.abort()
            return 0x0110
        ds = event.dataset
        ds.file_meta = event.file_meta
        self.received.append(ds)
        return self.statuses.pop(0) if self.statuses else 0x0000


@pytest.fixture(scope="module")
def closing() -> Iterator[ThreadPoolExecutor]:
    """Servers take half a second to stop: not one after the other."""
    with ThreadPoolExecutor() as executor:
        yield executor


@pytest.fixture
def archive(closing: ThreadPoolExecutor) -> Iterator[Callable[..., Archive]]:
    servers = []

    def start(contexts: dict[str, list[str]], **settings: object) -> Archive:
        made = Archive()
        ae = AE(ae_title="ARCHIVE")
        for name, value in settings.items():
            setattr(ae, name, value)
        for sop_class, syntaxes in contexts.items():
            ae.add_supported_context(sop_class, syntaxes)
        server = ae.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_C_STORE, made.store), (evt.EVT_PDU_RECV, made.note)],
        )
        made.port = server.server_address[1]
        servers.append(server)
        return made

    yield start
    for server in servers:
        closing.submit(server.shutdown)


def _scu(folder: Path, port: int, **settings: object) -> StoreScu:
    destination = StoreDestinationConfig.model_validate_json(
        json.dumps(
            {"name": "pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port} | settings
        )
    )
    return StoreScu(destination, "PACSBRIDGE", folder)


def test_a_peer_that_takes_everything_gets_the_preferred_kind_as_it_is_on_disk(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({LABELMAP: [*Syntax], BINARY: [*Syntax]})

    sent = _scu(tmp_path, peer.port).send(results)

    assert (sent.result.kind, sent.syntax, sent.status) == ("labelmap", Syntax.RLE, 0)
    assert peer.received[0].SOPInstanceUID == sent.result.sop_instance_uid
    assert peer.received[0].file_meta.TransferSyntaxUID == RLELossless
    assert len(peer.received) == 1


def test_the_order_of_kinds_is_the_site_s(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({LABELMAP: [*Syntax], BINARY: [*Syntax]})
    assert _scu(tmp_path, peer.port, kinds=["binary"]).send(results).result.kind == "binary"


def test_a_peer_that_refuses_label_maps_gets_binary(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({BINARY: [Syntax.EXPLICIT_LITTLE]})
    assert _scu(tmp_path, peer.port).send(results).result.kind == "binary"
    assert peer.received[0].SOPClassUID == BINARY


def test_a_peer_that_takes_label_maps_in_negotiation_only_gets_binary(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({LABELMAP: [*Syntax], BINARY: [*Syntax]})
    peer.statuses = [0x0122]
    assert _scu(tmp_path, peer.port).send(results).result.kind == "binary"


@pytest.mark.parametrize("syntax", [Syntax.EXPLICIT_LITTLE, Syntax.IMPLICIT_LITTLE])
def test_a_peer_without_rle_gets_the_same_labels_decompressed_under_the_same_uid(
    archive: Callable[..., Archive],
    results: tuple[ResultFile, ...],
    labels: np.ndarray,
    tmp_path: Path,
    syntax: Syntax,
) -> None:
    peer = archive({LABELMAP: [syntax]})

    sent = _scu(tmp_path, peer.port).send(results)

    got = peer.received[0]
    assert (sent.result.kind, sent.syntax) == ("labelmap", syntax)
    assert got.SOPInstanceUID == sent.result.sop_instance_uid
    np.testing.assert_array_equal(got.pixel_array, labels)
    assert {path.name for path in tmp_path.iterdir()} == {"binary.dcm", "labelmap.dcm"}


def test_binary_is_deflated_only_where_the_site_allows_it(
    archive: Callable[..., Archive],
    results: tuple[ResultFile, ...],
    labels: np.ndarray,
    tmp_path: Path,
) -> None:
    peer = archive({BINARY: [Syntax.EXPLICIT_LITTLE, Syntax.DEFLATED_EXPLICIT_LITTLE]})

    plain = _scu(tmp_path, peer.port).send(results)
    deflated = _scu(tmp_path, peer.port, deflated=True).send(results)

    assert plain.syntax is Syntax.EXPLICIT_LITTLE
    assert deflated.syntax is Syntax.DEFLATED_EXPLICIT_LITTLE
    assert peer.received[0].PixelData == peer.received[1].PixelData
    np.testing.assert_array_equal(peer.received[1].pixel_array, labels)


def test_a_peer_without_any_segmentation_is_a_refusal_that_names_the_kinds(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({"1.2.840.10008.5.1.4.1.1.2": [Syntax.EXPLICIT_LITTLE]})
    with pytest.raises(PermanentError, match="labelmap, binary") as refused:
        _scu(tmp_path, peer.port).send(results)
    assert refused.value.reason is Reason.SEND_REFUSED


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0111])
def test_a_warning_or_a_duplicate_means_that_the_peer_has_it(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path, status: int
) -> None:
    peer = archive({LABELMAP: [*Syntax]})
    peer.statuses = [status]
    assert _scu(tmp_path, peer.port).send(results).status == status


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110])
def test_a_peer_out_of_resources_is_tried_again(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path, status: int
) -> None:
    peer = archive({LABELMAP: [*Syntax]})
    peer.statuses = [status]
    with pytest.raises(TransientError, match=f"{status:04X}H") as later:
        _scu(tmp_path, peer.port).send(results)
    assert later.value.reason is Reason.SEND_REFUSED


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0117, 0x0124])
def test_a_refused_object_is_not_tried_again(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path, status: int
) -> None:
    peer = archive({LABELMAP: [*Syntax], BINARY: [*Syntax]})
    peer.statuses = [status]
    with pytest.raises(PermanentError, match=f"{status:04X}H"):
        _scu(tmp_path, peer.port).send(results)
    assert len(peer.received) == 1


def test_a_wrong_called_title_is_said_and_may_be_put_right_by_the_peer(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({LABELMAP: [*Syntax]}, require_called_aet=True)
    with pytest.raises(UnreachableError, match="Called AE title not recognised") as rejected:
        _scu(tmp_path, peer.port, ae_title="OTHER").send(results)
    assert rejected.value.reason is Reason.SEND_REFUSED


def test_a_result_that_is_not_on_disk_is_said(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({LABELMAP: [*Syntax]})
    for result in results:
        (tmp_path / result.path).unlink()
    with pytest.raises(PermanentError) as missing:
        _scu(tmp_path, peer.port).send(results)
    assert missing.value.reason is Reason.SOURCE_MISSING


@pytest.mark.parametrize("size_change", [0, -1])
def test_a_result_that_changed_on_disk_is_not_sent(
    archive: Callable[..., Archive],
    results: tuple[ResultFile, ...],
    tmp_path: Path,
    size_change: int,
) -> None:
    peer = archive({LABELMAP: [*Syntax]})
    for result in results:
        path = tmp_path / result.path
        data = bytearray(path.read_bytes())
        data[-20] ^= 1  # a voxel: the data set can be read as before
        path.write_bytes(data[: len(data) + size_change])
    with pytest.raises(PermanentError) as changed:
        _scu(tmp_path, peer.port).send(results)
    assert changed.value.reason is Reason.SOURCE_MISSING
    assert not peer.received


def test_a_result_that_cannot_be_read_now_is_tried_again(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({LABELMAP: [*Syntax]})
    for result in results:
        (tmp_path / result.path).unlink()
        (tmp_path / result.path).mkdir()  # as good as an error of the disk
    with pytest.raises(TransientError) as unreadable:
        _scu(tmp_path, peer.port).send(results)
    assert not isinstance(unreadable.value, UnreachableError)


def test_a_disk_without_room_for_another_syntax_is_no_fault_of_the_peer(
    archive: Callable[..., Archive],
    results: tuple[ResultFile, ...],
    tmp_path: Path,
    small_files_only: Callable[[int], AbstractContextManager[None]],
) -> None:
    peer = archive({LABELMAP: [Syntax.IMPLICIT_LITTLE]})
    with small_files_only(4096), pytest.raises(TransientError) as full:
        _scu(tmp_path, peer.port).send(results)
    assert full.value.reason is Reason.DISK_FULL
    assert not isinstance(full.value, UnreachableError)
    assert {path.name for path in tmp_path.iterdir()} == {"binary.dcm", "labelmap.dcm"}


def test_nobody_at_the_port_is_unreachable(results: tuple[ResultFile, ...], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(UnreachableError) as unreachable:
        _scu(tmp_path, port).send(results)
    assert unreachable.value.reason is Reason.SEND_TIMEOUT


def test_a_host_without_an_address_is_unreachable(
    results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    with pytest.raises(UnreachableError) as unreachable:
        _scu(tmp_path, 104, host="archive.invalid").send(results)
    assert unreachable.value.reason is Reason.SEND_TIMEOUT


@contextmanager
def _relay(port: int, forward_bytes: int, then_close: bool) -> Iterator[int]:
    """A line to the archive that carries so many bytes towards it, then closes or goes dead."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def carry() -> None:
        with listener:
            near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        sockets.extend((near, far))
        back = threading.Thread(target=_copy, args=(far, near))
        back.start()
        threads.append(back)
        left = forward_bytes
        while left and (data := near.recv(min(left, 65536))):
            far.sendall(data)
            left -= len(data)
        if then_close:
            near.shutdown(socket.SHUT_RDWR)
            far.shutdown(socket.SHUT_RDWR)
        else:
            stop.wait(60)

    carrier = threading.Thread(target=carry)
    carrier.start()
    yield listener.getsockname()[1]
    stop.set()
    carrier.join()
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for each in sockets:
        each.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass


@pytest.mark.parametrize("then_close", [True, False], ids=["closes", "goes-dead"])
@pytest.mark.parametrize("forward_bytes", [2_000, 200_000])
def test_a_line_that_breaks_or_goes_dead_is_tried_again(
    archive: Callable[..., Archive],
    write_seg: Callable[..., ResultFile],
    tmp_path: Path,
    rng: np.random.Generator,
    then_close: bool,
    forward_bytes: int,
) -> None:
    noise = rng.integers(0, 2, (64, 512, 512)).astype(np.uint8)  # larger than socket buffers
    result = write_seg(tmp_path / "binary.dcm", ResultKind.BINARY, noise)
    peer = archive({BINARY: [*Syntax]})
    with (
        _relay(peer.port, forward_bytes, then_close) as port,
        pytest.raises(TransientError) as broken,
    ):
        _scu(tmp_path, port, response_timeout_s=1.0).send((result,))
    assert broken.value.reason is Reason.SEND_TIMEOUT
    assert not peer.received


def test_a_peer_that_aborts_is_tried_again(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({LABELMAP: [*Syntax]})
    peer.aborts = True
    with pytest.raises(TransientError) as aborted:
        _scu(tmp_path, peer.port).send(results)
    assert aborted.value.reason is Reason.SEND_TIMEOUT


def test_a_peer_that_accepts_and_aborts_in_one_breath_is_tried_again(
    results: tuple[ResultFile, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The abort is read before the sender listens, and its reactor is late to hear of it."""
    initialise, keep = Association.__init__, store_scu.keep_responses

    def with_late_reactor(self: Association, *arguments: object, **options: object) -> None:
        initialise(self, *arguments, **options)
        self._reactor_checkpoint.clear()

    def keep_late(association: Association) -> None:
        association.dul.join(20)
        assert not association.dul.is_alive()
        keep(association)

    monkeypatch.setattr(Association, "__init__", with_late_reactor)
    monkeypatch.setattr(store_scu, "keep_responses", keep_late)
    failed: list[Exception] = []

    def send(port: int) -> None:
        try:
            _scu(tmp_path, port, response_timeout_s=1.0).send(results)
        except TransientError as error:
            failed.append(error)

    with _accepting_and_aborting() as port:
        sender = threading.Thread(target=send, args=(port,), daemon=True)
        sender.start()
        sender.join(20)
    assert not sender.is_alive()
    assert [error.reason for error in failed] == [Reason.SEND_TIMEOUT]


@contextmanager
def _accepting_and_aborting() -> Iterator[int]:
    """A peer that sends A-ASSOCIATE-AC and A-ABORT in one segment, to one caller."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener:
            near, _ = listener.accept()
        with near:
            head = near.recv(6, socket.MSG_WAITALL)
            rest = near.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)
            request = A_ASSOCIATE_RQ()
            request.decode(head + rest)
            primitive = request.to_primitive()
            offered = primitive.presentation_context_definition_list
            for context in offered:
                context.transfer_syntax = context.transfer_syntax[:1]
                context.result = 0
            primitive.presentation_context_definition_list = []
            primitive.presentation_context_definition_results_list = offered
            primitive.result, primitive.result_source = 0, 1
            accept, abort = A_ASSOCIATE_AC(), A_ABORT_RQ()
            accept.from_primitive(primitive)
            abort.source, abort.reason_diagnostic = 0, 0
            near.sendall(accept.encode() + abort.encode())
            with suppress(OSError):
                while near.recv(65536):
                    pass

    peer = threading.Thread(target=answer, daemon=True)
    peer.start()
    yield listener.getsockname()[1]
    peer.join(20)


@pytest.mark.parametrize("limit_bytes", [0, 16_384, 4_000_000])
def test_a_peer_s_limit_of_pdus_is_kept_and_no_limit_is_not_taken_at_its_word(
    archive: Callable[..., Archive],
    write_seg: Callable[..., ResultFile],
    tmp_path: Path,
    rng: np.random.Generator,
    limit_bytes: int,
) -> None:
    noise = rng.integers(0, 2, (96, 512, 512)).astype(np.uint8)  # 3 MiB
    result = write_seg(tmp_path / "binary.dcm", ResultKind.BINARY, noise)
    peer = archive({BINARY: [*Syntax]}, maximum_pdu_size=limit_bytes)
    assert _scu(tmp_path, peer.port).send((result,)).status == 0
    assert peer.largest_pdu_bytes <= min(limit_bytes or 1 << 20, 1 << 20) + 6
    np.testing.assert_array_equal(peer.received[0].pixel_array, noise)


def test_a_slow_line_is_not_a_dead_one(
    archive: Callable[..., Archive],
    write_seg: Callable[..., ResultFile],
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    noise = rng.integers(0, 2, (16, 512, 512)).astype(np.uint8)  # 512 KiB in PDUs of 16 KiB
    result = write_seg(tmp_path / "binary.dcm", ResultKind.BINARY, noise)
    peer = archive({BINARY: [*Syntax]}, maximum_pdu_size=16384)
    with _slow_relay(peer.port, bytes_a_step=65536, step_s=0.2) as port:
        sent = _scu(tmp_path, port, response_timeout_s=1.0).send((result,))
    assert sent.status == 0
    np.testing.assert_array_equal(peer.received[0].pixel_array, noise)


@contextmanager
def _slow_relay(port: int, bytes_a_step: int, step_s: float) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    pause = threading.Event()

    def carry() -> None:
        with listener:
            near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=_copy, args=(far, near))
            back.start()
            while data := near.recv(bytes_a_step):
                far.sendall(data)
                pause.wait(step_s * len(data) / bytes_a_step)
            far.shutdown(socket.SHUT_WR)
            back.join()

    carrier = threading.Thread(target=carry)
    carrier.start()
    yield listener.getsockname()[1]
    carrier.join()


def test_a_peer_that_accepts_and_never_answers_is_given_up(
    results: tuple[ResultFile, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_bridge.deliver.store_scu._NEGOTIATION_TIMEOUT_S", 0.5)
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(UnreachableError) as silent,
    ):
        _scu(tmp_path, mute.getsockname()[1]).send(results)
    assert silent.value.reason is Reason.SEND_TIMEOUT


def test_a_response_that_comes_while_threads_are_held_up_is_not_lost(
    archive: Callable[..., Archive],
    results: tuple[ResultFile, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reactor is late where it believes that it need not pause, the sender in listening."""
    initialise, get_msg = Association.__init__, DIMSEServiceProvider.get_msg

    class LateEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            is_set = super().wait(timeout)
            time.sleep(0.15)
            return is_set

    def with_late_reactor(self: Association, *arguments: object, **options: object) -> None:
        initialise(self, *arguments, **options)
        if self.is_acceptor:
            return
        self._reactor_checkpoint = LateEvent()
        self._reactor_checkpoint.set()

    def late_listener(self: DIMSEServiceProvider, block: bool = False) -> object:
        if block:
            time.sleep(0.25)
        return get_msg(self, block)

    peer = archive({LABELMAP: [*Syntax]})
    monkeypatch.setattr(Association, "__init__", with_late_reactor)
    monkeypatch.setattr(DIMSEServiceProvider, "get_msg", late_listener)
    scu = _scu(tmp_path, peer.port, response_timeout_s=3.0)
    for _ in range(5):
        assert scu.send(results).status == 0


def test_what_was_sent_equals_what_is_on_disk(
    archive: Callable[..., Archive], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    peer = archive({BINARY: [*Syntax]})
    sent = _scu(tmp_path, peer.port).send(results)
    on_disk = dcmread(tmp_path / sent.result.path)
    assert peer.received[0] == on_disk
