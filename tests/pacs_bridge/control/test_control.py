"""State and steering over HTTP: what is told to whom, and what cannot hold it up."""

from __future__ import annotations

import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from arrivals import NoShelf, arrival_of

from inference.reasons import Reason
from pacs_bridge.control import server as server_module
from pacs_bridge.control.answers import CallFault
from pacs_bridge.control.routes import Routes
from pacs_bridge.control.server import ControlServer
from pacs_bridge.control.token import Token
from pacs_bridge.errors import PermanentError
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.arrival import Fate
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import JobRequest, State

SECRET = "a-token-of-more-than-16-characters"
SERIES = "1.2.826.0.1.3680043.8.498.7"


@pytest.fixture
def ledger(ram_folder: Path) -> Iterator[Ledger]:
    made = Ledger.open(ram_folder / "ledger.sqlite")
    yield made
    made.close()


@pytest.fixture
def log_file(ram_folder: Path) -> Path:
    return ram_folder / "log.jsonl"


@pytest.fixture
def server(ledger: Ledger, log_file: Path) -> Iterator[ControlServer]:
    log = JsonLog.open(log_file, IdentityHash(b"test"), "debug")
    with ControlServer(
        ("127.0.0.1", 0), Token(SECRET), Routes(ledger, IdentityHash(b"test")).answer, log
    ) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def web(server: ControlServer) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}",
        headers={"Authorization": f"Bearer {SECRET}"},
        trust_env=False,
    ) as client:
        yield client


@pytest.fixture
def dead_job(ledger: Ledger) -> int:
    job_id = ledger.jobs.submit(JobRequest(SERIES, 1, "all", "tiny", ("archive",)))
    ledger.jobs.park(ledger.jobs.claim("w", 60), Reason.MODEL_ERROR, "not finite")
    return job_id


@pytest.fixture
def received(ledger: Ledger) -> None:
    """A series of one instance, of the patient P1 and the study 1.2."""
    key = IdentityHash(b"test").of("P\xe4 1")
    arrival = arrival_of(
        1,
        sop_instance_uid=f"{SERIES}.1",
        series_instance_uid=SERIES,
        patient_key=key,
        digest="digest",
    )
    assert ledger.instances.enter([arrival], NoShelf()) == [Fate.KEPT]


# --- the token ---


def test_a_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "control.token"
    Token.load(path)
    secret = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) >= 43
    assert Token.load(path).admits(f"Bearer {secret}")
    assert path.read_text().strip() == secret


@pytest.mark.parametrize("text", ["", "short", "two words of enough length", "\xe9" * 20])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "control.token"
    path.write_text(text)
    with pytest.raises(PermanentError, match="control\\.token"):
        Token.load(path)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x", "Bearer \xff"],
)
def test_another_word_than_the_token_admits_nobody(authorization: str | None) -> None:
    assert not Token(SECRET).admits(authorization)
    assert Token(SECRET).admits(f"bearer {SECRET}")


# --- answers ---


def test_without_the_token_nothing_is_told_but_the_health(web: httpx.Client, dead_job: int) -> None:
    del web.headers["Authorization"]
    assert web.get("/health").json() == {"status": "ok"}
    calls = [("GET", "/status"), ("GET", "/series"), ("GET", f"/series/{SERIES}"), ("GET", "/no")]
    for method, path in [*calls, ("POST", f"/series/{SERIES}/retry"), ("POST", "/health")]:
        answer = web.request(method, path)
        assert (answer.status_code, answer.json()["reason"]) == (401, CallFault.TOKEN)
        assert SERIES not in answer.text


def test_a_series_is_told_with_its_job_and_its_deliveries(web: httpx.Client, dead_job: int) -> None:
    facts = web.get(f"/series/{SERIES}").json()
    assert (facts["state"], facts["reason"], facts["revision"]) == ("dead", "model-error", 1)
    (revision,) = facts["revisions"]
    assert (revision["job_id"], revision["model"]) == (dead_job, "tiny")
    assert revision["deliveries"] == []


def test_series_are_listed_by_state(web: httpx.Client, dead_job: int) -> None:
    (row,) = web.get("/series", params={"state": "dead"}).json()["series"]
    assert row["series_instance_uid"] == SERIES
    assert web.get("/series", params={"state": "sent"}).json() == {"series": []}
    assert web.get("/status").json()["states"] == {"dead": 1}


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/series?state=lost", 400, "bad-request"),
        ("GET", "/series?limit=0", 400, "bad-request"),
        ("GET", "/series?limit=many", 400, "bad-request"),
        ("GET", "/series?patient=x", 400, "bad-request"),
        ("GET", "/series/1.2.3", 404, "unknown-series"),
        ("POST", "/series/1.2.3/force", 404, "unknown-series"),
        ("GET", "/series/../../etc/passwd", 404, "unknown-route"),
        ("GET", "/series/1.2'--", 404, "unknown-route"),
        ("GET", f"/series/{'1' * 65}", 404, "unknown-route"),
        ("GET", f"/series/{SERIES}/retry", 405, "method"),
        ("POST", "/status", 405, "method"),
        ("PUT", "/status", 405, "method"),
        ("POST", f"/series/{SERIES}/repeat", 409, "nothing-to-repeat"),
        ("POST", f"/series/{SERIES}/force", 409, "not-held"),
    ],
)
def test_what_cannot_be_answered_is_said_as_json_with_a_code(
    web: httpx.Client, dead_job: int, method: str, path: str, status: int, reason: str
) -> None:
    answer = web.request(method, path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["", "/force", "/retry", "/repeat", "/expect?instances=3"])
@pytest.mark.parametrize(
    "others",
    [{"Pacs-Bridge-Patient": "P2"}, {"Pacs-Bridge-Study": "1.3"}],
    ids=["patient", "study"],
)
def test_nothing_is_told_or_done_for_the_series_of_another_patient(
    web: httpx.Client, received: None, path: str, others: dict[str, str]
) -> None:
    method = "POST" if path else "GET"
    mine = {"Pacs-Bridge-Patient": "P%C3%A4%201", "Pacs-Bridge-Study": "1.2"}
    answer = web.request(method, f"/series/{SERIES}{path}", headers={**mine, **others})
    assert (answer.status_code, answer.json()["reason"]) == (409, CallFault.OTHER_PATIENT)
    assert web.get(f"/series/{SERIES}", headers=mine).json()["state"] == "receiving"


def test_a_series_is_told_how_many_instances_it_has(
    web: httpx.Client, ledger: Ledger, received: None
) -> None:
    assert web.post(f"/series/{SERIES}/expect?instances=3").status_code == 200
    assert ledger.series.open_revisions()[0].expected_instances == 3
    for wrong in (
        "",
        "?instances=0",
        "?instances=-1",
        "?instances=9999999999",
        "?instances=x",
        "?instances=3&priority=soon",
    ):
        answer = web.post(f"/series/{SERIES}/expect{wrong}")
        assert (answer.status_code, answer.json()["reason"]) == (400, CallFault.BAD_REQUEST)


def test_a_dead_job_is_tried_again_once(web: httpx.Client, ledger: Ledger, dead_job: int) -> None:
    answer = web.post(f"/series/{SERIES}/retry")
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")
    again = web.post(f"/series/{SERIES}/retry")
    assert (again.status_code, again.json()["reason"]) == (409, "nothing-to-retry")
    assert ledger.view.job(dead_job).state is State.READY


def test_a_ledger_that_cannot_be_used_is_said_and_not_waited_for(
    web: httpx.Client, ledger: Ledger, dead_job: int
) -> None:
    impatient = Ledger.open(ledger.database.path, busy_timeout_s=0.05)
    routes = Routes(impatient, IdentityHash(b"test"))
    with ledger.database.write():
        web_server = ControlServer(("127.0.0.1", 0), Token(SECRET), routes.answer, _Silent())
        with web_server:
            thread = threading.Thread(target=web_server.handle_request)
            thread.start()
            url = f"http://127.0.0.1:{web_server.port}/series/{SERIES}/retry"
            answer = httpx.post(url, headers=web.headers, trust_env=False)
            thread.join()
    impatient.close()
    assert (answer.status_code, answer.json()["reason"]) == (503, "ledger-unavailable")


class _Silent:
    def __getattr__(self, name: str) -> object:
        return lambda *_args, **_fields: None


# --- hostile callers ---


def _raw(server: ControlServer, request: bytes) -> tuple[int, dict[str, str]]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request)
        data = b""
        while more := connection.recv(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"DELETE /health HTTP/1.1\r\n\r\n", 405),
    ],
    ids=["no request", "a later version", "a long target", "many headers", "another method"],
)
def test_what_is_no_request_is_refused_as_json(
    server: ControlServer, request_bytes: bytes, status: int
) -> None:
    code, body = _raw(server, request_bytes)
    assert code == status
    assert set(body) == {"reason", "detail"}


@pytest.mark.parametrize(
    ("header", "status"),
    [("Content-Length: 5000", 413), ("Content-Length: " + "0" * 20 + "9" * 50, 413),
     ("Content-Length: -1", 400), ("Content-Length: 9e9", 400),
     ("Transfer-Encoding: chunked", 411)],
)  # fmt: skip
def test_a_body_is_short_and_says_its_length(
    server: ControlServer, header: str, status: int
) -> None:
    request = f"POST /status HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n{header}\r\n\r\n"
    assert _raw(server, request.encode())[0] == status


def test_the_token_is_asked_for_before_a_body_is_read(server: ControlServer) -> None:
    request = b"POST /status HTTP/1.1\r\nContent-Length: 4000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=4) as connection:
        connection.sendall(request)  # and no body: who waits for it is cut off much later
        assert b" 401 " in connection.recv(65536)


def test_silent_callers_are_cut_off_and_hold_nobody_up_for_long(
    server: ControlServer, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_WHOLE_S", 0.3)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(16)]
    for connection in silent:
        connection.settimeout(30)
        assert connection.recv(1) == b""  # shut down by the limit of a whole call
        connection.close()
    assert web.get("/health").status_code == 200


def test_more_callers_than_there_are_places_are_turned_away(
    server: ControlServer, web: httpx.Client, wait_for
) -> None:
    request = (
        f"POST /status HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\nContent-Length: 9\r\n\r\n"
    )
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(16)]
    for connection in held:
        connection.sendall(request.encode())  # and no body: they have shown the token, and wait
    wait_for(lambda: server._places._value == 0 and not server._strangers)
    with pytest.raises(httpx.TransportError):
        web.get("/health")
    for connection in held:
        connection.close()
    wait_for(lambda: server._places._value == 16)
    assert web.get("/health").status_code == 200


@pytest.mark.parametrize("sent", [b"", b"GET /status HTTP/1.1\r\nX: "], ids=["silent", "dripping"])
def test_callers_without_a_token_keep_nobody_away(
    server: ControlServer, web: httpx.Client, wait_for, sent: bytes
) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(16)]
    for connection in held:
        connection.sendall(sent)
    wait_for(lambda: len(server._strangers) == 16)
    for _ in range(20):
        assert web.get("/status").status_code == 200
    held[0].settimeout(30)
    assert held[0].recv(1) == b""  # the oldest had to go
    for connection in held:
        connection.close()
    wait_for(lambda: server._places._value == 16)


def test_a_call_whose_limit_cannot_be_kept_keeps_no_place(
    server: ControlServer, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("threading.Timer.start", fail)
        for _ in range(17):
            with pytest.raises(httpx.TransportError):
                web.get("/health")
    assert web.get("/health").status_code == 200


def test_a_thread_that_cannot_be_started_keeps_no_place(
    server: ControlServer, web: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("socketserver.ThreadingMixIn.process_request", fail)
        for _ in range(17):
            with pytest.raises(httpx.TransportError):
                web.get("/health")
    assert web.get("/health").status_code == 200


def test_the_log_tells_neither_tokens_nor_series(
    web: httpx.Client, log_file: Path, dead_job: int
) -> None:
    web.get(f"/series/{SERIES}", headers={"Authorization": "Bearer something-else"})
    web.get(f"/series/{SERIES}")
    text = log_file.read_text()
    assert "control-refused" in text
    for secret in (SECRET, "something-else", SERIES):
        assert secret not in text
