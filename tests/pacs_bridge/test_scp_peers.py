"""DCMTK's echoscu and storescu against the listener."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_seg.provenance import instance_digest
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.geometry import Geometry
from inference.reasons import Reason
from inference.volume import Volume
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import State

pytestmark = pytest.mark.pacs

OURS = ["-aec", "PACSBRIDGE"]


@pytest.fixture
def dcmtk() -> Callable[..., subprocess.Popen[str]]:
    """DCMTK's programs; not pynetdicom's scripts of the same names."""

    def run(
        program: str, port: int, options: Sequence[str], path: Path | None = None
    ) -> subprocess.Popen[str]:
        executable = Path("/usr/bin", program)
        if not executable.exists():
            if os.environ.get("CI") == "true":
                pytest.fail(f"{executable} is missing")
            pytest.skip(f"{executable} is missing")
        command = [executable, *options, "127.0.0.1", str(port), *([path] if path else [])]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return run


def finish(process: subprocess.Popen[str]) -> int:
    output, _ = process.communicate(timeout=120)
    print(output)
    return process.returncode


@pytest.fixture
def series(tmp_path, rng) -> list[Path]:
    hu = rng.integers(-1000, 2000, (12, 64, 64)).astype(np.int16)
    geometry = Geometry(
        shape=hu.shape,
        origins_mm=np.array([(0.0, 0.0, 2.0 * z) for z in range(len(hu))]),
        row_step_mm=np.array([0.0, 0.8, 0.0]),
        column_step_mm=np.array([0.8, 0.0, 0.0]),
        frame_of_reference_uid="2.25.99",
    )
    return write_ct_series(Volume(hu, geometry), tmp_path / "series")


@pytest.fixture
def listener(make_config, start_listener):
    return start_listener(make_config())


@pytest.fixture
def ledger(listener, make_config) -> Ledger:
    return Ledger.open(make_config().ledger_path)


def only_state(ledger: Ledger) -> State | None:
    views = ledger.view.jobs()
    return views[0].state if len(views) == 1 else None


def test_echoscu_is_answered_at_our_title_and_rejected_at_another(listener, dcmtk):
    assert finish(dcmtk("echoscu", listener.port, OURS)) == 0
    assert finish(dcmtk("echoscu", listener.port, ["-aec", "SOMEBODY"])) != 0


@pytest.mark.parametrize("options", [[], ["--max-pdu", "131072"], ["--max-pdu", "4096"], ["-xi"]])
def test_storescu_sends_a_series_twice_and_it_is_kept_once(
    listener, dcmtk, series, ledger, wait_for, options
):
    for _ in range(2):
        sent = dcmtk("storescu", listener.port, [*OURS, *options, "+sd"], series[0].parent)
        assert finish(sent) == 0
    wait_for(lambda: only_state(ledger) is State.READY)

    sop_instance_uids = {dcmread(path).SOPInstanceUID for path in series}
    uid = dcmread(series[0]).SeriesInstanceUID
    sources = ledger.instances.sources(uid, 1)
    assert {source.sop_instance_uid for source in sources} == sop_instance_uids
    assert ledger.view.counts() == {Reason.DUPLICATE_INSTANCE: 12}
    for source in sources:
        assert instance_digest(source.path) == source.digest


@pytest.mark.shared
def test_storescu_sends_a_real_compressed_series(listener, dcmtk, shared_data, ledger, wait_for):
    folder = shared_data / "ts_dicom"
    sent = dcmtk("storescu", listener.port, [*OURS, "-xv", "+sd"], folder)
    assert finish(sent) == 0
    wait_for(lambda: only_state(ledger) is State.READY)

    files = [path for path in folder.iterdir() if path.suffix == ".dcm"]
    uid = str(dcmread(files[0]).SeriesInstanceUID)
    sources = {one.sop_instance_uid: one for one in ledger.instances.sources(uid, 1)}
    assert len(sources) == len(files)
    for path in files:
        original = dcmread(path)
        stored = dcmread(sources[str(original.SOPInstanceUID)].path)
        assert stored.PixelData == original.PixelData
        assert stored.file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID


def test_storescu_sends_multi_frame_ct(listener, dcmtk, series, ledger, wait_for, tmp_path, rng):
    hu = rng.integers(-1000, 2000, (12, 64, 64)).astype(np.int16)
    geometry = Geometry(
        shape=hu.shape,
        origins_mm=np.array([(0.0, 0.0, 2.0 * z) for z in range(len(hu))]),
        row_step_mm=np.array([0.0, 0.8, 0.0]),
        column_step_mm=np.array([0.8, 0.0, 0.0]),
        frame_of_reference_uid="2.25.99",
    )
    (path,) = write_ct_series(
        Volume(hu, geometry), tmp_path / "enhanced", SeriesOptions(kind=ObjectKind.ENHANCED_CT)
    )
    assert finish(dcmtk("storescu", listener.port, OURS, path)) == 0
    wait_for(lambda: only_state(ledger) is State.READY)


def test_a_sender_that_is_killed_leaves_its_series_held_until_it_sends_again(
    listener, dcmtk, series, ledger, wait_for
):
    many = series[0].parent.parent / "many"
    many.mkdir()
    for number in range(40):  # the rest of these is known: it takes its time and changes nothing
        for path in series:
            shutil.copy(path, many / f"{number:03}-{path.name}")
    process = dcmtk("storescu", listener.port, [*OURS, "+sd"], many)
    wait_for(lambda: only_state(ledger) is State.RECEIVING)
    process.send_signal(signal.SIGKILL)
    finish(process)
    wait_for(lambda: only_state(ledger) is State.INCOMPLETE)
    time.sleep(0.5)  # more than the quiet period
    assert only_state(ledger) is State.INCOMPLETE

    sent = dcmtk("storescu", listener.port, [*OURS, "+sd"], series[0].parent)
    assert finish(sent) == 0
    wait_for(lambda: only_state(ledger) is State.READY)
    assert len(ledger.view.series(dcmread(series[0]).SeriesInstanceUID)) == 1


def test_several_senders_at_once(listener, dcmtk, series, ledger, wait_for):
    parts = []
    for number in range(4):
        folder = series[0].parent.parent / f"part{number}"
        folder.mkdir()
        for path in series[number::4]:
            shutil.copy(path, folder)
        parts.append(folder)
    senders = [dcmtk("storescu", listener.port, [*OURS, "+sd"], part) for part in parts]
    assert [finish(sender) for sender in senders] == [0] * 4
    wait_for(lambda: only_state(ledger) is State.READY)
    assert ledger.view.jobs()[0].instance_count == 12
