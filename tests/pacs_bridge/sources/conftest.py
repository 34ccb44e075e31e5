"""Archives to fetch from: Orthanc and dcmqrscp as they are, and what a series of theirs holds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pydicom
import pytest

from pacs_bridge.library_settings import apply_library_settings

ORTHANC = Path("/usr/sbin/Orthanc")
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DCMQRSCP = Path("/usr/bin/dcmqrscp")
STORESCU = Path("/usr/bin/storescu")  # pynetdicom installs another of this name into a venv
#: Our AE titles and ports that the archives know.
OWN_AE_TITLE = "PACSBRIDGE"
MOVE_AE_TITLE = "BRIDGEFETCH"


@pytest.fixture(autouse=True)
def _settings() -> None:
    apply_library_settings()


def _need(*programs: Path) -> None:
    missing = [str(path) for path in programs if not path.exists()]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"peers are missing: {missing}")
    if missing:
        pytest.skip(f"peers are not installed: {missing}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Orthanc:
    """A running Orthanc with DICOMweb and query/retrieve."""

    url: str  #: of its DICOMweb service
    port: int  #: DIMSE
    move_port: int  #: where it sends what ``MOVE_AE_TITLE`` is to get
    web: httpx.Client  #: its REST API

    def put(self, paths: list[Path]) -> None:
        for path in paths:
            answer = self.web.post("/instances", content=path.read_bytes())
            assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def orthanc(
    tmp_path_factory: pytest.TempPathFactory, wait_for: Callable[..., None]
) -> Iterator[Orthanc]:
    """Orthanc; each test brings a study of its own."""
    _need(ORTHANC, DICOMWEB)
    folder = tmp_path_factory.mktemp("orthanc")
    web_port, port, move_port = _free_ports(3)
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "Name": "SOURCE",
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / "storage"),
                "Plugins": [str(DICOMWEB)],
                "DicomWeb": {"Enable": True, "StudiesMetadata": "Full"},
                "DicomAet": "ORTHANC",
                "DicomPort": port,
                "DicomAlwaysAllowStore": True,
                "DicomAlwaysAllowGet": True,
                "DicomAlwaysAllowFind": True,
                "DicomAlwaysAllowMove": True,
                "DicomModalities": {"fetch": [MOVE_AE_TITLE, "127.0.0.1", move_port]},
                "HttpPort": web_port,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "UnknownSopClassAccepted": True,
            }
        )
    )
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([ORTHANC, folder / "orthanc.json"], stdout=log, stderr=log)
    base = f"http://127.0.0.1:{web_port}"
    try:
        with httpx.Client(base_url=base, trust_env=False, timeout=60) as web:
            wait_for(lambda: _answers(web))
            yield Orthanc(f"{base}/dicom-web", port, move_port, web)
    finally:
        _end(process)


def _answers(web: httpx.Client) -> bool:
    try:
        return web.get("/system").status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Original:
    """A series as it was before it went into an archive."""

    paths: list[Path]
    study_uid: str
    series_uid: str
    pixels: dict[str, bytes]  #: by SOP Instance UID

    @classmethod
    def of(cls, paths: list[Path]) -> Original:
        read = [pydicom.dcmread(path) for path in paths]
        return cls(
            paths,
            str(read[0].StudyInstanceUID),
            str(read[0].SeriesInstanceUID),
            {str(ds.SOPInstanceUID): ds.PixelData for ds in read},
        )

    def assert_is(self, paths: tuple[Path, ...]) -> None:
        """The files hold the same instances, whole."""
        read = [pydicom.dcmread(path) for path in paths]
        assert {str(ds.SOPInstanceUID): ds.PixelData for ds in read} == self.pixels
        assert len(paths) == len(self.pixels)


@pytest.fixture
def make_original(
    make_ct: Callable[..., pydicom.Dataset], tmp_path: Path
) -> Callable[..., Original]:
    """A series of small instances, ``count`` of them, under UIDs that no other test uses."""

    def make(count: int = 5, **attributes: object) -> Original:
        study = pydicom.uid.generate_uid()
        series = pydicom.uid.generate_uid()
        folder = tmp_path / f"original-{series[-8:]}"
        folder.mkdir()
        paths = []
        for number in range(1, count + 1):
            ds = make_ct(
                number=number,
                **{
                    "StudyInstanceUID": study,
                    "SeriesInstanceUID": series,
                    "SOPInstanceUID": pydicom.uid.generate_uid(),
                    "StudyDate": "20260301",
                    "StudyTime": "120000",
                    "StudyID": "1",
                    "AccessionNumber": "A1",
                    "SeriesNumber": 1,
                }
                | attributes,
            )
            paths.append(folder / f"{number}.dcm")
            ds.save_as(paths[-1], enforce_file_format=True)
        return Original.of(paths)

    return make


@dataclass
class Dcmqrscp:
    """A running dcmqrscp."""

    port: int
    move_port: int

    def put(self, paths: list[Path]) -> None:
        command = [STORESCU, "-R", "-aec", "QRSCP", "127.0.0.1", str(self.port), *map(str, paths)]
        subprocess.run(command, check=True, capture_output=True)


_DCMQRSCP = """
NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
fetch = ({title}, 127.0.0.1, {move_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QRSCP {folder} RW (200, 1024mb) ANY
AETable END
"""


@pytest.fixture(scope="session")
def dcmqrscp(
    tmp_path_factory: pytest.TempPathFactory, wait_for: Callable[..., None]
) -> Iterator[Dcmqrscp]:
    """DCMTK's archive; each test brings a study of its own."""
    _need(DCMQRSCP, STORESCU)
    folder = tmp_path_factory.mktemp("dcmqrscp")
    port, move_port = _free_ports(2)
    (folder / "archive").mkdir()
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        _DCMQRSCP.format(
            port=port, move_port=move_port, title=MOVE_AE_TITLE, folder=folder / "archive"
        )
    )
    with (folder / "dcmqrscp.log").open("w") as log:
        process = subprocess.Popen([DCMQRSCP, "-c", config], stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(lambda: _listens(port))
        yield Dcmqrscp(port, move_port)
    finally:
        _end(process)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


class KeptLog:
    """A log that a test can look at."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def debug(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    info = warning = error = debug

    def fault(self, event: str, error: BaseException, **fields: object) -> None:
        self.lines.append((event, {"error": repr(error), **fields}))


@pytest.fixture
def kept_log() -> KeptLog:
    return KeptLog()
