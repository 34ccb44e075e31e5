"""Archives of synthetic headers, written fast: bytes of one instance with other names in it."""

from __future__ import annotations

import importlib
import io
import resource
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_seg.read.examination import SeriesRules
from pacs_bridge.archive.accounts import outcome_counts
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planner import Planner, PlanTally
from pacs_bridge.archive.work_process import Leaving
from pacs_bridge.identity_hash import KEY_NAME

_SERIES = "1.2.826.0.1.3680043.8.498.1.100000000"
_STUDY = "1.2.826.0.1.3680043.8.498.2.100000000"
_INSTANCE = "1.2.826.0.1.3680043.8.498.3.100000000.10000"
_Z = "-0000.00"


def header_bytes(**attributes: object) -> bytes:
    """A CT instance of 8 x 8 pixels in which series, instance and place can be replaced."""
    ds = Dataset()
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = _INSTANCE
    ds.StudyDate = "20260101"
    ds.AccessionNumber = "A-1"
    ds.Modality = "CT"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "PID-1"
    ds.PatientBirthDate = "19700101"
    ds.StudyInstanceUID = _STUDY
    ds.SeriesInstanceUID = _SERIES
    ds.FrameOfReferenceUID = _STUDY + ".1"
    ds.ImagePositionPatient = ["0", "0", _Z]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.PixelSpacing = ["3", "3"]
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.PixelData = bytes(128)
    syntax = attributes.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    content = io.BytesIO()
    ds.save_as(content, enforce_file_format=True)
    return content.getvalue().replace(
        _padded(ExplicitVRLittleEndian), _padded(str(syntax), len(_padded(ExplicitVRLittleEndian)))
    )


def _padded(uid: str, length: int | None = None) -> bytes:
    text = uid.encode() + b"\0" * (len(uid) % 2)
    if length is not None:
        assert len(text) == length, "a transfer syntax UID of another length"
    return text


def series_uid(number: int) -> str:
    return f"{_SERIES[:-9]}{100_000_000 + number}"


def instances(template: bytes, series: int, planes: range) -> Iterator[bytes]:
    """Planes 2 mm apart of one series made of a template."""
    of_series = template.replace(_SERIES.encode(), series_uid(series).encode())
    of_series = of_series.replace(_STUDY.encode(), f"{_STUDY[:-9]}{100_000_000 + series}".encode())
    for plane in planes:
        instance = f"{_INSTANCE[:-15]}{100_000_000 + series}.{10_000 + plane}".encode()
        place = f"{2.0 * plane:08.2f}".encode()
        yield of_series.replace(_INSTANCE.encode(), instance).replace(_Z.encode(), place)


#: Attributes for which a series will not run, by the reason.
UNFIT: dict[str, dict[str, object]] = {
    "localizer": {"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"},
    "not-ct": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"},
    "derived": {"ImageType": "DERIVED\\SECONDARY\\MIP"},
    "missing-geometry": {"PixelSpacing": None},
    "no-rescale": {"RescaleSlope": None},
    "corrupt-pixel-data": {"Rows": 16},
    "too-large": {"Rows": 4096},
    "missing-identity": {"PatientID": ""},
    "unsupported-syntax": {"TransferSyntaxUID": "1.2.840.10008.1.2.7"},
}
KINDS = (*UNFIT, "too-few-slices", "split", "twice", "two-patients", "gap")


@dataclass
class ArchiveTree:
    """A folder tree that is filled by templates; counts what is put in."""

    root: Path
    series: int = 0
    expected: dict[str, int] = field(default_factory=dict)
    templates: dict[object, bytes] = field(default_factory=dict)

    def add(
        self,
        outcome: str,
        folder: str,
        planes: range = range(12),
        uid: int = 0,
        **attributes: object,
    ) -> int:
        """A series of which ``outcome`` is expected: ``run`` or a reason code; gives its number.

        With ``uid``, the number of another one, it is more of that one.
        """
        number = uid or self.series + 1
        self.series = max(number, self.series)
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        key = tuple(sorted(attributes.items(), key=str))
        if key not in self.templates:
            self.templates[key] = header_bytes(**attributes)
        for plane, content in zip(
            planes, instances(self.templates[key], number, planes), strict=True
        ):
            (place / f"{number:06d}-{plane}").write_bytes(content)
        if outcome:
            self.expected[outcome] = self.expected.get(outcome, 0) + 1
        return number

    def fill(self, count: int) -> None:
        """So many series: of every ten seven that will run, and one of every other kind in turn."""
        for each in range(count):
            folder = f"patient{each // 20}/study{each // 4}/series{each}"
            if each % 10 < 7:
                self.add("run", folder)
            else:
                number = each - 7 * (each // 10 + 1)
                self.add_other(KINDS[number % len(KINDS)], folder)

    def add_other(self, kind: str, folder: str) -> int:
        """A series that is something special."""
        match kind:
            case "split":
                number = self.add("run", f"{folder}/a", range(6))
                return self.add("", f"{folder}/b", range(6, 12), uid=number)
            case "twice":
                number = self.add("run", folder)
                return self.add("", f"{folder}/copy", uid=number)
            case "two-patients":
                number = self.add("mixed-identity", folder, range(6))
                more = {"PatientID": "PID-2", "PatientName": "Roe^Rick"}
                return self.add("", f"{folder}/other", range(6, 12), uid=number, **more)
            case "gap":
                number = self.add("missing-slice", folder, range(10))
                return self.add("", folder, range(30, 34), uid=number)
            case "too-few-slices":
                return self.add(kind, folder, range(5))
            case _:
                return self.add(kind, folder, **UNFIT[kind])


@pytest.fixture
def tree(ram_folder) -> ArchiveTree:
    root = ram_folder / "archive"
    root.mkdir()
    return ArchiveTree(root)


class InlineExecutor(Executor):
    """Works at once, in this process: what is tested is not the pool."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        future: Future[object] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.fixture
def plan_of(ram_folder) -> Iterator[Callable[..., PlannedArchive]]:
    """Plan folders, into one run folder; again with what is there by then."""
    plan = PlanFile(ram_folder / "run", must_exist=False)
    (ram_folder / "run" / KEY_NAME).write_bytes(b"key")

    def run(*roots: Path, rules: SeriesRules | None = None) -> PlannedArchive:
        planner = Planner(plan, rules or SeriesRules(), b"key", InlineExecutor())
        planner.take_in(roots)
        return PlannedArchive(plan, planner.tally)

    yield run
    plan.close()


@dataclass
class PlannedArchive:
    """A plan, and what the last call did."""

    plan: PlanFile
    tally: PlanTally

    def outcomes(self) -> dict[str, int]:
        """Series by reason; ``run`` for those that will."""
        found: dict[str, int] = {}
        for count in outcome_counts(self.plan):
            name = count.reason or "run"
            found[name] = found.get(name, 0) + count.series
        return found

    def files(self) -> dict[str, int]:
        """Files that are not used, by reason."""
        with self.plan.read() as connection:
            return dict(
                connection.execute(
                    "SELECT reason, count(*) FROM files WHERE reason IS NOT NULL GROUP BY reason"
                ).fetchall()
            )


@pytest.fixture
def zip_tree() -> Callable[[Path, Path], None]:
    """Put what lies in a folder into a zip file."""

    def run(folder: Path, path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for each in sorted(folder.rglob("*")):
                if each.is_file():
                    target.write(each, each.relative_to(folder))

    return run


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """What a full disk does to whoever writes more bytes into a file."""

    @contextmanager
    def limited(size_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture
def works(monkeypatch) -> ModuleType:
    """Work that another process can import."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("dying_work")


@pytest.fixture
def leaving() -> Leaving:
    return Leaving(threading.Event(), threading.Event())
