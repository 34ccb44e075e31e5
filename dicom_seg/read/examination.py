"""What was found in the files of one series, and what is to be done with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydicom import Dataset

from dicom_seg.read.slice_table import SliceTable
from inference.finding import Finding
from inference.reasons import Reason


@dataclass(frozen=True, slots=True)
class SeriesRules:
    """Limits that a site can set; the defaults are those of the published behaviour."""

    min_slices: int = 10  #: stacks with fewer planes give no result
    max_gap_mm: float = 10.0  #: a longer step between neighbouring planes is not bridged
    max_gap_ratio: float = 3.0  #: nor one longer than so many times the median step
    max_matrix: int = 2048  #: rows or columns
    max_voxels: int = 1_500_000_000  #: of one stack; 2 bytes each


class Outcome(StrEnum):
    """What becomes of a series."""

    PROCESS = "process"
    SKIP = "skip"  #: no work for this software: a counted outcome, not an error
    REFUSE = "refuse"
    QUARANTINE = "quarantine"  #: a person has to correct the identity first


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An instance, or one frame of it, or a file that is no instance, that is not used."""

    path: Path
    sop_instance_uid: str  #: empty where the file has none
    frame_number: int | None  #: 1-based; None for the whole file
    reason: Reason
    detail: str  #: free of patient data


def file_numbers(paths: Iterable[Path]) -> dict[Path, int]:
    """What files are called: their number, 1 and up, in the order in which they were given.

    Names of files and folders are often names of patients: no text made here has one.
    """
    return {path: number for number, path in enumerate(dict.fromkeys(paths), 1)}


@dataclass(frozen=True, slots=True)
class SeriesIdentity:
    """Whose series this is (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1)."""

    patient_id: str
    study_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, eq=False)  # eq: data sets compare by content, at length
class StackPlan:
    """One stack of planes that gives one result."""

    table: SliceTable
    header: Dataset  #: first instance of the stack without pixel data: patient, study, equipment
    separated_by: str  #: what tells it from the other stacks, "AcquisitionNumber=2"; or empty
    findings: tuple[Finding, ...]
    told_as: str = ""  #: `separated_by` without the value, for reports: "AcquisitionNumber, 2 of 3"


@dataclass(frozen=True, slots=True, eq=False)
class SeriesExamination:
    """The outcome for one series; every file and frame is in a stack or in ``left_out``."""

    outcome: Outcome
    reason: Reason | None  #: None for PROCESS
    detail: str
    identity: SeriesIdentity | None  #: None if there is no one identity
    stacks: tuple[StackPlan, ...]  #: empty unless PROCESS
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True, slots=True)
class SeriesTriage:
    """What headers alone say of a series; no plan is made of its stacks."""

    outcome: Outcome
    reason: Reason | None  #: None for PROCESS
    detail: str
    stack_count: int
    plane_count: int  #: of all stacks
    findings: tuple[Finding, ...]
    left_out: tuple[LeftOut, ...]
