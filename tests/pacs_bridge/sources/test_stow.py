"""Results by STOW-RS: into a real Orthanc, and to a service that fails in every way."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from inference.reasons import Reason
from pacs_bridge.config.destinations import ResultKind, StowDestinationConfig
from pacs_bridge.deliver.departure import LeavingError
from pacs_bridge.deliver.negotiation import Syntax
from pacs_bridge.deliver.store_scu import UnreachableError
from pacs_bridge.deliver.stow import StowClient
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.queue import ResultFile

SOP_CLASS = {
    ResultKind.BINARY: "1.2.840.10008.5.1.4.1.1.66.4",
    ResultKind.LABELMAP: "1.2.840.10008.5.1.4.1.1.66.7",
}


@pytest.fixture
def labels(rng: np.random.Generator) -> np.ndarray:
    return (rng.random((3, 64, 64)) > 0.9).astype(np.uint8)


@pytest.fixture
def results(
    write_seg: Callable[..., ResultFile], tmp_path: Path, labels: np.ndarray
) -> tuple[ResultFile, ...]:
    return tuple(write_seg(tmp_path / f"{kind.value}.dcm", kind, labels) for kind in ResultKind)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[..., StowClient]]:
    opened: list[StowClient] = []

    def make(url: str, check: Callable[[], None] = lambda: None, **settings: object) -> StowClient:
        table = {"name": "web", "url": url, "response_timeout_s": 5} | settings
        config = StowDestinationConfig.model_validate_json(json.dumps(table))
        opened.append(StowClient(config, tmp_path, check))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def service(serve_web: Callable[..., Any]) -> Any:
    return serve_web([])


def _failed(ds: pydicom.Dataset, reason: int) -> dict[str, object]:
    item = {
        "00081150": {"vr": "UI", "Value": [str(ds.SOPClassUID)]},
        "00081155": {"vr": "UI", "Value": [str(ds.SOPInstanceUID)]},
        "00081197": {"vr": "US", "Value": [reason]},
    }
    return {"00081198": {"vr": "SQ", "Value": [item]}}


def _refuses(sop_class: str, reason: int) -> Callable[[pydicom.Dataset], tuple[int, object]]:
    def answer(ds: pydicom.Dataset) -> tuple[int, object]:
        return (409, _failed(ds, reason)) if ds.SOPClassUID == sop_class else _takes(ds)

    return answer


def _takes(ds: pydicom.Dataset, warning: int | None = None) -> tuple[int, object]:
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [str(ds.SOPInstanceUID)]}}
    if warning is not None:
        item["00081196"] = {"vr": "US", "Value": [warning]}
    return 200 if warning is None else 202, {"00081199": {"vr": "SQ", "Value": [item]}}


def _error(
    client: Callable[..., StowClient], service: Any, results: tuple[ResultFile, ...], **more: object
) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        client(service.url, **more).send(results)
    return caught.value


@pytest.mark.pacs
@pytest.mark.parametrize("kind", ResultKind)
def test_a_result_is_in_orthanc_as_it_was_made(
    orthanc: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    labels: np.ndarray,
    kind: ResultKind,
) -> None:
    sender = client(orthanc.url, kinds=[kind.value])
    assert sender.ask().is_sure

    sent = sender.send(results)
    again = sender.send(results)

    assert (sent.result.kind, again.result.kind) == (kind.value, kind.value)
    found = orthanc.web.post(
        "/tools/find",
        json={"Level": "Instance", "Query": {"SOPInstanceUID": sent.result.sop_instance_uid}},
    ).json()
    assert len(found) == 1
    ds = pydicom.dcmread(BytesIO(orthanc.web.get(f"/instances/{found[0]}/file").content))
    assert ds.file_meta.TransferSyntaxUID == sent.result.transfer_syntax_uid
    np.testing.assert_array_equal(ds.pixel_array, labels)


def test_the_preferred_kind_goes_as_it_is_on_disk(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    sent = client(service.url).send(results)
    assert (sent.result.kind, sent.syntax, sent.status) == ("labelmap", Syntax.RLE, 0)
    (ds,) = service.stored
    assert ds.SOPInstanceUID == sent.result.sop_instance_uid
    _, path, headers = service.requests[0]
    assert path == "/dicom/studies"
    assert headers["Accept"] == "application/dicom+json"
    assert "Content-Length" in headers


def test_a_service_that_refuses_label_maps_gets_binary(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    service.stow_answer = _refuses(SOP_CLASS[ResultKind.LABELMAP], 0x0122)
    assert client(service.url).send(results).result.kind == "binary"
    assert len(service.stored) == 2


def test_a_transfer_syntax_that_is_refused_is_followed_by_the_next_of_the_same_kind(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    service.stow_answer = lambda ds: (
        (409, _failed(ds, 0xC122)) if ds.file_meta.TransferSyntaxUID == RLELossless else _takes(ds)
    )
    sent = client(service.url).send(results)
    assert (sent.result.kind, sent.syntax) == ("labelmap", Syntax.EXPLICIT_LITTLE)


@pytest.mark.parametrize("status", [400, 409, 415])
def test_a_form_that_is_refused_without_a_word_is_followed_by_the_next(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...], status: int
) -> None:
    service.stow_answer = lambda ds: (
        (status, b"") if ds.file_meta.TransferSyntaxUID == RLELossless else _takes(ds)
    )
    sent = client(service.url).send(results)
    assert (sent.result.kind, sent.syntax) == ("labelmap", Syntax.EXPLICIT_LITTLE)
    assert service.stored[-1].file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.parametrize(("status", "kind"), [(400, ""), (409, ""), (415, "binary")])
def test_another_kind_follows_only_what_is_said_of_the_media_type(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    status: int,
    kind: str,
) -> None:
    label_map = SOP_CLASS[ResultKind.LABELMAP]
    service.stow_answer = lambda ds: (status, b"") if ds.SOPClassUID == label_map else _takes(ds)
    if kind:
        assert client(service.url).send(results).result.kind == kind
    else:
        assert isinstance(_error(client, service, results), PermanentError)
        assert {ds.SOPClassUID for ds in service.stored} == {label_map}


@pytest.mark.parametrize("said", [b"", 0x0110, 0xB00E, 0xC000, 0xA900])
def test_a_result_whose_answer_was_lost_is_there_once(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    said: bytes | int,
) -> None:
    """The service keeps what came, the answer is lost, and a second one is a conflict."""
    kept: list[str] = []

    def answer(ds: pydicom.Dataset) -> tuple[int, object]:
        if ds.SOPInstanceUID in kept:
            return 409, said if isinstance(said, bytes) else _failed(ds, said)
        kept.append(str(ds.SOPInstanceUID))
        service.held = {str(ds.SOPInstanceUID)}
        return 200, b"no answer"

    service.stow_answer = answer
    sender = client(service.url)
    with pytest.raises(TransientError):
        sender.send(results)
    sent = sender.send(results, attempt=2)
    assert (sent.result.kind, len(kept), len(service.stored)) == ("labelmap", 1, 1)


@pytest.mark.parametrize("said", [b"", 0xB00E, 0xC000, 0xA900])
def test_what_a_service_refuses_and_has_is_sent(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    said: bytes | int,
) -> None:
    service.held = {result.sop_instance_uid for result in results}
    service.stow_answer = lambda ds: (
        409,
        said if isinstance(said, bytes) else _failed(ds, said),
    )
    assert client(service.url).send(results).result.kind == "labelmap"
    assert len(service.stored) == 1


@pytest.mark.parametrize("first", [400, 409, 422])
def test_another_kind_does_not_follow_a_form_that_may_be_there(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...], first: int
) -> None:
    """Only the last form is refused as a media type, and the service cannot be searched."""

    def post(_exchange: Any) -> bool:
        return False

    def search(exchange: Any) -> None:
        exchange.say(404)

    service.faults = [post, search, post, search]
    service.stow_answer = lambda ds: (
        (first if ds.file_meta.TransferSyntaxUID == RLELossless else 415, b"")
        if ds.SOPClassUID == SOP_CLASS[ResultKind.LABELMAP]
        else _takes(ds)
    )
    assert isinstance(_error(client, service, results), PermanentError)
    assert [ds.SOPClassUID for ds in service.stored] == [SOP_CLASS[ResultKind.LABELMAP]] * 2


@pytest.mark.parametrize("status", [400, 403, 404, 405, 500, 501])
def test_a_service_that_cannot_be_searched_is_sent_the_same_kind_again(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...], status: int
) -> None:
    service.faults = [lambda exchange: exchange.say(status)] * 2
    assert client(service.url).send(results, attempt=2).result.kind == "labelmap"
    assert len(service.stored) == 1


@pytest.mark.parametrize("warning", [0xB000, 0xB006, 0xB007])
def test_a_warning_means_that_the_service_has_it(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...], warning: int
) -> None:
    service.stow_answer = lambda ds: _takes(ds, warning)
    assert client(service.url).send(results).status == warning


def test_a_duplicate_is_there_already(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    service.stow_answer = lambda ds: (409, _failed(ds, 0x0111))
    assert client(service.url).send(results).status == 0x0111


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize("reason", [0xA700, 0x0110, 0xA7FF])
def test_a_failure_for_now_is_tried_again_whatever_the_status_says(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    status: int,
    reason: int,
) -> None:
    service.stow_answer = lambda ds: (status, _failed(ds, reason))
    error = _error(client, service, results)
    assert isinstance(error, TransientError)
    assert not isinstance(error, UnreachableError)
    assert error.reason is Reason.SEND_REFUSED
    assert f"{reason:04X}H" in error.detail


@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize("reason", [0xC000, 0x0001, 0x0107, 0x0116, 0xB000])
def test_a_result_that_is_refused_in_every_form_is_not_tried_again(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    status: int,
    reason: int,
) -> None:
    """Also for what would be a warning, were it not in the list of failures."""
    service.stow_answer = lambda ds: (status, _failed(ds, reason))
    error = _error(client, service, results)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.SEND_REFUSED
    assert "labelmap" in error.detail
    assert "binary" not in error.detail


@pytest.mark.parametrize("status", [201, 203, 206])
def test_success_is_what_is_said_of_the_instance_whatever_its_status(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...], status: int
) -> None:
    service.stow_answer = lambda ds: (status, _takes(ds)[1])
    assert client(service.url).send(results).status == 0


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"[]", b"{", b"[" * 100_000, b"<html/>", b'{"00081199": {"Value": [1, null]}}'],
)
def test_an_answer_without_a_word_on_the_instance_is_no_success(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    status: int,
    answer: bytes,
) -> None:
    service.stow_answer = lambda ds: (status, answer)
    error = _error(client, service, results)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.BAD_ANSWER


def test_success_of_another_instance_is_none_of_ours(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    other = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}
    service.stow_answer = lambda ds: (200, {"00081199": {"vr": "SQ", "Value": [other]}})
    assert _error(client, service, results).reason is Reason.BAD_ANSWER


_OF_A_SERVICE = pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.NOT_AUTHORISED),
        (403, Reason.NOT_AUTHORISED),
        (404, Reason.SEND_REFUSED),
        (405, Reason.SEND_REFUSED),
        (302, Reason.SEND_REFUSED),
        (429, Reason.SEND_TIMEOUT),
        (502, Reason.SEND_TIMEOUT),
        (503, Reason.SEND_TIMEOUT),
        (504, Reason.SEND_TIMEOUT),
        (507, Reason.SEND_REFUSED),
    ],
)


@_OF_A_SERVICE
def test_a_service_that_asks_for_a_wait_is_left_alone_as_a_whole(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    status: int,
    reason: Reason,
) -> None:
    service.faults = [lambda exchange: exchange.say(status, {"Retry-After": "120"})]
    error = _error(client, service, results)
    assert isinstance(error, UnreachableError)
    assert error.reason is reason
    assert error.wait_s == 120
    assert len(service.requests) == 1


@_OF_A_SERVICE
def test_a_status_without_a_wait_may_be_of_this_result(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    status: int,
    reason: Reason,
) -> None:
    service.faults = [lambda exchange: exchange.say(status)]
    error = _error(client, service, results)
    assert isinstance(error, TransientError)
    assert not isinstance(error, UnreachableError)
    assert error.reason is reason
    assert len(service.requests) == 1


def test_a_fault_of_the_service_may_be_of_this_result(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    service.faults = [lambda exchange: exchange.say(500)]
    error = _error(client, service, results)
    assert isinstance(error, TransientError)
    assert not isinstance(error, UnreachableError)


def test_a_result_that_is_too_large_is_refused(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    service.faults = [lambda exchange: exchange.say(413)]
    error = _error(client, service, results)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.SEND_REFUSED


def _grown(result: ResultFile, folder: Path) -> ResultFile:
    """The result as a file that is larger than all buffers of a socket."""
    path = folder / result.path
    path.write_bytes(path.read_bytes() + bytes(16 << 20))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(result, sha256=digest, size_bytes=path.stat().st_size)


def test_an_answer_that_comes_before_the_result_is_sent_is_read(
    client: Callable[..., StowClient], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    """As a proxy does that limits the size of requests: it answers, and reads no more."""
    result = _grown(results[0], tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # lingers, as nginx does
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(PermanentError) as refused:
            client(url).send((result,))
        assert "413" in refused.value.detail
        thread.join()


def test_a_service_that_stops_does_not_wait_for_an_answer(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    is_asked, let_go = threading.Event(), threading.Event()

    def check() -> None:
        if is_asked.is_set():
            raise LeavingError

    def say_nothing(_exchange: Any) -> None:
        is_asked.set()
        let_go.wait(60)

    service.faults = [say_nothing]
    with pytest.raises(LeavingError):
        client(service.url, check, response_timeout_s=600).send(results)
    let_go.set()


def test_a_service_that_stops_does_not_wait_for_one_that_reads_nothing(
    client: Callable[..., StowClient], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    is_reached = threading.Event()

    def check() -> None:
        if is_reached.is_set():
            raise LeavingError

    def accept() -> None:
        connection, _ = listening.accept()
        with connection:
            is_reached.set()
            let_go.wait(60)

    let_go = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(LeavingError):
            client(url, check, response_timeout_s=600).send((_grown(results[0], tmp_path),))
        let_go.set()
        thread.join()


def test_a_line_that_breaks_while_an_answer_is_due_is_tried_again(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    service.faults = [lambda exchange: exchange.drop()]
    error = _error(client, service, results)
    assert isinstance(error, TransientError)
    assert not isinstance(error, UnreachableError)  # what was sent may have broken it
    assert error.reason is Reason.SEND_TIMEOUT


def test_nobody_at_the_address_is_no_fault_of_the_result(
    client: Callable[..., StowClient], results: tuple[ResultFile, ...]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UnreachableError) as unreachable:
            client(f"http://127.0.0.1:{port}").send(results)
    assert unreachable.value.reason is Reason.SEND_TIMEOUT


def test_a_disk_without_room_for_the_next_form_is_no_fault_of_the_service(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    small_files_only: Callable[[int], AbstractContextManager[None]],
) -> None:
    service.stow_answer = lambda ds: (415, b"")
    with small_files_only(4096), pytest.raises(TransientError) as full:
        client(service.url, kinds=["labelmap"]).send(results)
    assert full.value.reason is Reason.DISK_FULL
    assert not isinstance(full.value, UnreachableError)


def test_a_result_does_not_follow_a_redirect_to_another_host(
    service: Any,
    serve_web: Callable[..., Any],
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    tmp_path: Path,
) -> None:
    other = serve_web([])
    (tmp_path / "token").write_text("very-secret")
    service.faults = [lambda exchange: exchange.say(308, {"Location": other.url + "/studies"})]
    auth = {"token_file": str(tmp_path / "token")}
    error = _error(client, service, results, auth=auth)
    assert error.reason is Reason.SEND_REFUSED
    assert isinstance(error, TransientError)
    assert other.requests == []


def test_a_token_that_cannot_be_read_is_no_fault_of_the_result(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    error = _error(client, service, results, auth={"token_file": str(tmp_path / "gone")})
    assert isinstance(error, UnreachableError)
    assert error.reason is Reason.NOT_AUTHORISED
    assert "auth.token_file: No such file" in error.detail
    assert "gone" not in error.detail  # it may be the token itself


def test_a_renewed_token_is_used_for_the_same_result(
    service: Any,
    client: Callable[..., StowClient],
    results: tuple[ResultFile, ...],
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("old")

    def refuse(exchange: Any) -> None:
        token.write_text("renewed")
        exchange.say(401)

    service.faults = [refuse]
    assert client(service.url, auth={"token_file": str(token)}).send(results).status == 0
    shown = [headers["Authorization"] for _, _, headers in service.requests]
    assert shown == ["Bearer old", "Bearer renewed"]


def test_a_result_that_changed_on_disk_is_not_sent(
    service: Any, client: Callable[..., StowClient], results: tuple[ResultFile, ...], tmp_path: Path
) -> None:
    for result in results:
        with (tmp_path / result.path).open("ab") as file:
            file.write(b"\0\0")
    error = _error(client, service, results)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.SOURCE_MISSING
    assert service.requests == []


def test_a_service_without_search_is_not_sure_and_one_that_keeps_us_out_is_said(
    service: Any, client: Callable[..., StowClient]
) -> None:
    assert client(service.url).ask().is_sure
    service.faults = [lambda exchange: exchange.say(405)]
    assert not client(service.url).ask().is_sure
    service.faults = [lambda exchange: exchange.say(401)]
    with pytest.raises(TransientError) as kept_out:
        client(service.url).ask()
    assert kept_out.value.reason is Reason.NOT_AUTHORISED
