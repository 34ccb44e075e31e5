"""``report.json``: what was done with a series, with what, and what came of it.

It lies beside every result. It names every instance of the input, used or left out with its
reason, so that nothing is ever dropped silently; and everything that a later reader needs to
make the result again. The only identifiers in it are UIDs: names, patient IDs and dates of
the patient stay in the DICOM objects, and names of input files and folders, which may tell
them, stay where they are.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, TypeAdapter

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.stopwatch import Stage

REPORT_NAME = "report.json"
SCHEMA: Literal["pacs-bridge/report/1"] = "pacs-bridge/report/1"
_PRECISION: Final = "precision"
#: Libraries whose version can change a voxel or a byte of a result.
LIBRARIES = (
    "highdicom",
    "imagecodecs",
    "monai",
    "nibabel",
    "numpy",
    "pydicom",
    "safetensors",
    "SimpleITK",
    "torch",
)


@dataclass(frozen=True, slots=True)
class UsedInstance:
    """A plane of the source that the result rests on."""

    sop_instance_uid: str
    frame_number: int | None  #: 1-based; None for a single-frame instance
    position_mm: float  #: along the normal of the stack


@dataclass(frozen=True, slots=True)
class LeftOutInstance:
    """An instance, frame or file of the input that the result does not rest on."""

    file: str  #: "file N", the N-th of the input; a spool name in the service
    sop_instance_uid: str
    frame_number: int | None
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class StructureVolume:
    """How much of one structure was found."""

    id: int  #: 1..104, TotalSegmentator v1
    name: str
    volume_ml: float | None  #: None if there is but one plane: it does not say how thick it is
    truncated: bool  #: the scan cuts it: not its whole volume


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that was written beside the report."""

    file: str
    kind: str  #: binary, labelmap or nifti
    size_bytes: int
    sha256: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    series_instance_uid: str = ""
    transfer_syntax_uid: str = ""
    frame_count: int = 0


@dataclass(frozen=True, slots=True)
class StackReport:
    """One stack of planes, and its one result."""

    #: "AcquisitionNumber, 2 of 3": what told it from other stacks; empty if there is one
    separated_by: str
    shape: tuple[int, int, int]  #: (z, y, x), voxels
    spacing_mm: tuple[float, float, float]  #: (z, y, x)
    tilt_degrees: float
    reason: Reason | None  #: why there is no output; None where there is
    findings: tuple[Finding, ...]
    used: tuple[UsedInstance, ...]
    structures: tuple[StructureVolume, ...]
    outputs: tuple[OutputFile, ...]
    #: settings of the segmenter that change the result
    parameters: Mapping[str, str] = field(default_factory=dict)
    #: device, memory, threads, and what was not computed
    execution: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What segmented."""

    name: str
    version: str
    digest: str  #: sha256 of the weights
    demonstration: bool
    intended_use: str
    source: str
    parameters: Mapping[str, str]  #: what is true of every stack
    execution: Mapping[str, str] = field(default_factory=dict)  #: the same


@dataclass(frozen=True, slots=True)
class SoftwareReport:
    """What it ran on."""

    version: str
    python: str
    platform: str
    libraries: Mapping[str, str]

    @classmethod
    def of_this_process(cls) -> SoftwareReport:
        """Versions as installed; a library that is absent is left out."""
        libraries = {}
        for name in LIBRARIES:
            try:
                libraries[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return cls(
            version=software_version(),
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            libraries=libraries,
        )


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of a series as a whole."""

    outcome: Literal["process", "skip", "refuse", "quarantine"]
    reason: Reason | None  #: None where there is a result
    detail: str

    @property
    def has_result(self) -> bool:
        """Whether there is something to deliver."""
        return self.outcome == "process"


@dataclass(frozen=True, slots=True)
class SeriesNames:
    """Which series, and which revision of it; UIDs are empty where there is no one series."""

    study_instance_uid: str
    series_instance_uid: str
    revision: int


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """The whole of ``report.json``."""

    schema: Literal["pacs-bridge/report/1"] = field(default=SCHEMA, kw_only=True)
    created: datetime
    ending: Ending
    series: SeriesNames
    software: SoftwareReport
    model: ModelReport | None
    parameters: Mapping[str, str]
    stacks: tuple[StackReport, ...]
    left_out: tuple[LeftOutInstance, ...]
    timings_s: Mapping[Stage, float]
    peak_memory_bytes: int

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def precision(self) -> str:
        """Of the network: a word, or several where stacks differ; empty where nothing says it."""
        told = {stack.parameters.get(_PRECISION, "") for stack in self.stacks} - {""}
        if not told and self.model is not None:
            return self.model.parameters.get(_PRECISION, "")
        return " ".join(sorted(told))

    def to_json(self) -> bytes:
        """The report as indented JSON, ending in a newline."""
        return _adapter().dump_json(self, indent=2) + b"\n"

    def write(self, folder: Path) -> Path:
        """Put the report into ``folder``, whole or not at all."""
        path = folder / REPORT_NAME
        partial = path.with_suffix(".partial")
        partial.write_bytes(self.to_json())
        partial.replace(path)
        return path

    @classmethod
    def read(cls, path: Path) -> SeriesReport:
        """The report in ``path``.

        Raises
        ------
        pydantic.ValidationError
            If the file is not a report of this schema.
        """
        return _adapter().validate_json(path.read_bytes())


def remove_result(folder: Path) -> None:
    """Delete the result that a report in ``folder`` names, and the report; nothing else."""
    path = folder / REPORT_NAME
    try:
        report = SeriesReport.read(path)
    except (OSError, ValueError):  # none, or not one of ours
        return
    for stack in report.stacks:
        for output in stack.outputs:
            (folder / Path(output.file).name).unlink(missing_ok=True)
    path.unlink()


def report_json_schema() -> dict[str, Any]:
    """JSON Schema of ``report.json``."""
    return _adapter().json_schema(mode="serialization")


def software_version() -> str:
    """Version of this software."""
    try:
        return metadata.version("pacs-bridge")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def _adapter() -> TypeAdapter[SeriesReport]:
    return TypeAdapter(SeriesReport)
