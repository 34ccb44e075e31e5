"""Comparisons of files and folders, from the command to the tables."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from dicom_seg.segmentation import SegKind
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.nifti import read_label_nifti, write_label_nifti
from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME
from training.__main__ import main
from training.compare.run import PAGE_NAME, CompareOptions, agreement_of, compare
from training.compare.side import LayeredLabels, Side
from training.errors import TrainingError
from training.evaluation.figures import Presence, measure
from training.evaluation.tolerances import Tolerances


def figures(outcome) -> dict[str, float | None]:
    (case,) = outcome.cases
    by_id = {s.structure_id: s.dice for s in case.structures}
    return {n: by_id[s.id] for n, s in STRUCTURE_BY_NAME.items() if s.id in by_id}


@pytest.mark.parametrize("kind", list(SegKind))
def test_a_segmentation_agrees_with_the_nifti_file_of_the_same_labels(make_scan, tmp_path, kind):
    scan = make_scan()
    seg = scan.write("seg.dcm", kind)
    write_label_nifti(scan.labels, tmp_path / "labels.nii.gz")

    for first, second in ((seg, tmp_path / "labels.nii.gz"), (tmp_path / "labels.nii.gz", seg)):
        outcome = compare(first, second, tmp_path / "out")

        assert set(figures(outcome).values()) == {1.0}
        assert {s.hd95_mm for s in outcome.cases[0].structures} == {0.0}
        volumes = {s.structure_id: s.other_ml for s in outcome.cases[0].structures}
        assert volumes == pytest.approx(scan.labels.volumes_ml())
        assert outcome.remarks == ()
        told = dict(outcome.facts)
        assumed = "A" if second == seg else "B"
        assert "no label table" in told[f"values of {assumed}"]
        assert told["values of B" if assumed == "A" else "values of A"].startswith("codes")


def test_two_segmentations_of_one_tilted_scan_are_compared_as_they_lie(make_scan):
    scan = make_scan("tilted")
    fewer = scan.labels.labels.copy()
    fewer[fewer == STRUCTURE_BY_NAME["liver"].id] = 0
    other = replace(scan, labels=LabelMap(fewer, scan.labels.geometry))

    outcome = compare(
        scan.write("a.dcm"), other.write("b.dcm", SegKind.LABELMAP), scan.folder / "out"
    )

    found = figures(outcome)
    assert found.pop("liver") is None
    assert set(found.values()) == {1.0}
    liver = next(s for s in outcome.cases[0].structures if s.dice is None)
    assert liver.presence is Presence.REFERENCE_ONLY
    assert liver.reference_ml == pytest.approx(scan.labels.volumes_ml()[liver.structure_id])


def test_structures_that_overlap_are_compared_whole():
    geometry = Geometry.from_affine(np.eye(4), (3, 4, 4))
    aorta, liver = STRUCTURE_BY_NAME["aorta"].id, STRUCTURE_BY_NAME["liver"].id
    both = LayeredLabels(geometry.shape)
    for z in range(3):
        both.add(liver, z, np.ones((4, 4), dtype=bool))
        both.add(aorta, z, np.eye(4, dtype=bool))
    flat = np.full(geometry.shape, liver, dtype=np.uint8)
    flat[:, np.eye(4, dtype=bool)] = aorta

    found = agreement_of(
        both.side(geometry, (), sparse=False), Side((LabelMap(flat, geometry),)), Tolerances()
    )

    dice = {s.structure_id: s.dice for s in found}
    assert dice == {liver: pytest.approx(2 * 36 / (48 + 36)), aorta: 1.0}


def test_twins_that_one_side_confuses_are_flagged(make_scan, tmp_path):
    scan = make_scan()
    left, right = (STRUCTURE_BY_NAME[f"kidney_{side}"].id for side in ("left", "right"))
    labels = scan.labels.labels
    swapped = labels.copy()
    swapped[labels == left], swapped[labels == right] = right, left
    write_label_nifti(LabelMap(swapped, scan.labels.geometry), tmp_path / "b.nii.gz")

    outcome = compare(scan.write("a.dcm"), tmp_path / "b.nii.gz", tmp_path / "out")

    assert {s.structure_id for s in outcome.cases[0].structures if s.is_swapped} == {left, right}
    assert "seem to be swapped" in (tmp_path / "out" / PAGE_NAME).read_text()


def test_files_of_two_folders_are_paired_by_name(make_scan, tmp_path):
    scan = make_scan()
    first, second = tmp_path / "A", tmp_path / "B"
    (first / "nested").mkdir(parents=True)
    second.mkdir()
    seg = scan.write("seg.dcm")
    shutil.copy(seg, first / "case1.dcm")
    shutil.copy(seg, first / "nested" / "whatever.dcm")
    shutil.copy(seg, first / "alone.dcm")
    write_label_nifti(scan.labels, second / "case1.nii.gz")
    write_label_nifti(scan.labels, second / "nested.nii")
    (second / "broken.nii.gz").write_bytes(b"no")
    shutil.copy(seg, first / "broken.dcm")

    outcome = compare(first, second, tmp_path / "out")

    assert [case.name for case in outcome.cases] == ["case1", "nested"]
    assert {(f.name, f.reason) for f in outcome.failures} == {
        ("alone", Reason.UNPAIRED),
        ("broken", Reason.UNREADABLE_FILE),
    }
    with (tmp_path / "out/failures.csv").open() as file:
        assert {row["case"] for row in csv.DictReader(file)} == {"alone", "broken"}


def test_folders_without_a_pair_are_refused(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "B").mkdir()

    with pytest.raises(TrainingError) as refusal:
        compare(tmp_path / "A", tmp_path / "B", tmp_path / "out")

    assert refusal.value.reason is Reason.NO_CASES


def test_the_command_refuses_another_grid_and_resamples_when_asked(make_scan, tmp_path):
    scan = make_scan()
    seg = scan.write("seg.dcm")
    matrix = scan.labels.geometry.affine
    matrix[:3, 3] += [0.3, 0, 0]
    moved = Geometry.from_affine(matrix, scan.labels.geometry.shape)
    write_label_nifti(LabelMap(scan.labels.labels, moved), tmp_path / "b.nii.gz")
    call = ["compare", str(seg), str(tmp_path / "b.nii.gz"), "--out", str(tmp_path / "out")]

    refused = CliRunner().invoke(main, call)
    resampled = CliRunner().invoke(main, [*call, "--resample"])

    assert refused.exit_code == 1
    assert "other-grid" in refused.stderr
    assert resampled.exit_code == 0, resampled.output
    assert "mean Dice 1.0000" in resampled.stdout
    assert "resampled" in (tmp_path / "out" / PAGE_NAME).read_text()
    assert CliRunner().invoke(main, [*call, "--labels-a", "v3"]).exit_code == 2


@pytest.mark.shared
def test_two_models_on_a_real_scan_agree_as_their_labels_do(shared_data, tmp_path):
    folder = shared_data / "totalseg_v1_dataset"
    paths = [folder / f"s0001_labels_v1_{which}.nii.gz" for which in ("full", "fast")]

    outcome = compare(*paths, tmp_path)

    (case,) = outcome.cases
    assert case.structures == measure(*(read_label_nifti(path) for path in paths))
    assert len(case.structures) >= 57
    assert np.mean([s.dice for s in case.structures if s.dice]) > 0.9


@pytest.mark.shared
def test_old_and_new_segmentations_of_other_tools_are_compared(shared_data, tmp_path):
    whole = shared_data / "dcmqi/24x38x3/seg/label.seg"
    sparse = shared_data / "dcmqi/sparse-labelmap-ppv5.dcm"

    outcome = compare(whole, sparse, tmp_path, CompareOptions(tolerances=Tolerances(2.5)))

    (liver,) = outcome.cases[0].structures
    # one in the middle plane, the other in the planes before and after it
    assert liver.dice == 0
    assert liver.hd95_mm == pytest.approx(2.5)
    assert liver.surface_dice == 1
    assert liver.other_ml == pytest.approx(2 * liver.reference_ml)
