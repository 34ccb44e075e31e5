"""Downloads against a loopback server that misbehaves in the ways that servers do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.model_fetch import (
    FetchPatience,
    ModelFetcher,
    PublishedModel,
    http_client,
    published_models,
)

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Manners:
    """What the server does, and what it was asked."""

    body: bytes = WEIGHTS
    break_after: list[int] = field(default_factory=list)  # bytes of each coming response
    ignore_range: bool = False
    shift_range: int = 0
    statuses: list[int] = field(default_factory=list)
    redirect: str = ""
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    manners: Manners

    def do_GET(self) -> None:
        manners = self.manners
        wanted = self.headers.get("Range", "")
        manners.asked.append(wanted)
        self.close_connection = True
        if manners.statuses and (status := manners.statuses.pop(0)) != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if manners.redirect:
            self.send_response(302)
            self.send_header("Location", manners.redirect)
            self.send_header("Connection", "close")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if wanted and not manners.ignore_range:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(manners.body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start += manners.shift_range
            self.send_response(206)
            end = len(manners.body)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        else:
            self.send_response(200)
        rest = manners.body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if manners.break_after:
            rest = rest[: manners.break_after.pop(0)]
        self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def manners() -> Manners:
    return Manners()


@pytest.fixture
def url(manners: Manners) -> Iterator[str]:
    handler = type("BoundHandler", (Handler,), {"manners": manners})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/model.pt"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(url: str) -> PublishedModel:
    return PublishedModel("m", "model.pt", hashlib.md5(WEIGHTS).hexdigest(), 3.0, url)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def fetcher(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelFetcher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http_client() as client:
        yield ModelFetcher(client, FetchPatience(attempts=3), waits.append)


def test_a_download_that_breaks_twice_is_continued_where_it_broke(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    manners.break_after = [300_000, 200_000]
    told: list[tuple[int, int | None]] = []

    path = fetcher.fetch(model, tmp_path, lambda done, total: told.append((done, total)))

    assert path.read_bytes() == WEIGHTS
    starts = [int(asked.removeprefix("bytes=").rstrip("-") or 0) for asked in manners.asked]
    assert starts == [0, 300_000, 500_000]
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_of_an_earlier_run_are_continued(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    (tmp_path / "model.pt.partial").write_bytes(WEIGHTS[:1000])
    assert fetcher.fetch(model, tmp_path).read_bytes() == WEIGHTS
    assert manners.asked == ["bytes=1000-"]


def test_bytes_of_another_file_are_noticed_and_the_download_begins_anew(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    (tmp_path / "model.pt.partial").write_bytes(b"x" * 1000)
    assert fetcher.fetch(model, tmp_path).read_bytes() == WEIGHTS
    assert manners.asked == ["bytes=1000-", ""]


def test_a_partial_file_that_was_already_whole_is_used(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    (tmp_path / "model.pt.partial").write_bytes(WEIGHTS)
    assert fetcher.fetch(model, tmp_path).read_bytes() == WEIGHTS


def test_a_server_that_ignores_ranges_gives_the_whole_file(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    manners.ignore_range = True
    manners.break_after = [300_000]
    assert fetcher.fetch(model, tmp_path).read_bytes() == WEIGHTS


def test_a_server_that_sends_another_range_does_not_spoil_the_file(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    manners.shift_range = 7
    (tmp_path / "model.pt.partial").write_bytes(WEIGHTS[:1000])
    assert fetcher.fetch(model, tmp_path).read_bytes() == WEIGHTS


def test_a_file_that_is_there_and_right_is_not_downloaded_again(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    (tmp_path / "model.pt").write_bytes(WEIGHTS)
    fetcher.fetch(model, tmp_path)
    assert manners.asked == []


def test_a_wrong_checksum_is_refused_and_leaves_nothing(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    manners.body = WEIGHTS[:-1] + b"!"
    with pytest.raises(PermanentError) as refused:
        fetcher.fetch(model, tmp_path)
    assert refused.value.reason is Reason.MODEL_CHECKSUM
    assert model.md5 in refused.value.detail
    assert list(tmp_path.iterdir()) == []


def test_an_absent_file_is_refused_at_once(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    manners.statuses = [404]
    with pytest.raises(PermanentError, match="HTTP 404") as refused:
        fetcher.fetch(model, tmp_path)
    assert refused.value.reason is Reason.FETCH_FAILED
    assert len(manners.asked) == 1


def test_an_address_that_leads_in_a_circle_is_given_up(
    model: PublishedModel,
    manners: Manners,
    fetcher: ModelFetcher,
    tmp_path: Path,
    waits: list[float],
) -> None:
    manners.redirect = "/model.pt"
    with pytest.raises(PermanentError, match="redirect") as refused:
        fetcher.fetch(model, tmp_path)
    assert refused.value.reason is Reason.FETCH_FAILED
    assert waits == []


@pytest.mark.parametrize("address", ["foo/model.pt", "http://[::1/model.pt", "gopher://x/model.pt"])
def test_an_address_that_is_none_is_refused_without_a_second_try(
    fetcher: ModelFetcher, tmp_path: Path, waits: list[float], address: str
) -> None:
    model = PublishedModel("m", "model.pt", "0" * 32, 3.0, address)
    with pytest.raises(PermanentError) as refused:
        fetcher.fetch(model, tmp_path)
    assert refused.value.reason is Reason.FETCH_FAILED
    assert waits == []


def test_a_server_in_trouble_is_asked_again_with_longer_waits(
    model: PublishedModel,
    manners: Manners,
    fetcher: ModelFetcher,
    tmp_path: Path,
    waits: list[float],
) -> None:
    manners.statuses = [503, 502, 200]
    assert fetcher.fetch(model, tmp_path).read_bytes() == WEIGHTS
    assert waits == [1.0, 2.0]


def test_a_connection_that_never_gets_on_is_given_up_and_what_arrived_is_kept(
    model: PublishedModel, manners: Manners, fetcher: ModelFetcher, tmp_path: Path
) -> None:
    manners.break_after = [1000, 0, 0, 0, 0]
    with pytest.raises(TransientError) as given_up:
        fetcher.fetch(model, tmp_path)
    assert given_up.value.reason is Reason.FETCH_FAILED
    assert (tmp_path / "model.pt.partial").stat().st_size == 1000


def test_a_proxy_named_by_the_environment_is_asked(
    model: PublishedModel,
    manners: Manners,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, url.removesuffix("/model.pt"))
    elsewhere = PublishedModel("m", "model.pt", model.md5, 3.0, "http://weights.invalid/model.pt")
    with http_client() as client:
        path = ModelFetcher(client).fetch(elsewhere, tmp_path)
    assert path.read_bytes() == WEIGHTS


def test_the_published_list_names_both_resolutions() -> None:
    assert {model.spacing_mm: model.file for model in published_models()} == {
        1.5: "model.pt",
        3.0: "model_lowres.pt",
    }
    assert all(len(model.md5) == 32 for model in published_models())
    assert all(model.url.startswith("https://") for model in published_models())
