"""``pacs-bridge demo``: a synthetic patient through the whole service, and how well it went.

The listener, the worker, the sender and the archive are processes of their own; everything
between them goes over real associations on loopback.
"""

from __future__ import annotations

import json
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE

from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.label_map import LabelMap
from inference.reasons import Reason
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.volume import Volume
from pacs_bridge.config.load import load_config
from pacs_bridge.deliver.responses import keep_responses
from pacs_bridge.demo_archive import AE_TITLE as ARCHIVE_TITLE
from pacs_bridge.demo_score import Score, decode, score
from pacs_bridge.errors import PermanentError
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.library_settings import apply_library_settings
from pacs_bridge.preview import View, render_overlay, render_sheet
from pacs_bridge.queue import State

SPACING_MM = (3.0, 1.5, 1.5)  #: (z, y, x)
_MARKER = ".pacs-bridge-demo"
_BRIDGE_TITLE = "PACSBRIDGE"
_SCANNER_TITLE = "DEMOSCANNER"
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_START_LIMIT_S = 300.0
_RESULT_LIMIT_S = 1800.0
_STOP_LIMIT_S = 90.0
_ANSWER_LIMIT_S = 30.0
_LOOK_INTERVAL_S = 0.2

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the demo is asked for."""

    folder: Path
    seed: int
    model: str
    models_folder: Path | None
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of it."""

    score: Score
    segmentation: Path  #: as the archive received it
    pictures: tuple[Path, ...]
    seconds: float  #: from the first instance sent to the Segmentation in the archive


def run_demo(settings: DemoSettings, tell: Tell) -> DemoResult:
    """Run the demo; ``tell`` is told each step.

    Raises
    ------
    PermanentError
        ``internal-error`` if a process ends early or nothing arrives in time.
    """
    apply_library_settings()
    folder = prepared_folder(settings.folder)
    tell(f"synthetic patient {settings.seed}")
    patient = SyntheticPatient.from_seed(settings.seed)
    volume, truth = patient.sample(default_geometry(patient, SPACING_MM))
    files = write_ct_series(volume, folder / "ct", SeriesOptions(seed=settings.seed))
    z, y, x = volume.geometry.shape
    tell(f"CT series of {len(files)} instances, {x} x {y} x {z}, {len(truth.present())} structures")
    archive_folder = folder / "archive"
    with _started(folder, "archive", "demo-archive", "--folder", str(archive_folder)) as archive:
        config_path = _write_config(settings, folder, int(archive.said))
        with _started(folder, "service", "serve", "--config", str(config_path)) as service:
            tell(service.said)
            start_s = time.monotonic()
            _send(files, service)
            tell("sent over an association by C-STORE")
            received = _await_result(archive_folder, config_path, (archive, service))
            seconds = time.monotonic() - start_s
    tell(f"Segmentation in the archive after {seconds:.0f} s")
    found = decode(received, truth.geometry)
    result = score(truth, found)
    pictures = _paint(volume, found, folder, f"synthetic patient {settings.seed}: {settings.model}")
    return DemoResult(result, received, pictures, seconds)


def prepared_folder(folder: Path) -> Path:
    """The demo's folder, empty; whatever is there is deleted only if a demo made it.

    Raises
    ------
    PermanentError
        ``internal-error`` if something else is in it.
    """
    marker = folder / _MARKER
    if marker.exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise PermanentError(Reason.INTERNAL_ERROR, f"{folder} holds something else than a demo")
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return folder.resolve()


@dataclass(frozen=True, slots=True)
class _Running:
    """A process of the demo that has said its first line."""

    name: str
    said: str
    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            raise _failed(Reason.INTERNAL_ERROR, f"the {self.name} ended", self)


@contextmanager
def _started(folder: Path, name: str, *arguments: str) -> Iterator[_Running]:
    """A process of this program, from its first line on standard output to its end."""
    log = folder / f"{name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_bridge", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], _START_LIMIT_S)
        line = process.stdout.readline().decode().strip() if readable else ""
        running = _Running(name, line, process, log)
        if not line:
            raise _failed(Reason.INTERNAL_ERROR, f"the {name} did not start", running)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _failed(reason: Reason, what: str, process: _Running) -> PermanentError:
    """An error that quotes the end of a process's log."""
    last = process.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return PermanentError(reason, "\n".join([what, *last]))


def _write_config(settings: DemoSettings, folder: Path, archive_port: int) -> Path:
    """A configuration like any site's: loopback only, everything else as by default."""
    models = f"folder = {json.dumps(str(settings.models_folder))}" if settings.models_folder else ""
    path = folder / "bridge.toml"
    path.write_text(
        f"""\
data_folder = "service"
[listener]
ae_title = "{_BRIDGE_TITLE}"
port = 0
peers = [{{ ae_title = "{_SCANNER_TITLE}", addresses = ["127.0.0.1"] }}]
[collector]
quiet_period_s = 1.0
[disk]
accept_above_free_gib = 0.5
reserve_free_gib = 0.25
[workers]
devices = [{json.dumps(settings.device)}]
[models]
{models}
[[destinations]]
name = "archive"
ae_title = "{ARCHIVE_TITLE}"
host = "127.0.0.1"
port = {archive_port}
[[routes]]
name = "demo"
model = {json.dumps(settings.model)}
destinations = ["archive"]
""",
        encoding="utf-8",
    )
    return path


def _send(files: Sequence[Path], service: _Running) -> None:
    """Send the series as a scanner does: one association, C-STORE by C-STORE."""
    port = int(service.said.split(",")[0].rpartition(":")[2])
    ae = AE(ae_title=_SCANNER_TITLE)
    ae.dimse_timeout = ae.network_timeout = _ANSWER_LIMIT_S
    ae.add_requested_context(_CT_IMAGE, _EXPLICIT_LITTLE)
    association = ae.associate("127.0.0.1", port, ae_title=_BRIDGE_TITLE)
    if not association.is_established:
        raise _failed(Reason.SEND_TIMEOUT, f"no association with port {port}", service)
    keep_responses(association)
    for file in files:
        answer = association.send_c_store(file)
        status = answer.get("Status")
        if status != 0:
            association.abort()
            said = "no answer" if status is None else f"status {status:04X}H"
            raise _failed(Reason.SEND_REFUSED, f"{file.name}: {said}", service)
    association.release()


def _await_result(archive: Path, config_path: Path, processes: Sequence[_Running]) -> Path:
    """The first object in the archive; an early end of the job or a process is an error."""
    ledger = Ledger.open(load_config(config_path).ledger_path)
    try:
        deadline_s = time.monotonic() + _RESULT_LIMIT_S
        while time.monotonic() < deadline_s:
            received = sorted(archive.glob("*.dcm"))
            if received:
                return received[0]
            for process in processes:
                process.check()
            for view in ledger.view.jobs([State.DEAD, State.SKIPPED, State.INCOMPLETE]):
                raise PermanentError(view.reason or Reason.INTERNAL_ERROR, view.detail)
            time.sleep(_LOOK_INTERVAL_S)
    finally:
        ledger.close()
    raise PermanentError(Reason.TIMEOUT, f"nothing arrived in {_RESULT_LIMIT_S:.0f} s")


def _paint(volume: Volume, found: LabelMap, folder: Path, title: str) -> tuple[Path, ...]:
    sheet = folder / "overlay.png"
    render_sheet(volume, found, title).save(sheet)
    paths = [sheet]
    for view in View:
        path = folder / f"{view}.png"
        render_overlay(volume, found, view).save(path)
        paths.append(path)
    return tuple(paths)
