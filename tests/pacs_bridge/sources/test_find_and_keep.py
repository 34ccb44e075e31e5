"""What archives say and send that is not what was asked for: it is told apart, coded or left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest

from inference.reasons import Reason
from pacs_bridge.config.sources import DicomwebSourceConfig
from pacs_bridge.dicomweb.retry_after import retry_after_s
from pacs_bridge.errors import BridgeError, PermanentError, TransientError
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive
from pacs_bridge.sources.received_series import ReceivedSeries, SizeLimits, WantedSeries
from pacs_bridge.sources.remote_archive import SeriesQuery


@pytest.fixture
def original(make_original: Callable[..., Any]) -> Any:
    return make_original(3)


@pytest.fixture
def service(serve_web: Callable[..., Any], original: Any) -> Any:
    return serve_web(original.paths)


@pytest.fixture
def open_archive(service: Any, kept_log: Any) -> Iterator[Callable[..., DicomwebArchive]]:
    opened: list[DicomwebArchive] = []

    def make(**settings: object) -> DicomwebArchive:
        table = {"name": "pacs", "kind": "dicomweb", "url": service.url} | settings
        config = DicomwebSourceConfig.model_validate_json(json.dumps(table))
        opened.append(DicomwebArchive(config, BriefRetry(lambda seconds: None), kept_log))
        return opened[-1]

    yield make
    for archive in opened:
        archive.close()


def _row(study: object, series: object, count: object = 80) -> dict[str, object]:
    return {
        "0020000D": {"Value": [study]},
        "0020000E": {"Value": [series]},
        "00080060": {"Value": ["CT"]},
        "00201209": {"Value": [count]},
    }


def test_one_series_uid_in_two_studies_is_two_series(
    service: Any, open_archive: Callable[..., DicomwebArchive]
) -> None:
    rows = [_row("1.100", "1.2.3"), _row("1.200", "1.2.3"), _row("1.200", "1.2.3")]
    service.pages = lambda _, limit, offset: rows[offset : offset + limit]
    for query in (SeriesQuery(), SeriesQuery(series_instance_uids=("1.2.3",))):
        found = [each.study_instance_uid for each in open_archive().find(query)]
        assert found == ["1.100", "1.200"]


@pytest.mark.parametrize("bad", ["../../x", "1.\ud800", "", None, "1" * 70, {"a": 1}])
def test_a_row_without_a_uid_that_can_be_asked_for_is_given_as_such_and_ends_no_search(
    service: Any, open_archive: Callable[..., DicomwebArchive], kept_log: Any, bad: object
) -> None:
    rows = [_row("1.2", bad), _row("1.2", "1.2.4")]
    service.pages = lambda _, limit, offset: rows[offset : offset + limit]
    found = list(open_archive().find(SeriesQuery()))
    assert [each.is_named for each in found] == [False, True]
    assert found[1].series_instance_uid == "1.2.4"
    assert kept_log.lines == [("series-without-uid", {"source": "pacs", "number": 1})]


@pytest.mark.parametrize("page_size", [3, 100])
@pytest.mark.parametrize(
    "pages",
    [
        lambda rows, limit, offset: rows[offset : offset + limit],
        lambda rows, limit, offset: rows,
        lambda rows, limit, offset: rows[:limit],
    ],
    ids=["as-told", "all-at-once", "no-offset"],
)
def test_every_row_without_a_uid_counts_once_however_a_service_pages(
    service: Any, open_archive: Callable[..., DicomwebArchive], pages: Any, page_size: int
) -> None:
    named = [_row("1.2", f"1.2.{number}") for number in range(3)]
    rows = [*named, _row("1.2", None), _row("1.2", None), _row("1.3", None), _row("1.2", "x")]
    service.pages = lambda _, limit, offset: pages(rows, limit, offset)
    query = SeriesQuery(modalities=("CT", "MR"))  # a search each, and the service knows no keys
    found = list(open_archive(page_size=page_size).find(query))
    assert sum(each.is_named for each in found) == 3
    assert sum(not each.is_named for each in found) == 4


@pytest.mark.parametrize("answer", [b"{}", b'""', b"0", b"false"])
def test_what_is_no_list_is_not_taken_for_an_empty_one(
    service: Any, open_archive: Callable[..., DicomwebArchive], answer: bytes
) -> None:
    service.faults = [lambda exchange: exchange.json(answer)]
    with pytest.raises(PermanentError) as caught:
        list(open_archive().find(SeriesQuery()))
    assert caught.value.reason is Reason.BAD_ANSWER


def test_a_page_that_says_that_it_is_a_part_is_followed_by_the_next(
    service: Any, open_archive: Callable[..., DicomwebArchive]
) -> None:
    rows = [_row("1.2", f"1.2.{number}") for number in range(5)]
    service.faults = [lambda exchange: exchange.json(rows[:2], 206)]
    service.pages = lambda _, limit, offset: rows[offset : offset + limit]
    assert len(list(open_archive().find(SeriesQuery()))) == 5
    service.faults = [lambda exchange: exchange.json(rows[:1], 206)]
    assert "some" in open_archive().ask()


def test_a_check_that_raises_ends_a_search_between_two_pages(
    service: Any, open_archive: Callable[..., DicomwebArchive]
) -> None:
    rows = [_row("1.2", f"1.2.{number}") for number in range(100)]
    service.pages = lambda _, limit, offset: rows[offset : offset + limit]

    class Leaving(Exception):
        pass

    def check() -> None:
        if len(service.requests) >= 3:
            raise Leaving

    found = []
    with pytest.raises(Leaving):
        found.extend(open_archive(page_size=10).find(SeriesQuery(), check))
    assert len(service.requests) == 3


@pytest.mark.parametrize("count", [2**31, 2**63, -1, 1e300, "9" * 5000, "many", None])
def test_a_count_that_cannot_be_is_none(
    service: Any, open_archive: Callable[..., DicomwebArchive], count: object
) -> None:
    rows = [_row("1.2", "1.2.4", count)]
    service.pages = lambda _, limit, offset: rows[offset : offset + limit]
    (found,) = open_archive().find(SeriesQuery())
    assert found.instance_count is None


def test_texts_can_be_written_down(
    service: Any, open_archive: Callable[..., DicomwebArchive]
) -> None:
    rows = [_row("1.2", "1.2.4") | {"0008103E": {"Value": ["a\ud800b\0c "]}}]
    service.pages = lambda _, limit, offset: rows[offset : offset + limit]
    (found,) = open_archive().find(SeriesQuery())
    assert found.facts.series_description.encode() == b"a?bc"


@pytest.mark.parametrize(
    "header",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        "Mon, 01 Jan 2026 00:00:00 +99999999",
        "9" * 400,
        "",
        ",",
    ],
)
def test_a_wait_that_makes_no_sense_is_none_or_the_longest(header: str) -> None:
    assert 0 <= retry_after_s(header, datetime.now(UTC)) <= 3600


def test_a_token_beyond_ascii_is_said_and_not_repeated(
    open_archive: Callable[..., DicomwebArchive], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("geheim-tökén")
    archive = open_archive(auth={"token_file": str(tmp_path / "token")})
    with pytest.raises(TransientError) as caught:
        archive.ask()
    assert caught.value.reason is Reason.NOT_AUTHORISED
    assert "geheim" not in caught.value.detail


def _fetch(archive: DicomwebArchive, study: str, series: str, folder: Path) -> tuple[Path, ...]:
    return archive.fetch(study, series, folder, lambda: None)


def test_a_series_of_another_study_is_not_what_was_asked_for(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    with pytest.raises(BridgeError) as caught:
        _fetch(open_archive(), "1.2.3.4", original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.SOURCE_MISSING


def test_an_instance_of_another_study_under_a_listed_uid_is_a_bad_answer(
    open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    ds = pydicom.dcmread(original.paths[0])
    ds.StudyInstanceUID = "1.2.3.4"
    ds.save_as(original.paths[1])
    with pytest.raises(PermanentError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.BAD_ANSWER


def test_a_range_of_an_instance_is_none(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    def some_bytes(exchange: Any) -> None:
        body = original.paths[0].read_bytes()[:-100]
        exchange.say(206, {"Content-Type": "application/dicom"}, body)

    service.faults = [lambda exchange: False] * 3 + [some_bytes]
    with pytest.raises(PermanentError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.BAD_ANSWER


_CUT_BYTES = 40  # within the pixels of an original


def _parts_with_a_cut_one(exchange: Any, paths: list[Path]) -> None:
    files = [path.read_bytes() for path in paths]
    exchange.parts([files[0], files[1][:-_CUT_BYTES], *files[2:]])


def test_an_instance_that_is_cut_in_a_body_that_is_not_is_asked_for_by_itself(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    service.faults = [lambda exchange: False] * 3
    service.faults.append(lambda exchange: _parts_with_a_cut_one(exchange, original.paths))
    got = _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    original.assert_is(got)
    asked = [path for _, path, _ in service.requests if "/instances/" in path]
    (cut,) = asked
    assert cut.endswith(list(service.files)[1])


def test_an_instance_that_always_comes_cut_is_missing_for_now_and_named(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    data = original.paths[1].read_bytes()
    original.paths[1].write_bytes(data[:-_CUT_BYTES])
    with pytest.raises(TransientError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.SOURCE_INCOMPLETE
    assert list(service.files)[1] in caught.value.detail


def test_an_instance_that_is_cut_where_no_count_says_what_is_missing_is_incomplete(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    _hide_the_count(service, listed=1)

    def cut(exchange: Any) -> None:
        _parts_with_a_cut_one(exchange, original.paths)

    service.faults = [lambda exchange: _cut_series(exchange, cut)] * 99
    with pytest.raises(TransientError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.SOURCE_INCOMPLETE


def test_pixels_that_are_too_few_in_the_archive_are_refused_and_not_asked_for_again(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    ds = pydicom.dcmread(original.paths[1])
    ds.PixelData = ds.PixelData[:-_CUT_BYTES]
    ds.save_as(original.paths[1])
    with pytest.raises(PermanentError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.CORRUPT_PIXEL_DATA
    assert len([path for _, path, _ in service.requests if "?" not in path]) == 1


def test_one_instance_with_two_contents_in_one_answer_is_a_conflict(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    ds = pydicom.dcmread(original.paths[0])
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(tmp_path / "other.dcm")

    def with_another(exchange: Any) -> None:
        exchange.parts([p.read_bytes() for p in (*original.paths, tmp_path / "other.dcm")])

    service.faults = [lambda exchange: False] * 3 + [with_another]
    with pytest.raises(PermanentError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.CONFLICTING_INSTANCE


@pytest.mark.parametrize(
    ("status", "warning"),
    [(200, '299 pacs: "There are 150 additional results that can be requested"'), (206, "")],
    ids=["warning", "partial"],
)
def test_results_that_a_service_keeps_back_and_says_so_end_a_search_as_an_error(
    service: Any, open_archive: Callable[..., DicomwebArchive], status: int, warning: str
) -> None:
    """It caps its pages and does not heed ``offset``."""
    rows = [_row("1.2", f"1.2.{number}") for number in range(1, 251)]
    headers = {"Content-Type": "application/dicom+json"} | ({"Warning": warning} if warning else {})

    def capped(exchange: Any) -> None:
        exchange.say(status, headers, json.dumps(rows[:100]).encode())

    service.faults = [capped] * 50
    with pytest.raises(PermanentError) as caught:
        list(open_archive().find(SeriesQuery()))
    assert caught.value.reason is Reason.BAD_ANSWER


def _hide_the_count(service: Any, listed: int) -> None:
    """The service gives no count, and always the same first instances."""

    def pages(rows: list[Any], limit: int, offset: int) -> list[Any]:
        if "00201209" in rows[0]:
            return [{tag: value for tag, value in rows[0].items() if tag != "00201209"}]
        return rows[:listed]

    service.pages = pages


def test_an_instance_that_a_confirmed_list_does_not_hold_is_not_taken(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    ds = pydicom.dcmread(original.paths[0])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    ds.StudyInstanceUID = "1.2.3.4"
    ds.save_as(tmp_path / "extra.dcm")

    def with_another(exchange: Any) -> None:
        exchange.parts([p.read_bytes() for p in (tmp_path / "extra.dcm", *original.paths)])

    service.faults = [lambda exchange: False] * 3 + [with_another]
    got = _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    original.assert_is(got)


def test_a_list_that_no_count_confirms_cuts_nothing(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    _hide_the_count(service, listed=2)
    got = _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    original.assert_is(got)


def test_a_body_that_breaks_off_without_a_count_is_incomplete(
    service: Any, open_archive: Callable[..., DicomwebArchive], original: Any, tmp_path: Path
) -> None:
    _hide_the_count(service, listed=1)

    def cut(exchange: Any) -> None:
        files = [path.read_bytes() for path in original.paths]
        exchange.parts(files, cut_bytes=int(0.8 * sum(map(len, files))))

    service.faults = [lambda exchange: _cut_series(exchange, cut)] * 99
    with pytest.raises(TransientError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.SOURCE_INCOMPLETE


def _cut_series(exchange: Any, cut: Callable[[Any], None]) -> object:
    if "?" in exchange.path:
        return False
    return cut(exchange)


def test_the_limit_of_a_series_counts_what_is_kept(original: Any, tmp_path: Path) -> None:
    data = original.paths[0].read_bytes()
    wanted = WantedSeries(original.study_uid, original.series_uid)
    series = ReceivedSeries(tmp_path / "got", wanted, SizeLimits(1 << 20, int(2.5 * len(data))))
    for _ in range(5):
        series.take([data])
    with pytest.raises(PermanentError):
        series.take([data[:1000], b"no DICOM" * len(data)])
    series.take([original.paths[1].read_bytes()])
    with pytest.raises(PermanentError) as caught:
        series.take([original.paths[2].read_bytes()])
    assert caught.value.reason is Reason.TOO_LARGE
    assert len(series.paths) == 2


def test_a_list_without_end_is_too_large(
    service: Any,
    open_archive: Callable[..., DicomwebArchive],
    original: Any,
    tmp_path: Path,
) -> None:
    def pages(rows: list[Any], limit: int, offset: int) -> list[Any]:
        if "00201209" in rows[0]:
            return rows[offset : offset + limit]
        return [{"00080018": {"Value": [f"1.2.{offset + n}"]}} for n in range(20_000)]

    service.pages = pages
    with pytest.raises(PermanentError) as caught:
        _fetch(open_archive(), original.study_uid, original.series_uid, tmp_path / "got")
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_small_page_of_very_many_rows_is_not_decoded(
    service: Any, open_archive: Callable[..., DicomwebArchive]
) -> None:
    service.faults = [lambda exchange: exchange.json(b"[" + b"{}," * 2_000_000 + b"{}]")]
    with pytest.raises(PermanentError) as caught:
        list(open_archive().find(SeriesQuery()))
    assert caught.value.reason is Reason.BAD_ANSWER
