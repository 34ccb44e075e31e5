"""A NIfTI file through the whole flow, with a segmenter whose result is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference.errors import ModelError
from inference.geometry import Geometry
from inference.nifti import read_label_nifti
from inference.reasons import Reason
from inference.segmenter import Segmenter
from pacs_bridge import process_nifti as door
from pacs_bridge.errors import PermanentError
from pacs_bridge.process_nifti import LABELS_NAME, process_nifti
from pacs_bridge.report import SeriesReport

CREATED = datetime(2026, 11, 21, 20, 15, tzinfo=UTC)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    values = np.full((10, 12, 8), -1000, np.int16)
    values[2:7, 3:9, 2:6] = 700
    path = tmp_path / "case.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), path)
    return path


def _left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_bright_voxels_come_out_as_labels_on_the_grid_of_the_input(
    case: Path, bright_segmenter: Segmenter, tmp_path: Path
) -> None:
    report = process_nifti(case, bright_segmenter, tmp_path / "out", CREATED)
    assert report.ending.has_result
    found = read_label_nifti(tmp_path / "out" / LABELS_NAME).labels
    assert np.count_nonzero(found) == 5 * 6 * 4
    assert _left(tmp_path / "out") == {LABELS_NAME, "report.json"}


def test_a_file_that_is_refused_leaves_a_report_that_says_so_and_no_earlier_result(
    case: Path, bright_segmenter: Segmenter, tmp_path: Path
) -> None:
    process_nifti(case, bright_segmenter, tmp_path / "out", CREATED)
    case.write_bytes(case.read_bytes()[:40])
    report = process_nifti(case, bright_segmenter, tmp_path / "out", CREATED)
    assert (report.ending.outcome, report.ending.reason) == ("refuse", Reason.UNREADABLE_FILE)
    assert _left(tmp_path / "out") == {"report.json"}
    assert SeriesReport.read(tmp_path / "out" / "report.json") == report


def test_an_empty_result_leaves_a_report_that_says_so(
    tmp_path: Path, bright_segmenter: Segmenter
) -> None:
    nothing = nib.Nifti1Image(np.full((8, 8, 8), -1000, np.int16), np.diag([-2.0, -2.0, 3.0, 1.0]))
    nib.save(nothing, tmp_path / "case.nii")
    report = process_nifti(tmp_path / "case.nii", bright_segmenter, tmp_path / "out", CREATED)
    assert (report.ending.outcome, report.ending.reason) == ("skip", Reason.EMPTY_RESULT)
    assert report.ending.detail == "no structure in the scan"
    assert _left(tmp_path / "out") == {"report.json"}


def test_labels_that_are_not_verified_never_get_their_name(
    case: Path, bright_segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = door.write_label_nifti

    def mirrored(labels, path):
        write(dataclasses.replace(labels, labels=labels.labels[:, :, ::-1].copy()), path)

    monkeypatch.setattr(door, "write_label_nifti", mirrored)
    with pytest.raises(PermanentError) as stopped:
        process_nifti(case, bright_segmenter, tmp_path / "out", CREATED)
    assert stopped.value.reason is Reason.VERIFICATION_FAILED
    assert _left(tmp_path / "out") == set()


def test_a_structure_that_the_field_of_reconstruction_cuts_is_marked_truncated(
    bright_segmenter: Segmenter, tmp_path: Path
) -> None:
    values = np.full((10, 12, 8), -1000, np.int16)
    values[2:7, 3:9, 2:6] = 700
    values[:2] = -2048  # what scanners and converters write beside the field
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), tmp_path / "case.nii")

    report = process_nifti(tmp_path / "case.nii", bright_segmenter, tmp_path / "out", CREATED)

    (stack,) = report.stacks
    assert any(each.truncated for each in stack.structures)
    assert Reason.TRUNCATED_STRUCTURE in {finding.reason for finding in stack.findings}


def test_values_that_are_no_tissue_and_forms_that_differ_are_remarked_on(
    bright_segmenter: Segmenter, tmp_path: Path
) -> None:
    values = np.zeros((10, 12, 8), np.int16)
    values[2:7, 3:9, 2:6] = 700
    image = nib.Nifti1Image(values, None)
    image.set_sform(np.diag([-2.0, -2.0, 3.0, 1.0]), 2)
    image.set_qform(np.diag([-2.0, -2.0, 3.0, 1.0]) + 30 * np.eye(4, k=3), 1)
    nib.save(image, tmp_path / "case.nii")

    report = process_nifti(tmp_path / "case.nii", bright_segmenter, tmp_path / "out", CREATED)

    assert report.ending.has_result
    (stack,) = report.stacks
    details = {finding.reason: finding.detail for finding in stack.findings}
    assert details[Reason.IMPLAUSIBLE_HU] == "no value below 0 HU: no fat and no air"
    assert "15.0 voxels" in details[Reason.ORIENTATION_CONFLICT]


def test_a_scan_of_a_body_in_air_has_no_remarks(
    case: Path, bright_segmenter: Segmenter, tmp_path: Path
) -> None:
    values = np.full((10, 12, 8), -1000, np.int16)
    values[2:8, 3:9, 2:6] = 40
    values[4:6, 4:6, 3:5] = 700
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), case)

    report = process_nifti(case, bright_segmenter, tmp_path / "out", CREATED)

    assert report.stacks[0].findings == ()


@pytest.mark.parametrize(("planes", "volume_ml"), [(1, None), (2, 5 * 6 * 2 * 0.012)])
def test_one_plane_alone_has_structures_and_no_volume(
    bright_segmenter: Segmenter, tmp_path: Path, planes: int, volume_ml: float | None
) -> None:
    values = np.full((10, 12, planes), -1000, np.int16)
    values[2:7, 3:9] = 700
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), tmp_path / "case.nii")

    report = process_nifti(tmp_path / "case.nii", bright_segmenter, tmp_path / "out", CREATED)

    (only,) = report.stacks[0].structures
    assert only.volume_ml == (None if volume_ml is None else pytest.approx(volume_ml))
    assert SeriesReport.read(tmp_path / "out" / "report.json") == report


def test_a_scan_that_does_not_fit_is_refused_before_its_voxels_are_read(
    bright_segmenter: Segmenter, tmp_path: Path
) -> None:
    class Full:
        identity, segment = bright_segmenter.identity, bright_segmenter.segment

        def main_memory_bytes(self, geometry: Geometry) -> int:
            return 0

        def fitted(self, scans: Sequence[Geometry], **_: object) -> Segmenter:
            raise ModelError(Reason.OOM_CPU, f"{scans[0].shape}")

    values = np.full((10, 12, 8), np.nan, np.float32)  # refused where they are looked at
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0])), tmp_path / "case.nii")

    with pytest.raises(ModelError, match=r"\(8, 12, 10\)") as stopped:
        process_nifti(tmp_path / "case.nii", Full(), tmp_path / "out", CREATED)
    assert stopped.value.reason is Reason.OOM_CPU
