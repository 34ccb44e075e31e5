"""A real Orthanc with the plugin beside a real service, each of which can be killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from programs import free_ports, need_programs

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import Volume
from pacs_bridge.plugin.notes import NoteBook

ORTHANC = Path("/usr/sbin/Orthanc")
STORESCU = Path("/usr/bin/storescu")  # pynetdicom installs another of this name into a venv
PYTHON_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")
SCRIPT = Path(__file__).resolve().parents[3] / "pacs_bridge" / "orthanc_plugin.py"

BRIDGE = """
data_folder = "data"
[listener]
port = {bridge_port}
peers = [{{ ae_title = "ORTHANC", addresses = ["127.0.0.1"] }}]
[control]
port = {control_port}
[collector]
quiet_period_s = {quiet_period_s}
check_interval_s = 0.05
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
port = {dicom_port}
kinds = ["labelmap"]
retry = {{ first_wait_s = 0.3, max_wait_s = 1.0 }}
[[destinations]]
name = "bit-maps"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {dicom_port}
kinds = ["binary"]
retry = {{ first_wait_s = 0.3, max_wait_s = 1.0 }}
[[routes]]
name = "all"
model = "tiny"
destinations = ["label-maps", "bit-maps"]
"""


@dataclass
class Series:
    """A CT series on disk."""

    paths: list[Path]
    study_uid: str
    series_uid: str


@dataclass
class OrthancWithPlugin:
    """One Orthanc, started and ended as often as a test likes, always on the same folder."""

    folder: Path
    dicom_port: int
    web_port: int
    bridge_port: int
    control_port: int
    #: Over the section's usual values; None: without this one.
    plugin: dict[str, Any] = field(default_factory=dict)
    stable_age_s: int = 2  #: so long that a busy machine does not split a series
    options: dict[str, Any] = field(default_factory=dict)  #: of Orthanc, over the usual ones
    process: subprocess.Popen[bytes] | None = None

    @property
    def web(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.web_port}", trust_env=False, timeout=60
        )

    @property
    def bridge_config(self) -> Path:
        return self.folder / "bridge.toml"

    def start(self) -> None:
        config = {
            "Name": "TEST",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(PYTHON_PLUGIN)],
            "PythonScript": str(SCRIPT),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom_port,
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {"bridge": ["PACSBRIDGE", "127.0.0.1", self.bridge_port]},
            "HttpPort": self.web_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "UnknownSopClassAccepted": True,  # or it refuses Label Map Segmentation Storage
            "StableAge": self.stable_age_s,
            **self.options,
            "PacsBridge": {
                "Modality": "bridge",
                "ControlUrl": f"http://127.0.0.1:{self.control_port}",
                "TokenFile": str(self.folder / "data" / "control.token"),
                "FirstWaitSeconds": 0.2,
                "MaxWaitSeconds": 1.0,
                **self.plugin,
            },
        }
        config["PacsBridge"] = {k: v for k, v in config["PacsBridge"].items() if v is not None}
        (self.folder / "orthanc.json").write_text(json.dumps(config))
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen(
                [ORTHANC, self.folder / "orthanc.json"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.status()["is_working"]
        except (httpx.TransportError, KeyError):
            return False

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(90)
            self.process = None

    def log(self) -> str:
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        with self.web as web:
            return web.get("/pacs-bridge/status").json()

    def store(self, paths: list[Path]) -> None:
        """Send files to Orthanc by C-STORE, as a scanner does."""
        self._send("ORTHANC", self.dicom_port, paths)

    def send_to_bridge(self, paths: list[Path]) -> None:
        """Send files to the bridge itself, in Orthanc's name."""
        self._send("PACSBRIDGE", self.bridge_port, paths)

    def _send(self, called: str, port: int, paths: list[Path]) -> None:
        to = ["-aet", "ORTHANC", "-aec", called, "127.0.0.1", str(port)]
        subprocess.run(
            [STORESCU, *to, *map(str, paths)],
            check=True,
            capture_output=True,
            env={**os.environ, "TCP_NODELAY": "1"},
        )

    def id_of(self, series: Series) -> str:
        """Orthanc's id of a series."""
        with self.web as web:
            query = {"Level": "Series", "Query": {"SeriesInstanceUID": series.series_uid}}
            (found,) = web.post("/tools/find", json=query).json()
        return str(found)

    def state(self, series: Series) -> dict[str, Any]:
        with self.web as web:
            return web.get(f"/pacs-bridge/series/{self.id_of(series)}").json()

    def bridge_state(self, series: Series) -> tuple[str | None, int | None]:
        """State and revision, as the bridge tells them through Orthanc."""
        bridge = self.state(series)["bridge"]
        return bridge.get("state"), bridge.get("revision")

    def results(self, series: Series) -> list[pydicom.Dataset]:
        """The Segmentations of a series' study."""
        query = {"StudyInstanceUID": series.study_uid, "Modality": "SEG"}
        with self.web as web:
            ids = web.post("/tools/find", json={"Level": "Instance", "Query": query}).json()
            files = [web.get(f"/instances/{one}/file").content for one in ids]
        return [pydicom.dcmread(pydicom.filebase.DicomBytesIO(one)) for one in files]


@pytest.fixture
def notes(ram_folder: Path) -> NoteBook:
    """Of series to send; nothing stands there yet."""
    return NoteBook(ram_folder / "notes")


@pytest.fixture
def time_s() -> list[float]:
    """A clock that a test moves, seconds."""
    return [1000.0]


@pytest.fixture(scope="session")
def needs_orthanc() -> None:
    need_programs(ORTHANC, STORESCU, PYTHON_PLUGIN)


@pytest.fixture(scope="session")
def make_site(
    needs_orthanc: None, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., OrthancWithPlugin]:
    """An Orthanc that is not started yet, with the configuration of its bridge beside it."""

    def make(quiet_period_s: float = 0.3, **changes: Any) -> OrthancWithPlugin:
        folder = tmp_path_factory.mktemp("site")
        dicom, web, bridge, control = free_ports(4)
        site = OrthancWithPlugin(folder, dicom, web, bridge, control, **changes)
        site.bridge_config.write_text(
            BRIDGE.format(
                bridge_port=bridge,
                control_port=control,
                dicom_port=dicom,
                quiet_period_s=quiet_period_s,
                models=json.dumps(str(tiny_models)),
            )
        )
        return site

    return make


@pytest.fixture
def orthanc(make_site: Callable[..., OrthancWithPlugin]) -> Iterator[OrthancWithPlugin]:
    """An Orthanc of one test; nothing is started yet."""
    site = make_site()
    yield site
    site.kill()


@pytest.fixture(scope="session")
def ct_series(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Series]:
    """Series of ``count`` small planes, each a study of its own."""
    numbers = iter(range(1000, 10_000))

    def make(count: int = 12, size: int = 40, **options: Any) -> Series:
        hu = np.full((count, size, size), -1000, dtype=np.int16)
        hu[2:-2, 8:-8, 8:-8] = 400
        volume = Volume(hu, stack(hu.shape, (4.0, 3.0, 3.0)))
        folder = tmp_path_factory.mktemp("series")
        options = {"seed": next(numbers), **options}
        paths = write_ct_series(volume, folder / "ct", SeriesOptions(**options))
        header = pydicom.dcmread(paths[0], stop_before_pixels=True)
        return Series(paths, str(header.StudyInstanceUID), str(header.SeriesInstanceUID))

    return make


@pytest.fixture
def bridge_command() -> Callable[[OrthancWithPlugin], list[str]]:
    """The command by which Orthanc starts its bridge: another interpreter's program."""

    def command(site: OrthancWithPlugin) -> list[str]:
        serve = [sys.executable, "-m", "pacs_bridge", "serve", "--until-stdin-closes"]
        return [*serve, "--config", str(site.bridge_config)]

    return command


class ScriptedOrthanc:
    """Answers of an Orthanc whose faults no real one shows on demand."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.posted: list[Any] = []
        self.refuses = False
        self.asked: list[str] = []
        self.lines: list[str] = []
        self.changes: list[dict[str, Any]] = []  #: its log, unless ``answers`` say otherwise
        self.LogInfo = self.LogWarning = self.LogError = self.lines.append

    class OrthancException(Exception):
        pass

    def RestApiGet(self, uri: str) -> bytes:
        self.asked.append(uri)
        if uri.startswith("/changes") and uri not in self.answers:
            return json.dumps(self._log(uri)).encode()
        if uri not in self.answers:
            raise self.OrthancException(17, "Unknown resource")
        answer = self.answers[uri]
        return answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()

    def RestApiPost(self, uri: str, body: bytes) -> bytes:
        if self.refuses:
            raise self.OrthancException(5, "Inexistent item")
        self.posted.append((uri, json.loads(body)))
        return json.dumps({"ID": f"job{len(self.posted)}"}).encode()

    def _log(self, uri: str) -> dict[str, Any]:
        if uri == "/changes?last":
            lines, is_done = self.changes[-1:], True
        else:
            since, limit = map(int, re.findall(r"\d+", uri))
            first = bisect_right(self.changes, since, key=lambda line: line["Seq"])
            lines = self.changes[first : first + limit]
            is_done = first + limit >= len(self.changes)
        return {"Changes": lines, "Done": is_done, "Last": lines[-1]["Seq"] if lines else 0}

    def happen(self, kind: str, resource: str) -> int:
        """Let something stand in the log; gives the number of its line."""
        number = self.changes[-1]["Seq"] + 1 if self.changes else 1
        self.changes.append({"Seq": number, "ChangeType": kind, "ID": resource})
        return number

    def hold(self, series: str, classes: list[str], is_stable: bool = True) -> None:
        """Have a series with instances of these SOP classes."""
        ids = [f"{series}-{number}" for number in range(len(classes))]
        self.answers[f"/series/{series}"] = {
            "ID": series,
            "IsStable": is_stable,
            "Instances": ids,
            "MainDicomTags": {"Modality": "CT", "SeriesInstanceUID": f"1.2.{series[0]}"},
        }
        for one, sop_class in zip(ids, classes, strict=True):
            self.answers[f"/instances/{one}/metadata/SopClassUid"] = sop_class
            self.answers[f"/instances/{one}/series"] = self.answers[f"/series/{series}"]


@pytest.fixture
def scripted() -> ScriptedOrthanc:
    """An Orthanc that misbehaves on demand."""
    return ScriptedOrthanc()
