"""The plugin as a whole, in an Orthanc that it must never hold up."""

from __future__ import annotations

import errno
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pacs_bridge.plugin import journal
from pacs_bridge.plugin.bridge_client import BridgeClient
from pacs_bridge.plugin.notes import NoteBook
from pacs_bridge.plugin.routes import Answer, Routes, send
from pacs_bridge.plugin.server import OrthancServer
from pacs_bridge.plugin.service import PluginService
from pacs_bridge.plugin.settings import read_settings

SERIES, OTHER = "0" * 44, "1" * 44


def _service(scripted: Any, folder: Path, **section: Any) -> PluginService:
    scripted.answers |= {
        "/system": {"Version": "1.12.11"},
        "/plugins/python": {"Version": "5.0"},
        "/modalities": ["bridge"],
    }
    notes = str(folder / "notes")
    reading = read_settings({"PacsBridge": {"Modality": "bridge", "NotesFile": notes, **section}})
    return PluginService(OrthancServer(scripted), reading)


def test_with_faults_in_its_settings_the_plugin_only_says_so(scripted: Any, tmp_path: Path) -> None:
    service = _service(scripted, tmp_path, StoresAtOnce=0)
    service.start()
    answer = service.answer("GET", "status", {})
    assert (answer.status, answer.body["is_working"]) == (200, False)
    assert answer.body["faults"] == ["PacsBridge.StoresAtOnce: is a whole number, 1 to 16"]
    other = service.answer("POST", f"series/{SERIES}/start", {})
    assert (other.status, other.body["reason"]) == (503, "not-configured")
    assert any("StoresAtOnce" in line for line in scripted.lines)
    service.stop()


def test_notes_that_cannot_be_kept_stop_the_plugin_and_not_orthanc(
    scripted: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    service = _service(scripted, tmp_path, NotesFile=str(tmp_path / "file" / "notes"))
    service.start()
    assert service.answer("GET", "status", {}).body["is_working"] is False
    service.stop()


def test_a_disk_that_is_full_at_the_start_is_told_and_tried_again(
    scripted: Any, tmp_path: Path, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.hold(SERIES, ["1.2.840.10008.5.1.4.1.1.2"])
    write = journal._write_all
    is_full = threading.Event()
    is_full.set()

    def write_if_there_is_room(descriptor: int, data: bytes) -> None:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(descriptor, data)

    monkeypatch.setattr(journal, "_write_all", write_if_there_is_room)
    service = _service(scripted, tmp_path)
    service.start()
    told = service.answer("GET", "status", {}).body
    assert told["is_working"] is False
    assert "No space left" in str(told["faults"])
    answer = service.answer("POST", f"series/{SERIES}/start", {})
    assert (answer.status, answer.body["reason"]) == (503, "not-configured")
    scripted.hold(OTHER, ["1.2.840.10008.5.1.4.1.1.2"])
    scripted.happen("StableSeries", OTHER)

    is_full.clear()
    wait_for(lambda: service.answer("GET", "status", {}).body["is_working"])
    assert service.answer("GET", "status", {}).body["faults"] == []
    assert service.answer("POST", f"series/{SERIES}/start", {}).status == 200
    scripted.answers |= {f"/jobs/job{number}": {"State": "Success"} for number in (1, 2)}
    wait_for(lambda: len(scripted.posted) == 2)  # what came meanwhile, too
    service.stop()


def test_where_orthanc_tells_late_where_its_log_ends_that_is_where_it_is_read_from(
    scripted: Any, tmp_path: Path, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.answers["/changes?last"] = "no JSON"
    is_opened = threading.Event()
    open_alone = NoteBook.open_alone

    def open_later(path: Path) -> NoteBook:
        if not is_opened.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_alone(path)

    monkeypatch.setattr(NoteBook, "open_alone", open_later)
    service = _service(scripted, tmp_path)
    service.start()
    asked = scripted.asked.count("/changes?last")
    del scripted.answers["/changes?last"]
    wait_for(lambda: scripted.asked.count("/changes?last") > asked)
    scripted.hold(SERIES, ["1.2.840.10008.5.1.4.1.1.2"])
    scripted.happen("StableSeries", SERIES)
    is_opened.set()
    wait_for(lambda: scripted.posted)
    service.stop()


def _with_command(scripted: Any, folder: Path, **section: Any) -> PluginService:
    """A plugin whose bridge makes a file; no other bridge is there."""
    return _service(
        scripted,
        folder,
        ControlUrl="http://127.0.0.1:1",
        TokenFile=str(folder / "token"),
        Command=["/bin/touch", str(folder / "started")],
        **section,
    )


def test_while_another_orthanc_has_the_notes_no_bridge_is_started(
    scripted: Any, tmp_path: Path, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Path] = []
    open_alone = NoteBook.open_alone

    def count(path: Path) -> NoteBook:
        tries.append(path)
        return open_alone(path)

    other = NoteBook.open_alone(tmp_path / "notes")
    monkeypatch.setattr(NoteBook, "open_alone", count)
    service = _with_command(scripted, tmp_path)
    service.start()
    wait_for(lambda: len(tries) > 1)  # as late as a look at the process, or later
    assert service.answer("GET", "status", {}).body["process"] == "down"
    assert not any("the bridge" in line for line in scripted.lines)
    other.close()
    wait_for((tmp_path / "started").exists)
    service.stop()


def test_notes_that_cannot_be_written_keep_no_bridge_from_its_start(
    scripted: Any, tmp_path: Path, wait_for: Any
) -> None:
    (tmp_path / "file").write_text("")
    service = _with_command(scripted, tmp_path, NotesFile=str(tmp_path / "file" / "notes"))
    service.start()
    wait_for((tmp_path / "started").exists)
    service.stop()


def test_notes_that_another_orthanc_has_are_waited_for(
    scripted: Any, tmp_path: Path, wait_for: Any
) -> None:
    other = NoteBook.open_alone(tmp_path / "notes")
    service = _service(scripted, tmp_path)
    service.start()
    (fault,) = service.answer("GET", "status", {}).body["faults"]
    assert "another Orthanc has these notes" in fault
    other.close()
    wait_for(lambda: service.answer("GET", "status", {}).body["is_working"])
    service.stop()


def test_an_orthanc_that_does_not_tell_its_modalities_at_its_start_is_asked_again(
    scripted: Any, tmp_path: Path, wait_for: Any
) -> None:
    service = _service(scripted, tmp_path, Modality="elsewhere")
    scripted.answers["/modalities"] = "no JSON"
    service.start()
    assert service.answer("GET", "status", {}).body["is_working"]
    scripted.answers["/modalities"] = ["bridge"]
    wait_for(lambda: service.answer("GET", "status", {}).body["warnings"])
    service.stop()


def test_what_the_settings_name_and_orthanc_does_not_have_is_warned_of(
    scripted: Any, tmp_path: Path
) -> None:
    service = _service(scripted, tmp_path, Modality="elsewhere")
    service.start()
    service.stop()
    (warning,) = service.answer("GET", "status", {}).body["warnings"]
    assert "DicomModalities has no 'elsewhere'" in warning


def test_while_the_log_cannot_be_read_what_is_known_is_sent(
    scripted: Any, tmp_path: Path, wait_for: Any
) -> None:
    scripted.hold(SERIES, ["1.2.840.10008.5.1.4.1.1.2"])
    book = NoteBook(tmp_path / "notes")
    book.begin_at(0)
    book.add(SERIES, 1.0)
    scripted.answers["/changes?since=0&limit=200"] = "no JSON"
    service = _service(scripted, tmp_path)
    service.start()
    wait_for(lambda: scripted.posted)
    service.stop()


def test_while_a_long_log_is_read_what_was_found_in_it_is_sent(
    scripted: Any, tmp_path: Path, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.hold(SERIES, ["1.2.840.10008.5.1.4.1.1.2"])
    scripted.happen("StableSeries", SERIES)
    for _ in range(300):
        scripted.happen("NewStudy", "a")
    NoteBook(tmp_path / "notes").begin_at(0)
    is_sent = threading.Event()
    ask = scripted.RestApiGet

    def answer_when_it_is_sent(uri: str) -> bytes:
        if uri == "/changes?since=200&limit=200":
            assert is_sent.wait(60)
        return bytes(ask(uri))

    monkeypatch.setattr(scripted, "RestApiGet", answer_when_it_is_sent)
    service = _service(scripted, tmp_path)
    service.start()
    wait_for(lambda: scripted.posted)
    assert service.answer("GET", "status", {}).body["position"] == 200
    is_sent.set()
    service.stop()


def test_damaged_notes_are_told_and_hold_nothing_up(
    scripted: Any, tmp_path: Path, wait_for: Any
) -> None:
    scripted.hold(SERIES, ["1.2.840.10008.5.1.4.1.1.2"])
    (tmp_path / "notes").write_bytes(b"\0\n")
    service = _service(scripted, tmp_path)
    service.start()
    (warning,) = service.answer("GET", "status", {}).body["warnings"]
    assert "notes are damaged" in warning
    assert warning in "".join(scripted.lines)
    wait_for(lambda: service.answer("GET", "status", {}).body["position"] is not None)
    scripted.happen("StableSeries", SERIES)
    service.series_is_stable()
    wait_for(lambda: scripted.posted)
    service.stop()


def test_what_goes_wrong_in_a_thread_is_said_and_tried_again(
    scripted: Any, tmp_path: Path, wait_for: Any
) -> None:
    scripted.answers["/changes?last"] = "no JSON"
    service = _service(scripted, tmp_path, ExistingSeries=True)
    service.start()
    wait_for(lambda: any("ServerError at" in line for line in scripted.lines))
    scripted.hold(SERIES, ["1.2.840.10008.5.1.4.1.1.2"])
    scripted.happen("StableSeries", SERIES)
    del scripted.answers["/changes?last"]
    wait_for(lambda: scripted.posted)
    service.stop()


# --- the bridge, as callers of Orthanc see it ---


@pytest.fixture
def bridge() -> Iterator[HTTPServer]:
    """A bridge that answers what a test wants."""

    class Call(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.calls.append(self.path)  # type: ignore[attr-defined]
            status, body = self.server.said  # type: ignore[attr-defined]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_arguments: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Call) as server:
        server.calls = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def routes(scripted: Any, bridge: HTTPServer, tmp_path: Path) -> Routes:
    token = tmp_path / "token"
    token.write_text("word")
    scripted.answers[f"/series/{SERIES}"] = {
        "ID": SERIES,
        "MainDicomTags": {"Modality": "CT", "SeriesInstanceUID": "1.2.3"},
    }
    client = BridgeClient(f"http://127.0.0.1:{bridge.server_port}", token)
    book = NoteBook(tmp_path / "notes")
    return Routes(OrthancServer(scripted), book, client, lambda: None, dict)


@pytest.mark.parametrize(
    ("said", "status", "reason"),
    [
        ((401, b'{"reason": "token"}'), 502, "token"),
        ((409, b'{"reason": "not-held"}'), 409, "not-held"),
        ((200, b"<html>"), 502, "bridge-unreachable"),
        ((200, b"[]"), 502, "bridge-unreachable"),
        ((200, b'{"reason": "' + b"x" * 5_000_000), 502, "bridge-unreachable"),
    ],
    ids=["a wrong token", "a refusal", "no JSON", "no object", "too much"],
)
def test_whatever_the_bridge_says_orthancs_callers_are_told_in_json(
    routes: Routes, bridge: Any, said: tuple[int, bytes], status: int, reason: str
) -> None:
    bridge.said = said
    answer = routes.answer("POST", f"series/{SERIES}/force", {})
    assert (answer.status, answer.body["reason"]) == (status, reason)


def test_a_bridge_that_drips_its_answer_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_bridge.plugin.bridge_client._TIMEOUT_S", 0.2)

    def drip(server: socket.socket) -> None:
        caller, _ = server.accept()
        with caller, suppress(OSError):
            while True:  # until the other side is gone
                caller.sendall(b"x")
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        client = BridgeClient(f"http://127.0.0.1:{server.getsockname()[1]}", None)
        assert not client.is_alive()
        thread.join()


def test_a_bridge_that_is_silent_holds_up_no_more_than_its_share(
    routes: Routes, bridge: HTTPServer
) -> None:
    places = routes._places
    held = [places.acquire(blocking=False) for _ in range(4)]
    assert all(held)
    answer = routes.answer("POST", f"series/{SERIES}/force", {})
    assert (answer.status, answer.body["reason"]) == (503, "busy")
    # What needs no word of the bridge is told and done all the same.
    answer = routes.answer("POST", f"series/{SERIES}/start", {})
    assert answer.status == 200
    state = routes.answer("GET", f"series/{SERIES}", {})
    assert state.body["transfer"]["stage"] == "waiting"
    assert state.body["bridge"]["reason"] == "busy"
    assert routes.answer("GET", "status", {}).body["bridge"]["reason"] == "busy"
    for _ in held:
        places.release()


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example", "host": "pacs:8042"}],
)
def test_a_page_of_another_site_has_nothing_done(
    routes: Routes, bridge: Any, headers: dict[str, str]
) -> None:
    bridge.said = (200, b"{}")
    for action in ("start", "force", "retry", "repeat"):
        answer = routes.answer("POST", f"series/{SERIES}/{action}", headers)
        assert (answer.status, answer.body["reason"]) == (403, "cross-site")
    assert routes._notes.all() == ()
    assert bridge.calls == []
    own = {"sec-fetch-site": "same-origin"}
    assert routes.answer("POST", f"series/{SERIES}/force", own).status == 200


def test_a_series_that_an_operator_let_go_on_is_no_longer_expected_to_have_more(
    routes: Routes, bridge: Any
) -> None:
    routes.answer("POST", f"series/{SERIES}/start", {})
    bridge.said = (409, b'{"reason": "not-held"}')
    routes.answer("POST", f"series/{SERIES}/force", {})
    assert not routes._notes.get(SERIES).is_forced
    bridge.said = (200, b'{"state": "quiet"}')
    routes.answer("POST", f"series/{SERIES}/force", {})
    assert routes._notes.get(SERIES).is_forced


def test_orthancs_end_waits_for_no_bridge_that_is_silent(
    scripted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_bridge.plugin.bridge_client._TIMEOUT_S", 3600.0)
    (tmp_path / "token").write_text("word")
    scripted.hold(SERIES, ["1.2.840.10008.5.1.4.1.1.2"])
    scripted.happen("StableSeries", SERIES)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = _service(
            scripted,
            tmp_path,
            ExistingSeries=True,
            ControlUrl=f"http://127.0.0.1:{silent.getsockname()[1]}",
            TokenFile=str(tmp_path / "token"),
        )
        service.start()
        caller, _ = silent.accept()
        assert caller.recv(4) == b"POST"  # the series is announced, and nothing said to it
        service.stop()
        caller.close()
    assert not any(thread.is_alive() for thread in service._threads)
    assert [note.stage for note in NoteBook(tmp_path / "notes").all()] == ["waiting"]
    assert scripted.posted == []
    answer = service.answer("GET", f"series/{SERIES}", {})
    assert (answer.status, answer.body["reason"]) == (503, "leaving")


class _Output:
    """Orthanc's output object, as the Python plugin has it since 4.2, or before."""

    def __init__(self, is_old: bool) -> None:
        self.is_old = is_old
        self.headers: dict[str, str] = {}
        self.sent: tuple[Any, ...] = ()

    def AnswerBuffer(self, body: str, mime: str) -> None:
        self.sent = (200, body, mime)

    def SetHttpHeader(self, key: str, value: str) -> None:
        self.headers[key] = value

    def SendHttpStatus(self, *arguments: Any) -> None:
        if (len(arguments) == 3) != self.is_old:
            raise TypeError("Bad types for the arguments")
        self.sent = arguments


@pytest.mark.parametrize("is_old", [True, False])
def test_refusals_have_their_words_on_every_version_of_the_python_plugin(is_old: bool) -> None:
    output = _Output(is_old)
    send(output, Answer(409, {"reason": "not-held"}))
    assert output.sent[0] == 409
    assert json.loads(output.sent[1]) == {"reason": "not-held"}
    assert output.headers == {"Content-Type": "application/json"}
