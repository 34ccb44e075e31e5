"""Searching and fetching over DICOMweb from a real Orthanc."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from inference.reasons import Reason
from pacs_bridge.config.sources import DicomwebSourceConfig
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive
from pacs_bridge.sources.remote_archive import SeriesQuery

pytestmark = pytest.mark.pacs


def _nothing() -> None:
    pass


@pytest.fixture
def open_archive() -> Iterator[Callable[..., DicomwebArchive]]:
    opened: list[DicomwebArchive] = []

    def make(url: str, **settings: object) -> DicomwebArchive:
        table = {"name": "pacs", "kind": "dicomweb", "url": url} | settings
        config = DicomwebSourceConfig.model_validate_json(json.dumps(table))
        opened.append(DicomwebArchive(config))
        return opened[-1]

    yield make
    for archive in opened:
        archive.close()


@pytest.mark.parametrize("page_size", [2, 500])
def test_a_series_is_found_by_its_study_with_what_routes_need(
    orthanc: Any,
    open_archive: Callable[..., DicomwebArchive],
    make_original: Callable[..., Any],
    page_size: int,
) -> None:
    original = make_original(5, SeriesDescription="Thorax 1.0", ProtocolName="Chest")
    orthanc.put(original.paths)
    archive = open_archive(orthanc.url, page_size=page_size)

    (found,) = archive.find(SeriesQuery(study_instance_uids=(original.study_uid,)))

    assert found.series_instance_uid == original.series_uid
    assert found.study_instance_uid == original.study_uid
    assert (found.modality, found.instance_count, found.study_date) == ("CT", 5, "20260301")
    assert found.facts.series_description == "Thorax 1.0"
    assert found.facts.study_description == "Whole body"
    assert found.facts.protocol_name == "Chest"


def test_a_search_by_date_and_modality_gives_every_series_once_over_pages(
    orthanc: Any, open_archive: Callable[..., DicomwebArchive], make_original: Callable[..., Any]
) -> None:
    wanted = set()
    for number in range(5):
        original = make_original(1, StudyDescription="paged", StudyDate=f"2025010{number + 1}")
        orthanc.put(original.paths)
        wanted.add(original.series_uid)
    other = make_original(1, StudyDescription="paged", StudyDate="20250110")
    orthanc.put(other.paths)
    archive = open_archive(orthanc.url, page_size=2)

    query = SeriesQuery(date(2025, 1, 1), date(2025, 1, 5), study_description="paged")
    found = [each.series_instance_uid for each in archive.find(query)]

    assert len(found) == 5
    assert set(found) == wanted


@pytest.mark.parametrize("knows_study", [True, False])
def test_a_fetched_series_is_the_one_that_was_stored(
    orthanc: Any,
    open_archive: Callable[..., DicomwebArchive],
    make_original: Callable[..., Any],
    tmp_path: Path,
    knows_study: bool,
) -> None:
    original = make_original(7)
    orthanc.put(original.paths)
    archive = open_archive(orthanc.url)

    study = original.study_uid if knows_study else ""
    paths = archive.fetch(study, original.series_uid, tmp_path / "got", _nothing)

    original.assert_is(paths)


def test_series_are_found_by_their_uids_alone(
    orthanc: Any, open_archive: Callable[..., DicomwebArchive], make_original: Callable[..., Any]
) -> None:
    originals = [make_original(1) for _ in range(3)]
    for each in originals:
        orthanc.put(each.paths)
    wanted = tuple(each.series_uid for each in originals)
    found = list(open_archive(orthanc.url).find(SeriesQuery(series_instance_uids=wanted)))
    assert [each.series_instance_uid for each in found] == list(wanted)
    assert [each.study_instance_uid for each in found] == [each.study_uid for each in originals]


def test_a_series_that_the_archive_does_not_have_is_missing(
    orthanc: Any, open_archive: Callable[..., DicomwebArchive], tmp_path: Path
) -> None:
    archive = open_archive(orthanc.url)
    with pytest.raises(PermanentError) as missing:
        archive.fetch("1.2.3", "1.2.3.4", tmp_path, _nothing)
    assert missing.value.reason is Reason.SOURCE_MISSING
    assert list(archive.find(SeriesQuery(series_instance_uids=("1.2.3.4",)))) == []


def test_an_archive_is_asked_whether_it_is_there(
    orthanc: Any, open_archive: Callable[..., DicomwebArchive]
) -> None:
    assert "QIDO-RS answers" in open_archive(orthanc.url).ask()
    with pytest.raises(PermanentError):
        open_archive(orthanc.url.replace("dicom-web", "nowhere")).ask()
    with pytest.raises(TransientError) as nobody:
        open_archive("http://127.0.0.1:1/dicom-web").ask()
    assert nobody.value.reason is Reason.SOURCE_UNREACHABLE
