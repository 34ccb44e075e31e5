"""Query and retrieve from archives that others wrote: Orthanc and DCMTK's dcmqrscp."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import RLELossless

from inference.reasons import Reason
from pacs_bridge.config.sources import DimseSourceConfig
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.sources.dimse_archive import DimseArchive
from pacs_bridge.sources.received_series import ReceivedSeries
from pacs_bridge.sources.remote_archive import SeriesQuery

pytestmark = pytest.mark.pacs

AE_TITLES = {"orthanc": "ORTHANC", "dcmqrscp": "QRSCP"}


def _nothing() -> None:
    pass


@pytest.fixture(params=["orthanc", "dcmqrscp"])
def peer(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return AE_TITLES[request.param], request.getfixturevalue(request.param)


@pytest.fixture
def open_archive(kept_log: Any) -> Callable[..., DimseArchive]:
    def make(title: str, port: int, **settings: object) -> DimseArchive:
        table = {
            "name": "pacs",
            "kind": "dimse",
            "ae_title": title,
            "host": "127.0.0.1",
            "port": port,
            "response_timeout_s": 20,
        }
        config = DimseSourceConfig.model_validate_json(json.dumps(table | settings))
        return DimseArchive(config, "PACSBRIDGE", kept_log)

    return make


def _by(retrieve: str, peer: Any) -> dict[str, object]:
    if retrieve == "c-get":
        return {"retrieve": "c-get"}
    return {"retrieve": "c-move", "move_ae_title": "BRIDGEFETCH", "move_port": peer.move_port}


def test_a_series_is_found_by_its_study_with_what_routes_need(
    peer: tuple[str, Any],
    open_archive: Callable[..., DimseArchive],
    make_original: Callable[..., Any],
) -> None:
    title, archive = peer
    original = make_original(3, SeriesDescription="Thorax 1.0")
    archive.put(original.paths)

    query = SeriesQuery(study_instance_uids=(original.study_uid,))
    (found,) = open_archive(title, archive.port).find(query)

    assert found.series_instance_uid == original.series_uid
    assert found.study_instance_uid == original.study_uid
    assert (found.modality, found.study_date) == ("CT", "20260301")
    # DCMTK's index holds no description of a series
    assert found.facts.series_description == ("Thorax 1.0" if title == "ORTHANC" else "")
    assert found.facts.study_description == "Whole body"


def test_a_search_over_days_finds_each_series_once(
    peer: tuple[str, Any],
    open_archive: Callable[..., DimseArchive],
    make_original: Callable[..., Any],
) -> None:
    title, archive = peer
    wanted = set()
    for day in ("20240101", "20240102", "20240104"):
        original = make_original(1, StudyDate=day)
        archive.put(original.paths)
        if day < "20240104":
            wanted.add(original.series_uid)
    archive.put(make_original(1, StudyDate="20240102", Modality="MR").paths)

    query = SeriesQuery(date(2024, 1, 1), date(2024, 1, 3))
    found = [each.series_instance_uid for each in open_archive(title, archive.port).find(query)]

    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("retrieve", ["c-get", "c-move"])
def test_a_fetched_series_is_the_one_that_was_stored(
    peer: tuple[str, Any],
    open_archive: Callable[..., DimseArchive],
    make_original: Callable[..., Any],
    tmp_path: Path,
    retrieve: str,
) -> None:
    title, archive = peer
    original = make_original(7)
    archive.put(original.paths)

    paths = open_archive(title, archive.port, **_by(retrieve, archive)).fetch(
        original.study_uid, original.series_uid, tmp_path / "got", _nothing
    )

    original.assert_is(paths)
    assert len(list((tmp_path / "got").iterdir())) == 7


@pytest.mark.parametrize("retrieve", ["c-get", "c-move"])
@pytest.mark.parametrize("missing", [1, 3])
def test_images_that_did_not_come_are_given_by_their_uids(
    peer: tuple[str, Any],
    open_archive: Callable[..., DimseArchive],
    make_original: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retrieve: str,
    missing: int,
) -> None:
    title, archive = peer
    original = make_original(5)
    archive.put(original.paths)
    lost = set(sorted(original.pixels)[:missing])
    enter = ReceivedSeries.enter

    def enter_but_lose(series: ReceivedSeries, part: Path, path: Path) -> bool:
        uid = str(pydicom.dcmread(part, stop_before_pixels=True).SOPInstanceUID)
        arrived.append(uid)
        if uid in lost:
            lost.remove(uid)
            return False
        return enter(series, part, path)

    arrived: list[str] = []
    monkeypatch.setattr(ReceivedSeries, "enter", enter_but_lose)
    paths = open_archive(title, archive.port, **_by(retrieve, archive)).fetch(
        original.study_uid, original.series_uid, tmp_path / "got", _nothing
    )

    original.assert_is(paths)
    assert len(arrived) == 5 + missing


def test_series_are_found_by_their_uids_alone(
    peer: tuple[str, Any],
    open_archive: Callable[..., DimseArchive],
    make_original: Callable[..., Any],
) -> None:
    title, archive = peer
    originals = [make_original(1) for _ in range(3)]
    for each in originals:
        archive.put(each.paths)
    wanted = {each.series_uid: each.study_uid for each in originals}
    query = SeriesQuery(series_instance_uids=tuple(wanted))
    found = list(open_archive(title, archive.port).find(query))
    assert {each.series_instance_uid: each.study_instance_uid for each in found} == wanted


@pytest.mark.parametrize("retrieve", ["c-get", "c-move"])
def test_a_compressed_series_comes_as_it_is_stored(
    orthanc: Any,
    open_archive: Callable[..., DimseArchive],
    make_original: Callable[..., Any],
    tmp_path: Path,
    retrieve: str,
) -> None:
    original = make_original(2)
    for path in original.paths:
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path)
    orthanc.put(original.paths)
    archive = open_archive("ORTHANC", orthanc.port, **_by(retrieve, orthanc))
    paths = archive.fetch(original.study_uid, original.series_uid, tmp_path / "got", _nothing)
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in paths} == {RLELossless}


def test_a_series_that_the_archive_does_not_have_is_missing(
    peer: tuple[str, Any], open_archive: Callable[..., DimseArchive], tmp_path: Path
) -> None:
    title, archive = peer
    with pytest.raises(PermanentError) as missing:
        open_archive(title, archive.port).fetch("1.2.3", "1.2.3.4", tmp_path, _nothing)
    assert missing.value.reason is Reason.SOURCE_MISSING


def test_an_archive_is_asked_whether_it_is_there(
    peer: tuple[str, Any], open_archive: Callable[..., DimseArchive]
) -> None:
    title, archive = peer
    assert "C-FIND answers" in open_archive(title, archive.port).ask()


def test_nobody_at_the_port_is_unreachable(open_archive: Callable[..., DimseArchive]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(TransientError) as nobody:
        open_archive("NOBODY", port).ask()
    assert nobody.value.reason is Reason.SOURCE_UNREACHABLE
