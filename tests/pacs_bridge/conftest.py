"""Fixtures of the service: a clock, folders, configurations, instances, a listener, senders."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from postgres_peer import PostgresPeer, binaries
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)
from tiny_model import TINY

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.model_store import ModelStore
from inference.network import build_network
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import Volume
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.destinations import ResultKind
from pacs_bridge.config.load import load_config
from pacs_bridge.demo_archive import run_archive
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import ResultFile
from pacs_bridge.receive.listener import Listener

SHARED_MEMORY = Path("/dev/shm")


class SteppedClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
        self.steady = 1000.0
        self.boot = "first boot"

    def now(self) -> datetime:
        return self.time

    def steady_s(self) -> float:
        return self.steady

    def boot_id(self) -> str:
        return self.boot

    def pass_s(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.steady += seconds


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def ram_folder(tmp_path) -> Iterator[Path]:
    """A folder whose files need no disk: for what does not test durability."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="pacs-bridge-test-", dir=SHARED_MEMORY))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def small_files_only() -> Callable[[int], AbstractContextManager[None]]:
    """``with small_files_only(size_bytes)``: no file grows beyond it, as on a full disk."""

    @contextmanager
    def limited(size_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Wait until a condition holds; fails when it does not come about."""

    def wait(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresPeer]:
    """A PostgreSQL server for these tests; whoever stops it starts it again."""
    if binaries() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is missing; tests/peers/install.sh installs it")
        pytest.skip("PostgreSQL is not installed")
    peer = PostgresPeer()
    yield peer
    peer.remove()


@dataclass
class Served:
    """``pacs-bridge serve`` that has said that it is ready."""

    process: subprocess.Popen[str]
    port: int
    ready: str  #: the line that it said
    folder: Path  #: of its configuration; holds its log, too

    def log(self) -> list[dict[str, object]]:
        lines = (self.folder / "serve.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def serving() -> Callable[[Path], AbstractContextManager[Served]]:
    """``with serving(config) as served``: a service in a process of its own."""

    @contextmanager
    def run(config: Path) -> Iterator[Served]:
        log_file = config.parent / "serve.log"
        command = [sys.executable, "-m", "pacs_bridge", "serve", "--config", str(config)]
        with log_file.open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready: "), log_file.read_text()
            port = int(line.split(",")[0].rpartition(":")[2])
            served = Served(process, port, line, config.parent)
            yield served
            if process.poll() is None:
                served.stop()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()

    return run


@pytest.fixture
def make_config(ram_folder) -> Callable[..., BridgeConfig]:
    """A configuration for this machine alone; sections are given as TOML inline tables."""

    def make(folder: Path = ram_folder, **sections: str) -> BridgeConfig:
        tables = {
            "listener": '{ port = 0, peers = [{ ae_title = "*", addresses = ["127.0.0.0/8"] }] }',
            "collector": "{ quiet_period_s = 0.2, check_interval_s = 0.02 }",
            "disk": "{ accept_above_free_gib = 0.0, reserve_free_gib = 0.0 }",
            "destinations": '[{ name = "archive", ae_title = "ARCHIVE", host = "localhost",'
            " port = 104 }]",
            "routes": '[{ name = "all", model = "synthetic-3mm", destinations = ["archive"] }]',
        } | sections
        path = folder / "bridge.toml"
        lines = [f"{name} = {table}" for name, table in tables.items()]
        path.write_text("\n".join(['data_folder = "data"', *lines]), encoding="utf-8")
        return load_config(path)

    return make


@pytest.fixture
def make_ct() -> Callable[..., Dataset]:
    """Small CT instances; ``series`` and ``number`` give the UIDs, keywords change attributes."""

    def make(series: int = 1, number: int = 1, **attributes: object) -> Dataset:
        ds = Dataset()
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.SOPClassUID = CTImageStorage
        ds.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{series}.{number}"
        ds.Modality = "CT"
        ds.Manufacturer = "Nobody"
        ds.StudyDescription = "Whole body"
        ds.SeriesDescription = "Axial 5.0"
        ds.PatientName = "Doe^Jane"
        ds.PatientID = "PID-1"
        ds.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.1"
        ds.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.1.{series}"
        ds.InstanceNumber = number
        ds.Rows = ds.Columns = 8
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit = 15
        ds.PixelRepresentation = 1
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelData = bytes([number % 256, series % 256]) * 64
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        return ds

    return make


@pytest.fixture(scope="session")
def write_seg() -> Callable[[Path, ResultKind, np.ndarray], ResultFile]:
    """Write an object of a kind's SOP class with these frames: enough of one to travel."""
    sop_classes = {
        ResultKind.BINARY: SegmentationStorage,
        ResultKind.LABELMAP: "1.2.840.10008.5.1.4.1.1.66.7",
    }

    def write(path: Path, kind: ResultKind, labels: np.ndarray) -> ResultFile:
        is_binary = kind is ResultKind.BINARY
        ds = Dataset()
        ds.SOPClassUID = sop_classes[kind]
        ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID = generate_uid()
        ds.SeriesInstanceUID = generate_uid()
        ds.PatientID = "PID-1"
        ds.Modality = "SEG"
        ds.NumberOfFrames, ds.Rows, ds.Columns = labels.shape
        ds.SamplesPerPixel = 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelRepresentation = 0
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.BitsAllocated = ds.BitsStored = 1 if is_binary else 8
        ds.HighBit = ds.BitsStored - 1
        frames = np.packbits(labels.ravel(), bitorder="little") if is_binary else labels
        ds.PixelData = frames.tobytes()
        ds["PixelData"].VR = "OB"
        if not is_binary:
            ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path, enforce_file_format=True)
        return ResultFile(
            stack=0,
            kind=kind.value,
            path=path.name,
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            size_bytes=path.stat().st_size,
        )

    return write


@pytest.fixture
def start_listener() -> Iterator[Callable[..., Listener]]:
    """Listeners on free ports, stopped at the end."""
    apply_library_settings()
    started: list[Listener] = []

    def start(config: BridgeConfig, **parts: object) -> Listener:
        config.data_folder.mkdir(parents=True, exist_ok=True)
        log = JsonLog.open(config.data_folder / "log.jsonl", IdentityHash(b"test"), "debug")
        listener = Listener(config, log, **parts)
        listener.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.stop(drain_timeout_s=1.0)


class RawPeer:
    """A peer that sends the bytes it is told to send, right or wrong.

    Not pynetdicom's SCU: that one may lose a response that comes at once, since its reactor can
    take the message that the sending thread waits for.
    """

    CONTEXT_ID = 1

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=60, source_address=(source, 0)
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._contexts: dict[tuple[str, str], int] = {}

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(
        self,
        contexts: Sequence[tuple[str, str]] = ((CTImageStorage, ExplicitVRLittleEndian),),
        calling: str = "RAW",
        called: str = "PACSBRIDGE",
    ) -> None:
        """Ask for an association with contexts of one transfer syntax each."""
        from pynetdicom.pdu import A_ASSOCIATE_RQ
        from pynetdicom.pdu_primitives import (
            A_ASSOCIATE,
            ImplementationClassUIDNotification,
            MaximumLengthNotification,
        )
        from pynetdicom.presentation import build_context

        length = MaximumLengthNotification()
        length.maximum_length_received = 16384
        class_uid = ImplementationClassUIDNotification()
        class_uid.implementation_class_uid = "1.2.3"
        proposed = []
        for number, (abstract_syntax, transfer_syntax) in enumerate(contexts):
            context = build_context(abstract_syntax, transfer_syntax)
            context.context_id = self.CONTEXT_ID + 2 * number
            self._contexts[abstract_syntax, transfer_syntax] = context.context_id
            proposed.append(context)
        primitive = A_ASSOCIATE()
        primitive.application_context_name = "1.2.840.10008.3.1.1.1"
        primitive.calling_ae_title = calling
        primitive.called_ae_title = called
        primitive.user_information = [length, class_uid]
        primitive.presentation_context_definition_list = proposed
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(primitive)
        self.send(pdu.encode())

    def associate(self, **changes: object) -> RawPeer:
        self.request(**changes)
        kind, _ = self.read_pdu()
        assert kind == 2, f"association answered with PDU type {kind}"
        return self

    def store(self, instance: Dataset) -> int:
        """Send an instance whole; gives its status, -1 when the connection ends first."""
        from pynetdicom.dsutils import encode

        syntax = instance.file_meta.TransferSyntaxUID
        data = encode(instance, syntax.is_implicit_VR, syntax.is_little_endian)
        context_id = self._contexts[str(instance.SOPClassUID), str(syntax)]
        return self.store_bytes(instance.SOPClassUID, instance.SOPInstanceUID, data, context_id)

    def store_bytes(
        self, sop_class_uid: str, sop_instance_uid: str, data: bytes, context_id: int = CONTEXT_ID
    ) -> int:
        """Send bytes as a data set; gives the status, -1 when the connection ends first."""
        try:
            self.send(self.store_command(sop_instance_uid, sop_class_uid, context_id))
            for start in range(0, len(data), 65536):
                self.send(self.data(data[start : start + 65536], 0, context_id))
            self.send(self.data(b"", 2, context_id))
            return self.status()
        except OSError:
            return -1

    def release(self) -> None:
        """End the association, and wait until the peer has agreed."""
        self.send(struct.pack(">BxI", 5, 4) + bytes(4))
        assert self.read_pdu()[0] == 6
        self.close()

    def abort(self) -> None:
        """End the association at once."""
        self.send(struct.pack(">BxI", 7, 4) + bytes(4))
        self.close()

    def read_pdu(self) -> tuple[int, bytes]:
        """Type and body; type 0 when the connection has ended."""
        try:
            header = self._read(6)
            if len(header) < 6:
                return 0, b""
            return header[0], self._read(int.from_bytes(header[2:6], "big"))
        except ConnectionResetError:
            return 0, b""

    def status(self) -> int:
        """The status of the response that comes next; -1 when none comes."""
        from pacs_bridge.receive.dimse import _elements

        kind, body = self.read_pdu()
        if kind != 4:
            return -1
        return int.from_bytes(dict(_elements(body[6:]))[0x0900], "little")

    def store_command(
        self,
        sop_instance_uid: str,
        sop_class_uid: str = CTImageStorage,
        context_id: int = CONTEXT_ID,
    ) -> bytes:
        """A P-DATA-TF PDU with a C-STORE request."""

        def element(number: int, value: bytes) -> bytes:
            value += b"\0" * (len(value) % 2)
            return struct.pack("<HHI", 0, number, len(value)) + value

        command = (
            element(0x0002, sop_class_uid.encode())
            + element(0x0100, struct.pack("<H", 1))
            + element(0x0110, struct.pack("<H", 1))
            + element(0x0700, struct.pack("<H", 2))
            + element(0x0800, struct.pack("<H", 1))
            + element(0x1000, sop_instance_uid.encode())
        )
        length = element(0x0000, struct.pack("<I", len(command)))
        return self.data(length + command, 0x03, context_id)

    def data(self, fragment: bytes, control: int, context_id: int = CONTEXT_ID) -> bytes:
        """A P-DATA-TF PDU with one fragment; control 0 data, 2 last of data, 3 last of command."""
        pdv = struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment
        return struct.pack(">BxI", 4, len(pdv)) + pdv

    def close(self) -> None:
        self.socket.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data


@pytest.fixture
def raw_peer() -> Iterator[Callable[..., RawPeer]]:
    peers: list[RawPeer] = []

    def connect(port: int, **options: object) -> RawPeer:
        peers.append(RawPeer(port, **options))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.close()


class BrightSegmenter:
    """A segmenter of one rule: bone-bright is liver on the patient's right, spleen on the left.

    What it marks can be told from the source alone, so that every step behind it can be checked.
    """

    def __init__(self, threshold_hu: int = 300, demonstration: bool = False) -> None:
        self._threshold_hu = threshold_hu
        self._demonstration = demonstration
        self.calls = 0

    @property
    def identity(self) -> SegmenterIdentity:
        return SegmenterIdentity(
            name="bright",
            version="1",
            digest="b" * 64,
            demonstration=self._demonstration,
            intended_use="tests",
            parameters=(("threshold_hu", str(self._threshold_hu)),),
            source="a threshold",
        )

    def segment(self, volume: Volume, progress: Callable[[float], None] | None = None) -> LabelMap:
        self.calls += 1
        labels = np.zeros(volume.hu.shape, dtype=np.uint8)
        _, rows, columns = volume.hu.shape
        for z, plane in enumerate(volume.hu):
            y, x = np.mgrid[:rows, :columns]
            index = np.stack([np.full_like(y, z), y, x], axis=-1)
            left = volume.geometry.lps_mm(index)[..., 0] > 0
            labels[z][plane >= self._threshold_hu] = STRUCTURE_BY_NAME["liver"].id
            labels[z][(plane >= self._threshold_hu) & left] = STRUCTURE_BY_NAME["spleen"].id
            if progress is not None:
                progress((z + 1) / len(volume.hu))
        return LabelMap(labels, volume.geometry)


@pytest.fixture
def bright_segmenter() -> BrightSegmenter:
    return BrightSegmenter()


@pytest.fixture
def bright_volume() -> Volume:
    """12 planes of 24 x 32: air, and two bright blocks, one each side of the middle."""
    hu = np.full((12, 24, 32), -1000, dtype=np.int16)
    hu[3:9, 6:16, 4:12] = 700
    hu[4:10, 8:18, 20:29] = 900
    return Volume(hu, stack(hu.shape, (3.0, 4.0, 3.0)))


@pytest.fixture
def make_series(tmp_path) -> Callable[..., list[Path]]:
    """Write a volume as a CT series into a folder of its own, with ``SeriesOptions``."""

    def make(volume: Volume, **options: object) -> list[Path]:
        folder = tmp_path / f"ct{len(list(tmp_path.glob('ct*')))}"
        return write_ct_series(volume, folder, SeriesOptions(**options))

    return make


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory) -> Path:
    """A model store with ``tiny``: the network's smallest form at 6 mm, with random weights.

    It labels everything and nothing rightly, and exercises all that a real model does.
    """
    import torch

    torch.manual_seed(20261121)
    folder = tmp_path_factory.mktemp("models")
    ModelStore(folder).add(TINY, build_network(TINY.network).state_dict())
    return folder


@pytest.fixture
def send(raw_peer) -> Callable[..., list[int]]:
    """Send instances over one association; gives the statuses. ``abort`` ends it that way."""

    def run(port: int, instances: Sequence[Dataset], abort: bool = False) -> list[int]:
        kinds = dict.fromkeys(
            (str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in instances
        )
        peer = raw_peer(port).associate(contexts=list(kinds), calling="SENDER")
        statuses = [peer.store(instance) for instance in instances]
        peer.abort() if abort else peer.release()
        return statuses

    return run


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A Storage SCP; the folder that it fills, and its port."""
    folder, port, leave = tmp_path / "archive", threading.Event(), threading.Event()
    ports: list[int] = []

    def announce(number: int) -> None:
        ports.append(number)
        port.set()

    thread = threading.Thread(target=run_archive, args=(folder, announce, leave))
    thread.start()
    assert port.wait(30)
    yield folder, ports[0]
    leave.set()
    thread.join()
