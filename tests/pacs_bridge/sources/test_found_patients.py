"""Whose series an archive has: as it says, and each patient of one UID by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pacs_bridge.config.sources import DicomwebSourceConfig, DimseSourceConfig
from pacs_bridge.sources.brief_retry import BriefRetry
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive
from pacs_bridge.sources.dimse_archive import DimseArchive
from pacs_bridge.sources.remote_archive import FoundPatient, RemoteArchive, SeriesQuery


@pytest.fixture
def open_web(kept_log: Any) -> Iterator[Callable[[str], DicomwebArchive]]:
    opened: list[DicomwebArchive] = []

    def make(url: str) -> DicomwebArchive:
        table = {"name": "pacs", "kind": "dicomweb", "url": url}
        config = DicomwebSourceConfig.model_validate_json(json.dumps(table))
        opened.append(DicomwebArchive(config, BriefRetry(lambda seconds: None), kept_log))
        return opened[-1]

    yield make
    for archive in opened:
        archive.close()


def row(patient_id: str, name: object, **more: object) -> dict[str, object]:
    return {
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100020": {"vr": "LO", "Value": [patient_id]},
        "00100010": {"vr": "PN", "Value": [name]},
    } | more


def test_two_patients_of_one_series_and_study_are_two_series_of_a_web_service(
    serve_web: Callable[..., Any], make_original: Callable[..., Any], open_web: Callable[..., Any]
) -> None:
    service = serve_web(make_original(1).paths)
    rows = [
        row("PID-1", {"Alphabetic": "Doe^Jane", "Ideographic": "X^Y"}),
        row("PID-2", "Roe^Rick", **{"00100021": {"Value": ["B"]}, "00100030": {"Value": ["1970"]}}),
        row("PID-1", {"Alphabetic": "Doe^Jane", "Ideographic": "X^Y"}),
        row("PID-3", {"Alphabetic": None}),
    ]
    service.pages = lambda _, limit, offset: rows[offset : offset + limit]
    found = [each.patient for each in open_web(service.url).find(SeriesQuery())]
    assert found == [
        FoundPatient("PID-1", "", "Doe^Jane=X^Y", ""),
        FoundPatient("PID-2", "B", "Roe^Rick", "1970"),
        FoundPatient("PID-3", "", "", ""),
    ]
    asked = service.requests[0][1]
    assert all(f"includefield={tag}" in asked for tag in ("00100020", "00100010", "00100030"))


@pytest.fixture(params=["orthanc-web", "orthanc", "dcmqrscp"])
def there(
    request: pytest.FixtureRequest, open_web: Callable[..., Any], kept_log: Any
) -> tuple[Any, RemoteArchive]:
    """An archive, and the same as it is searched."""
    name = request.param.partition("-")[0]
    peer = request.getfixturevalue(name)
    if request.param == "orthanc-web":
        return peer, open_web(peer.url)
    title = {"orthanc": "ORTHANC", "dcmqrscp": "QRSCP"}[name]
    table = {"name": "pacs", "kind": "dimse", "ae_title": title, "host": "127.0.0.1"}
    config = DimseSourceConfig.model_validate_json(json.dumps(table | {"port": peer.port}))
    return peer, DimseArchive(config, "PACSBRIDGE", kept_log)


@pytest.mark.pacs
def test_an_archive_says_whose_a_series_is_however_it_is_searched(
    there: tuple[Any, RemoteArchive], make_original: Callable[..., Any]
) -> None:
    peer, archive = there
    original = make_original(
        2, PatientID="PID-77", PatientName="Doe^J", PatientBirthDate="19700101"
    )
    peer.put(original.paths)
    for query in (
        SeriesQuery(study_instance_uids=(original.study_uid,)),
        SeriesQuery(series_instance_uids=(original.series_uid,)),
    ):
        (found,) = archive.find(query)
        assert found.patient.patient_id == "PID-77"
        assert found.patient.name == "Doe^J"
        assert found.instance_count in (2, None)


@pytest.mark.pacs
@pytest.mark.parametrize("by_series", [False, True])
@pytest.mark.parametrize("over_web", [False, True])
def test_two_patients_of_one_study_are_told_apart(
    orthanc: Any,
    make_original: Callable[..., Any],
    open_web: Callable[..., Any],
    kept_log: Any,
    over_web: bool,
    by_series: bool,
) -> None:
    jane = make_original(2, PatientID="PID-JANE")
    uids = {"StudyInstanceUID": jane.study_uid, "SeriesInstanceUID": jane.series_uid}
    orthanc.put(jane.paths)
    orthanc.put(make_original_of(make_original, uids).paths)
    table = {"name": "pacs", "kind": "dimse", "ae_title": "ORTHANC", "host": "127.0.0.1"}
    config = DimseSourceConfig.model_validate_json(json.dumps(table | {"port": orthanc.port}))
    archive = open_web(orthanc.url) if over_web else DimseArchive(config, "PACSBRIDGE", kept_log)
    query = SeriesQuery(study_instance_uids=(jane.study_uid,))
    if by_series:
        query = SeriesQuery(series_instance_uids=(jane.series_uid,))
    found = {each.patient.patient_id for each in archive.find(query)}
    assert found == {"PID-JANE", "PID-RICK"}


def make_original_of(make_original: Callable[..., Any], uids: dict[str, str]) -> Any:
    """A series of another patient under the UIDs of one that there is."""
    return make_original(2, PatientID="PID-RICK", **uids)
