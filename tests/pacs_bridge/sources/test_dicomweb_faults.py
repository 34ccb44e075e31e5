"""Every way in which a DICOMweb service can fail a fetch, by a server that does."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.reasons import Reason
from pacs_bridge.config.sources import DicomwebSourceConfig
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive
from pacs_bridge.sources.remote_archive import SeriesQuery


def _nothing() -> None:
    pass


class Patience:
    """Waits that are counted and not waited for."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []
        self.now_s = 0.0

    def wait(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.now_s += seconds

    def steady_s(self) -> float:
        return self.now_s


@pytest.fixture
def patience() -> Patience:
    return Patience()


@pytest.fixture
def open_archive(patience: Patience) -> Iterator[Callable[..., DicomwebArchive]]:
    opened: list[DicomwebArchive] = []

    def make(url: str, **settings: object) -> DicomwebArchive:
        table = {"name": "pacs", "kind": "dicomweb", "url": url, "response_timeout_s": 5}
        config = DicomwebSourceConfig.model_validate_json(json.dumps(table | settings))
        opened.append(DicomwebArchive(config, BriefRetry(patience.wait, patience.steady_s)))
        return opened[-1]

    yield make
    for archive in opened:
        archive.close()


@pytest.fixture
def original(make_original: Callable[..., Any]) -> Any:
    return make_original(6)


@pytest.fixture
def service(serve_web: Callable[..., Any], original: Any) -> Any:
    return serve_web(original.paths)


@pytest.fixture
def fetch(
    service: Any, original: Any, open_archive: Callable[..., DicomwebArchive], tmp_path: Path
) -> Callable[..., tuple[Path, ...]]:
    def run(**settings: object) -> tuple[Path, ...]:
        archive = open_archive(service.url, **settings)
        return archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)

    return run


def _error(fetch: Callable[..., object], **settings: object) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        fetch(**settings)
    assert type(caught.value) is not BridgeError
    return caught.value


SEARCHES = 3  # requests before the series itself is asked for: one page, and two of instances


def _at_the_series(fault: Callable[[Any], object]) -> list[Callable[[Any], object]]:
    return [lambda exchange: False] * SEARCHES + [fault]


def test_a_sound_service_gives_the_series(fetch: Callable[..., Any], original: Any) -> None:
    original.assert_is(fetch())


@pytest.mark.parametrize("page_size", [1, 4, 6, 100])
@pytest.mark.parametrize(
    "pages",
    [
        lambda rows, limit, offset: rows[offset : offset + limit],
        lambda rows, limit, offset: rows,  # knows neither limit nor offset
        lambda rows, limit, offset: rows[:limit],  # knows limit alone
        lambda rows, limit, offset: rows[offset : offset + min(limit, 2)],  # has a limit of its own
    ],
    ids=["as-told", "all-at-once", "no-offset", "own-limit"],
)
def test_all_instances_are_listed_however_a_service_pages(
    service: Any, fetch: Callable[..., Any], original: Any, pages: Any, page_size: int
) -> None:
    service.pages = pages
    original.assert_is(fetch(page_size=page_size))


@pytest.mark.parametrize("status", [429, 502, 503, 504, 500, 408])
def test_a_service_that_is_busy_for_a_moment_is_asked_again(
    service: Any, fetch: Callable[..., Any], original: Any, patience: Patience, status: int
) -> None:
    service.faults = [lambda exchange: exchange.say(status)] * 2
    original.assert_is(fetch())
    assert 0 < sum(patience.waits_s) < 10


@pytest.mark.parametrize(
    "header",
    ["7", time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 8))],
    ids=["seconds", "date"],
)
def test_a_wait_that_a_service_asks_for_is_kept(
    service: Any, fetch: Callable[..., Any], original: Any, patience: Patience, header: str
) -> None:
    header = (
        header
        if header == "7"
        else time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 8))
    )
    service.faults = _at_the_series(lambda exchange: exchange.say(503, {"Retry-After": header}))
    original.assert_is(fetch())
    assert 5 < sum(patience.waits_s) < 10


def test_a_service_that_asks_for_a_long_wait_is_left_to_the_queue_and_not_asked_before(
    service: Any,
    original: Any,
    open_archive: Callable[..., DicomwebArchive],
    tmp_path: Path,
    patience: Patience,
) -> None:
    archive = open_archive(service.url)
    service.faults = [lambda exchange: exchange.say(429, {"Retry-After": "600"})]
    for _ in range(2):
        with pytest.raises(TransientError) as busy:
            archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)
        assert busy.value.reason is Reason.SOURCE_UNREACHABLE
    assert len(service.requests) == 1
    patience.now_s += 601
    archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, PermanentError, Reason.SOURCE_REFUSED),
        (401, PermanentError, Reason.NOT_AUTHORISED),
        (403, PermanentError, Reason.NOT_AUTHORISED),
        (404, PermanentError, Reason.SOURCE_MISSING),
        (413, PermanentError, Reason.SOURCE_REFUSED),
        (415, PermanentError, Reason.SOURCE_REFUSED),
        (501, PermanentError, Reason.SOURCE_REFUSED),
        (202, PermanentError, Reason.BAD_ANSWER),
        (302, PermanentError, Reason.BAD_ANSWER),
        (503, TransientError, Reason.SOURCE_UNREACHABLE),
    ],
)
def test_a_status_that_lasts_is_said_by_its_code(
    service: Any, fetch: Callable[..., Any], status: int, kind: type, reason: Reason
) -> None:
    service.faults = [lambda exchange: exchange.say(status)] * 99
    error = _error(fetch)
    assert isinstance(error, kind)
    assert error.reason is reason
    assert str(status) in error.detail


@pytest.mark.parametrize("status", [413, 400])
def test_a_series_that_is_too_much_at_once_is_fetched_one_by_one(
    service: Any, fetch: Callable[..., Any], original: Any, status: int
) -> None:
    service.faults = _at_the_series(lambda exchange: exchange.say(status))
    if status == 400:  # which may also mean that it does not know "as stored"
        service.faults.append(lambda exchange: exchange.say(status))
    original.assert_is(fetch())


def test_a_service_that_knows_no_stored_syntax_is_asked_for_any(
    service: Any, fetch: Callable[..., Any], original: Any
) -> None:
    service.faults = _at_the_series(lambda exchange: exchange.say(406))
    original.assert_is(fetch())
    asked = [headers["Accept"] for _, path, headers in service.requests[SEARCHES:]]
    assert ["transfer-syntax=*" in each for each in asked] == [True, False]


def test_instances_that_do_not_come_with_their_series_are_fetched_by_name(
    service: Any, fetch: Callable[..., Any], original: Any
) -> None:
    service.hidden = set(list(service.files)[2:4])
    original.assert_is(fetch())


def test_a_service_that_lists_much_that_it_has_not_is_asked_for_a_few_of_them_only(
    service: Any, fetch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs_bridge.sources.dicomweb_archive._MOST_NOT_THERE", 3)
    service.gone = set(list(service.files)[1:])
    with pytest.raises(TransientError) as error:
        fetch()

    assert error.value.reason is Reason.SOURCE_INCOMPLETE
    assert "5 of 6 instances" in error.value.detail
    asked = [path for _, path, _ in service.requests if "/instances/" in path]
    assert len(asked) == 3


@pytest.mark.parametrize("status", [200, 206])
def test_a_part_of_a_series_is_never_the_whole(
    service: Any, fetch: Callable[..., Any], status: int
) -> None:
    service.gone = set(list(service.files)[2:4])
    some = [path.read_bytes() for uid, path in service.files.items() if uid not in service.gone]
    service.faults = _at_the_series(lambda exchange: exchange.parts(some, status))
    error = _error(fetch)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_INCOMPLETE
    assert "2 of 6" in error.detail


def test_a_list_shorter_than_the_count_is_no_list(service: Any, fetch: Callable[..., Any]) -> None:
    service.pages = lambda rows, limit, offset: rows[:3][offset:]
    assert _error(fetch).reason is Reason.SOURCE_INCOMPLETE


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_a_body_that_breaks_off_is_made_up_for(
    service: Any, fetch: Callable[..., Any], original: Any, share: float
) -> None:
    def cut(exchange: Any) -> None:
        files = [path.read_bytes() for path in service.files.values()]
        exchange.parts(files, cut_bytes=int(share * sum(map(len, files))))

    service.faults = _at_the_series(cut)
    original.assert_is(fetch())


def test_a_body_that_ends_before_its_last_boundary_without_a_fault_of_the_line_is_made_up_for(
    service: Any, fetch: Callable[..., Any], original: Any
) -> None:
    def truncated(exchange: Any) -> None:
        data = next(iter(service.files.values())).read_bytes()
        head = f"--{exchange.BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={exchange.BOUNDARY}'
        exchange.say(200, {"Content-Type": kind}, head + data[: len(data) // 2])

    service.faults = _at_the_series(truncated)
    original.assert_is(fetch())


def test_a_connection_that_is_dropped_before_an_answer_is_opened_again(
    service: Any, fetch: Callable[..., Any], original: Any
) -> None:
    service.faults = [lambda exchange: exchange.drop()] * 2
    original.assert_is(fetch())


def test_a_service_that_always_drops_the_line_is_unreachable(
    service: Any, fetch: Callable[..., Any]
) -> None:
    service.faults = [lambda exchange: exchange.drop()] * 99
    error = _error(fetch)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert len(service.requests) == 3


@pytest.mark.parametrize("boundary", ["another", "", "x" * 300])
def test_a_wrong_boundary_is_a_bad_answer(
    service: Any, fetch: Callable[..., Any], boundary: str
) -> None:
    def wrong(exchange: Any) -> None:
        body = b"--parts\r\n\r\nx\r\n--parts--\r\n"
        kind = f'multipart/related; type="application/dicom"; boundary="{boundary}"'
        exchange.say(200, {"Content-Type": kind}, body)

    service.faults = _at_the_series(wrong)
    error = _error(fetch)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.BAD_ANSWER


@pytest.mark.parametrize(
    "body",
    [b"", b"nothing of DICOM", b"\0" * 128 + b"DICM" + b"\xff" * 100],
    ids=["empty", "text", "broken"],
)
def test_a_part_that_is_no_dicom_file_is_a_bad_answer(
    service: Any, fetch: Callable[..., Any], body: bytes, tmp_path: Path
) -> None:
    service.faults = _at_the_series(lambda exchange: exchange.parts([body]))
    assert _error(fetch).reason is Reason.BAD_ANSWER
    assert list((tmp_path / "got").iterdir()) == []


def test_an_instance_of_another_series_is_a_bad_answer(
    service: Any, fetch: Callable[..., Any], make_original: Callable[..., Any]
) -> None:
    foreign = make_original(1).paths[0].read_bytes()
    service.faults = _at_the_series(lambda exchange: exchange.parts([foreign]))
    error = _error(fetch)
    assert error.reason is Reason.BAD_ANSWER
    assert "another series" in error.detail


@pytest.mark.parametrize(
    "answer", [b"{", b"[" * 100_000, b'{"a": 1}', b"[1]", b'[{"00080018": {"vr": "UI"}}]']
)
def test_a_search_that_cannot_be_read_is_a_bad_answer(
    service: Any, fetch: Callable[..., Any], answer: bytes
) -> None:
    service.faults = [lambda exchange: exchange.json(answer)]
    assert _error(fetch).reason is Reason.BAD_ANSWER


def test_a_uid_that_leads_elsewhere_is_never_part_of_an_address(
    service: Any, fetch: Callable[..., Any]
) -> None:
    row = {"00080018": {"vr": "UI", "Value": ["../../../secret"]}}
    service.pages = lambda rows, limit, offset: (
        rows if "00201209" in rows[0] else [row] * (offset == 0)
    )
    assert _error(fetch).reason in (Reason.BAD_ANSWER, Reason.SOURCE_INCOMPLETE)
    assert all("secret" not in path for _, path, _ in service.requests)


def test_a_compressed_answer_is_not_inflated(service: Any, fetch: Callable[..., Any]) -> None:
    bomb = {"Content-Type": "application/dicom+json", "Content-Encoding": "gzip"}
    service.faults = [lambda exchange: exchange.say(200, bomb, b"\x1f\x8b" + bytes(100))]
    error = _error(fetch)
    assert error.reason is Reason.BAD_ANSWER
    assert "compressed" in error.detail
    assert {h.get("Accept-Encoding") for _, _, h in service.requests} == {"identity"}


def test_an_answer_that_announces_more_than_it_may_is_not_read(
    service: Any, fetch: Callable[..., Any]
) -> None:
    bomb = {"Content-Type": "application/dicom+json", "Content-Length": str(4 << 30)}
    service.faults = [lambda exchange: exchange.say(200, bomb) or exchange.drop()]
    assert _error(fetch).reason is Reason.BAD_ANSWER


def test_a_part_beyond_the_limit_is_too_large_and_leaves_nothing(
    service: Any, fetch: Callable[..., Any], tmp_path: Path
) -> None:
    service.faults = _at_the_series(lambda exchange: exchange.parts([bytes(2 << 20)]))
    error = _error(fetch, max_instance_mib=1)
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.TOO_LARGE
    assert list((tmp_path / "got").iterdir()) == []


def test_a_part_that_announces_more_than_the_limit_is_refused_before_it_is_read(
    service: Any, fetch: Callable[..., Any]
) -> None:
    def announce(exchange: Any) -> None:
        head = f"--{exchange.BOUNDARY}\r\nContent-Length: {1 << 40}\r\n\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={exchange.BOUNDARY}'
        exchange.say(200, {"Content-Type": kind}, head + bytes(1000))

    service.faults = _at_the_series(announce)
    assert _error(fetch).reason is Reason.TOO_LARGE


def test_a_body_that_drips_is_cut_off(
    service: Any, fetch: Callable[..., Any], original: Any
) -> None:
    def drip(exchange: Any) -> None:
        kind = f'multipart/related; type="application/dicom"; boundary={exchange.BOUNDARY}'
        exchange.say(200, {"Content-Type": kind, "Content-Length": str(1 << 20)}, b"--")
        for _ in range(100):
            exchange.wfile.write(b"x")
            time.sleep(0.05)
        exchange.drop()

    service.faults = _at_the_series(drip)
    original.assert_is(fetch(response_timeout_s=0.4))


def test_no_answer_in_time_is_unreachable(service: Any, fetch: Callable[..., Any]) -> None:
    service.faults = [lambda exchange: time.sleep(0.6)] * 3
    error = _error(fetch, response_timeout_s=0.2)
    assert isinstance(error, TransientError)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "ReadTimeout" in error.detail


def test_credentials_do_not_follow_a_redirect_to_another_host(
    service: Any,
    serve_web: Callable[..., Any],
    original: Any,
    fetch: Callable[..., Any],
    tmp_path: Path,
) -> None:
    other = serve_web(original.paths)
    (tmp_path / "token").write_text("very-secret\n")
    service.faults = [lambda exchange: exchange.say(307, {"Location": other.url + exchange.path})]
    error = _error(fetch, auth={"token_file": str(tmp_path / "token")})
    assert isinstance(error, PermanentError)
    assert error.reason is Reason.BAD_ANSWER
    assert "redirects to" in error.detail
    assert other.requests == []
    assert "very-secret" not in error.detail


def test_a_redirect_within_the_service_is_followed_and_a_circle_is_not(
    service: Any, fetch: Callable[..., Any], original: Any
) -> None:
    def again(exchange: Any) -> None:
        exchange.say(302, {"Location": exchange.path})

    service.faults = [again]
    original.assert_is(fetch())
    service.faults = [again] * 99
    assert _error(fetch).reason is Reason.BAD_ANSWER


def test_a_token_is_shown_and_read_again_when_it_is_renewed(
    service: Any, fetch: Callable[..., Any], original: Any, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    auth = {"token_file": str(token)}

    def refuse(exchange: Any) -> bool:
        assert exchange.headers["Authorization"] == "Bearer old"
        token.write_text("renewed\n")
        exchange.say(401)
        return True

    service.faults = [refuse]
    original.assert_is(fetch(auth=auth))
    shown = [headers["Authorization"] for _, _, headers in service.requests]
    assert shown == ["Bearer old", *["Bearer renewed"] * (len(shown) - 1)]


def test_a_token_that_is_refused_may_be_renewed_and_is_told_to_nobody(
    service: Any, fetch: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("very-secret")
    service.faults = [lambda exchange: exchange.say(401)] * 9
    error = _error(fetch, auth={"token_file": str(tmp_path / "token")})
    assert isinstance(error, TransientError)
    assert error.reason is Reason.NOT_AUTHORISED
    assert "very-secret" not in error.detail


def test_a_password_is_read_from_its_file(
    service: Any, fetch: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("pass word")
    fetch(auth={"user": "bridge", "password_file": str(tmp_path / "password")})
    assert service.requests[0][2]["Authorization"] == "Basic YnJpZGdlOnBhc3Mgd29yZA=="


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe"])
def test_a_file_without_a_secret_is_said_without_asking(
    service: Any, fetch: Callable[..., Any], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    error = _error(fetch, auth={"token_file": str(path)})
    assert isinstance(error, TransientError)
    assert error.reason is Reason.NOT_AUTHORISED
    assert service.requests == []


def test_what_the_environment_says_of_proxies_is_not_followed(
    fetch: Callable[..., Any], original: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    original.assert_is(fetch())


def test_a_check_that_raises_ends_a_fetch(
    service: Any,
    original: Any,
    open_archive: Callable[..., DicomwebArchive],
    tmp_path: Path,
) -> None:
    class Leaving(Exception):
        pass

    def check() -> None:
        if len(os.listdir(tmp_path / "got")) >= 2:
            raise Leaving

    (tmp_path / "got").mkdir()
    archive = open_archive(service.url)
    with pytest.raises(Leaving):
        archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", check)
    assert all(path.suffix == ".dcm" for path in (tmp_path / "got").iterdir())  # nothing half


def test_a_service_that_does_not_know_the_keys_of_a_search_gives_no_more_than_was_asked_for(
    service: Any, open_archive: Callable[..., DicomwebArchive]
) -> None:
    archive = open_archive(service.url)
    assert len(list(archive.find(SeriesQuery()))) == 1
    assert list(archive.find(SeriesQuery(modalities=("MR",)))) == []
    assert list(archive.find(SeriesQuery(series_instance_uids=("1.2.3",)))) == []
