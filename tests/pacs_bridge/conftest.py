"""Fixtures of the service: a clock, folders, configurations, instances, a listener, senders."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.load import load_config
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.log import JsonLog
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


@pytest.fixture
def send() -> Callable[..., list[int]]:
    """Send instances over one association; gives the statuses. ``abort`` ends it that way."""
    from pynetdicom import AE, StoragePresentationContexts

    def run(
        port: int, instances: Sequence[Dataset], abort: bool = False, title: str = "PACSBRIDGE"
    ) -> list[int]:
        ae = AE(ae_title="SENDER")
        ae.requested_contexts = StoragePresentationContexts[:0]
        for instance in instances:
            syntax = instance.file_meta.TransferSyntaxUID
            ae.add_requested_context(instance.SOPClassUID, syntax)
        association = ae.associate("127.0.0.1", port, ae_title=title)
        assert association.is_established
        statuses = [association.send_c_store(one).get("Status", -1) for one in instances]
        association.abort() if abort else association.release()
        return statuses

    return run
