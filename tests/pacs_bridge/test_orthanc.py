"""The whole way with peers that others wrote: DCMTK sends, Orthanc keeps, QIDO-RS finds."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import httpx
import numpy as np
import pydicom
import pytest
from programs import end_process, free_ports, need_programs

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import Volume
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import State

pytestmark = pytest.mark.pacs

ORTHANC = Path("/usr/sbin/Orthanc")
STORESCU = Path("/usr/bin/storescu")  # pynetdicom installs another of this name into a venv
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
BINARY = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"

#: For a result, on a busy machine.
LIMIT_S = 240.0

BRIDGE = """
data_folder = "data"
[listener]
port = {bridge_port}
own_results = "discard"
peers = [{{ ae_title = "*", addresses = ["127.0.0.1"] }}]
[collector]
quiet_period_s = 0.5
check_interval_s = 0.1
[disk]
accept_above_free_gib = 0.0
reserve_free_gib = 0.0
[models]
folder = {models}
[workers]
devices = ["cpu"]
[[destinations]]
name = "label-maps"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {orthanc_port}
kinds = ["labelmap"]
[[destinations]]
name = "bit-maps"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {orthanc_port}
kinds = ["binary"]
[[routes]]
name = "all"
model = "tiny"
destinations = ["label-maps", "bit-maps"]
"""


@dataclass
class Site:
    """A bridge and a PACS that know each other."""

    bridge_port: int
    web: httpx.Client  #: Orthanc's REST API
    ledger: Ledger

    def find(self, study_uid: str, **match: str) -> list[dict[str, dict[str, list[object]]]]:
        """Series of a study by QIDO-RS (PS3.18 10.6)."""
        query = {"StudyInstanceUID": study_uid, "includefield": "all", **match}
        answer = self.web.get("/dicom-web/series", params=query)
        return answer.json() if answer.content else []


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_models: Path,
    serving: Callable[[Path], Any],
    wait_for: Callable[..., None],
) -> Iterator[Site]:
    need_programs(ORTHANC, STORESCU, DICOMWEB)
    folder = tmp_path_factory.mktemp("site")
    bridge_port, orthanc_port, web_port = free_ports(3)
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "Name": "TEST",
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "Plugins": [str(DICOMWEB)],
                "DicomWeb": {"Enable": True},
                "DicomAet": "ORTHANC",
                "DicomPort": orthanc_port,
                "DicomAlwaysAllowStore": True,
                "DicomModalities": {"bridge": ["PACSBRIDGE", "127.0.0.1", bridge_port]},
                "HttpPort": web_port,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "UnknownSopClassAccepted": True,  # or it refuses Label Map Segmentation Storage
                "IngestTranscoding": "1.2.840.10008.1.2.1",
                "StableAge": 1,
            }
        )
    )
    config = folder / "bridge.toml"
    config.write_text(
        BRIDGE.format(
            bridge_port=bridge_port,
            orthanc_port=orthanc_port,
            models=json.dumps(str(tiny_models)),
        )
    )
    with (folder / "orthanc.log").open("w") as log:
        orthanc = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{web_port}", trust_env=False) as web,
            serving(config) as served,
        ):
            wait_for(lambda: _answers(web))
            ledger = Ledger.open(folder / "data" / "ledger.sqlite")
            yield Site(served.port, web, ledger)
            ledger.close()
    finally:
        end_process(orthanc)


def _answers(web: httpx.Client) -> bool:
    try:
        return web.get("/system").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Series:
    """A series that was sent, and what it is in the ledger and in the PACS."""

    paths: list[Path]
    study_uid: str
    series_uid: str
    geometry_shape: tuple[int, int, int]


def _series(paths: list[Path]) -> Series:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    return Series(
        paths,
        str(headers[0].StudyInstanceUID),
        str(headers[0].SeriesInstanceUID),
        (len(paths), headers[0].Rows, headers[0].Columns),
    )


def _storescu(site: Site, paths: list[Path], *options: str) -> None:
    command = [STORESCU, *options, "-aec", "PACSBRIDGE", "127.0.0.1", str(site.bridge_port)]
    subprocess.run(
        [*command, *map(str, paths)],
        check=True,
        capture_output=True,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


@pytest.fixture(
    scope="module", params=["synthetic", pytest.param("real", marks=pytest.mark.shared)]
)
def series(
    request: pytest.FixtureRequest,
    site: Site,
    tmp_path_factory: pytest.TempPathFactory,
    wait_for: Callable[..., None],
) -> Series:
    """A series that DCMTK has sent and whose results the PACS has."""
    if request.param == "real":
        shared: Path = request.getfixturevalue("shared_data")
        made = _series(sorted((shared / "ts_dicom").iterdir()))
        _storescu(site, made.paths, "-xv")  # JPEG 2000 lossless, as the files are
    else:
        hu = np.full((12, 48, 64), -1000, dtype=np.int16)
        hu[3:9, 12:32, 10:50] = 400
        volume = Volume(hu, stack(hu.shape, (4.0, 3.0, 3.0)))
        folder = tmp_path_factory.mktemp("synthetic")
        made = _series(write_ct_series(volume, folder / "ct", SeriesOptions(seed=11)))
        _storescu(site, made.paths)
    wait_for(lambda: _states(site, made) == [State.SENT], LIMIT_S)
    return made


def _states(site: Site, series: Series) -> list[State]:
    return [view.state for view in site.ledger.view.series(series.series_uid)]


def _received(site: Site, series: Series) -> dict[str, hd.seg.Segmentation]:
    """The Segmentations that the PACS has of a series' study, by SOP class, as it gives them."""
    ids = site.web.post(
        "/tools/find",
        json={
            "Level": "Instance",
            "Query": {"StudyInstanceUID": series.study_uid, "Modality": "SEG"},
        },
    ).json()
    found = {}
    for each in ids:
        data = site.web.get(f"/instances/{each}/file").content
        seg = hd.seg.segread(BytesIO(data))
        assert str(seg.SOPClassUID) not in found, "two of one kind"
        found[str(seg.SOPClassUID)] = seg
    return found


def test_both_kinds_are_found_by_qido_in_the_study_of_the_ct(site: Site, series: Series) -> None:
    rows = site.find(series.study_uid, Modality="SEG")
    assert len(rows) == 2
    for row in rows:
        assert row["00080060"]["Value"] == ["SEG"]
        assert row["0020000D"]["Value"] == [series.study_uid]
    assert _received(site, series).keys() == {BINARY, LABELMAP}


def test_both_kinds_hold_the_same_labels_and_refer_to_the_ct(site: Site, series: Series) -> None:
    decoded = []
    for seg in _received(site, series).values():
        assert str(seg.StudyInstanceUID) == series.study_uid
        sources = [uid for _, _, uid in seg.get_source_image_uids()]
        assert len(sources) == len(series.paths)
        pixels = seg.get_pixels_by_source_instance(
            sorted(map(str, sources)),
            combine_segments=True,
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )
        decoded.append(pixels)
    assert decoded[0].any()
    np.testing.assert_array_equal(*decoded)


def test_the_same_series_sent_again_makes_no_second_result(
    site: Site, series: Series, wait_for: Callable[..., None]
) -> None:
    before = len(site.ledger.view.jobs())
    options = ["-xv"] if "ts_dicom" in str(series.paths[0]) else []
    known = site.ledger.view.counts().get("duplicate-instance", 0)
    _storescu(site, series.paths, *options)
    wait_for(
        lambda: site.ledger.view.counts()["duplicate-instance"] >= known + len(series.paths),
        LIMIT_S,
    )
    threading.Event().wait(2.0)  # longer than the quiet period
    assert len(site.ledger.view.jobs()) == before
    assert _states(site, series) == [State.SENT]
    assert len(site.find(series.study_uid, Modality="SEG")) == 2


def test_a_segmentation_that_comes_back_is_counted_and_not_processed(
    site: Site, series: Series, wait_for: Callable[..., None]
) -> None:
    before = len(site.ledger.view.jobs())
    known = site.ledger.view.counts().get("own-result", 0)
    ids = site.web.post(
        "/tools/find",
        json={
            "Level": "Instance",
            "Query": {"StudyInstanceUID": series.study_uid, "Modality": "SEG"},
        },
    ).json()
    answer = site.web.post("/modalities/bridge/store", json=ids, timeout=60)
    assert answer.status_code == 200, answer.text
    wait_for(lambda: site.ledger.view.counts().get("own-result", 0) >= known + 2, LIMIT_S)
    threading.Event().wait(2.0)
    assert len(site.ledger.view.jobs()) == before


def test_a_ct_that_orthanc_sends_is_segmented_too(
    site: Site, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    hu = np.full((12, 40, 40), -1000, dtype=np.int16)
    hu[3:9, 10:30, 10:30] = 400
    volume = Volume(hu, stack(hu.shape, (4.0, 3.0, 3.0)))
    made = _series(write_ct_series(volume, tmp_path / "ct", SeriesOptions(seed=12)))
    ids = [
        site.web.post("/instances", content=path.read_bytes()).json()["ID"] for path in made.paths
    ]
    assert site.web.post("/modalities/bridge/store", json=ids, timeout=60).status_code == 200
    wait_for(lambda: _states(site, made) == [State.SENT], LIMIT_S)
    assert len(site.find(made.study_uid, Modality="SEG")) == 2
