"""Archives to fetch from: Orthanc and dcmqrscp as they are, and what a series of theirs holds."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import pydicom
import pytest
from programs import end_process, free_ports, need_programs

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
    need_programs(ORTHANC, DICOMWEB)
    folder = tmp_path_factory.mktemp("orthanc")
    web_port, port, move_port = free_ports(3)
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
        end_process(process)


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
    need_programs(DCMQRSCP, STORESCU)
    folder = tmp_path_factory.mktemp("dcmqrscp")
    port, move_port = free_ports(2)
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
        end_process(process)


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


class WebService:
    """A DICOMweb service of one series, on loopback, that can be told to fail.

    ``faults`` are used up one a request, the first one first: each is given the request's
    handler and answers itself, or gives False to let the service answer.
    """

    def __init__(self, paths: list[Path], tls: ssl.SSLContext | None = None) -> None:
        self.files = {
            str(pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID): p for p in paths
        }
        self.faults: list[Callable[[Exchange], object]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.stored: list[pydicom.Dataset] = []
        self.held: set[str] = set()  # SOP Instance UIDs that a search finds
        self.stow_answer: Callable[[pydicom.Dataset], tuple[int, object]] = _all_stored
        self.retry_after: dict[int, str] = {}  # by the status of an answer to STOW
        self.pages: Callable[[list[object], int, int], list[object]] = lambda rows, limit, offset: (
            rows[offset : offset + limit]
        )
        self.hidden: set[str] = set()  # listed, and not given with the series
        self.gone: set[str] = set()  # listed, and not given at all
        service = self

        class Handler(Exchange):
            pass

        Handler.service = service
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if tls is not None:
            scheme = "https"
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/dicom"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _all_stored(ds: pydicom.Dataset) -> tuple[int, object]:
    item = {
        "00081150": {"vr": "UI", "Value": [str(ds.SOPClassUID)]},
        "00081155": {"vr": "UI", "Value": [str(ds.SOPInstanceUID)]},
    }
    return 200, {"00081199": {"vr": "SQ", "Value": [item]}}


class Exchange(BaseHTTPRequestHandler):
    """One connection to a ``WebService``."""

    protocol_version = "HTTP/1.1"
    service: WebService
    BOUNDARY = "parts-of-a-series"

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # the other side may leave in the middle
            super().handle()

    def do_GET(self) -> None:
        service = self.service
        service.requests.append((self.command, self.path, dict(self.headers)))
        if service.faults and service.faults.pop(0)(self) is not False:
            return
        path, _, query = self.path.removeprefix("/dicom").partition("?")
        asked = dict(parse_qsl(query))
        parts = path.strip("/").split("/")
        if parts[-1] == "series":
            self._rows([self._series_row()], asked)
        elif parts == ["instances"]:
            held = [uid for uid in service.held if uid == asked["SOPInstanceUID"]]
            self._rows([{"00080018": {"vr": "UI", "Value": [uid]}} for uid in held], asked)
        elif parts[-1] == "instances":
            rows = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in service.files]
            self._rows(rows, asked)
        elif parts[-1] == "studies":
            self._rows([], asked)
        elif parts[-2] == "instances":
            known = parts[-1] in service.files and parts[-1] not in service.gone
            self.parts([service.files[parts[-1]].read_bytes()]) if known else self.say(404)
        else:
            left_out = service.hidden | service.gone
            self.parts([p.read_bytes() for u, p in service.files.items() if u not in left_out])

    def do_POST(self) -> None:
        service = self.service
        service.requests.append((self.command, self.path, dict(self.headers)))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if service.faults and service.faults.pop(0)(self) is not False:
            return
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        part = body.split(b"--" + boundary)[1]
        ds = pydicom.dcmread(BytesIO(part.split(b"\r\n\r\n", 1)[1][:-2]))
        service.stored.append(ds)
        status, answer = service.stow_answer(ds)
        asked = service.retry_after.get(status)
        self.json(answer, status, {} if asked is None else {"Retry-After": asked})

    def say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(
        self, answer: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.say(status, {"Content-Type": "application/dicom+json", **(headers or {})}, body)

    def parts(self, files: list[bytes], status: int = 200, cut_bytes: int | None = None) -> None:
        """A multipart body; ``cut_bytes`` ends the connection after so many bytes of it."""
        body = b""
        for data in files:
            body += f"--{self.BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
            body += data + b"\r\n"
        body += f"--{self.BOUNDARY}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={self.BOUNDARY}'
        if cut_bytes is None:
            self.say(status, {"Content-Type": kind}, body)
            return
        headers = {"Content-Type": kind, "Content-Length": str(len(body))}
        self.say(status, headers, body[:cut_bytes])
        self.drop()

    def drop(self) -> None:
        """End the connection without a word."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def _rows(self, rows: list[object], asked: dict[str, str]) -> None:
        given = self.service.pages(rows, int(asked["limit"]), int(asked.get("offset", 0)))
        self.json(given) if given else self.say(204)

    def _series_row(self) -> dict[str, object]:
        ds = pydicom.dcmread(next(iter(self.service.files.values())), stop_before_pixels=True)
        return {
            "0020000D": {"vr": "UI", "Value": [str(ds.StudyInstanceUID)]},
            "0020000E": {"vr": "UI", "Value": [str(ds.SeriesInstanceUID)]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "00201209": {"vr": "IS", "Value": [len(self.service.files)]},
        }


@pytest.fixture
def serve_web() -> Iterator[Callable[..., WebService]]:
    """``serve_web(paths)``: a service of these files."""
    running: list[WebService] = []

    def start(paths: list[Path], tls: ssl.SSLContext | None = None) -> WebService:
        running.append(WebService(paths, tls))
        return running[-1]

    yield start
    for service in running:
        service.close()
