"""A raw case becomes a scan and a label file, or is refused with a code for each fault."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from inference.nifti import read_label_nifti, read_nifti
from inference.reasons import Reason
from inference.structures import STRUCTURES
from training.prepare.outcome import ImageKept, Outcome, Rules, Split
from training.prepare.raw_case import prepare_case
from training.prepare.raw_dataset import RawCase

SHAPE = (9, 7, 11)
AFFINE = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, 30], [0, 0, 1.5, -100], [0, 0, 0, 1]])


@pytest.fixture
def prepare(tmp_path) -> Callable[..., Outcome]:
    def run(folder: Path, **rules: bool) -> Outcome:
        case = RawCase(folder.name, folder, Split.TRAINING)
        return prepare_case(case, tmp_path / "out", Rules(**rules))

    return run


def _labels(tmp_path: Path, name: str = "s0001") -> np.ndarray:
    return np.asarray(nib.load(tmp_path / "out" / "labelsTr" / f"{name}.nii.gz").dataobj)


def _codes(outcome: Outcome) -> list[tuple[Reason, str]]:
    return [(remark.reason, Path(remark.file).name) for remark in outcome.remarks]


def test_labels_are_the_union_of_the_masks_on_the_grid_of_the_scan(raw_case, tmp_path, prepare):
    outcome = prepare(raw_case)

    assert outcome.prepared
    assert outcome.remarks == ()
    np.testing.assert_array_equal(_labels(tmp_path), np.load(raw_case / ".truth.npy"))
    labels = read_label_nifti(tmp_path / "out" / "labelsTr" / "s0001.nii.gz")
    assert labels.geometry.matches(read_nifti(raw_case / "ct.nii.gz").geometry, 0.0)


@pytest.mark.shared
def test_labels_of_a_real_case_are_the_union_of_its_masks_in_every_voxel(shared_data, tmp_path):
    folder = shared_data / "totalseg_v1_dataset" / "s0001"
    case = RawCase("s0001", folder, Split.TEST)

    outcome = prepare_case(case, tmp_path, Rules(copy_images=True))

    assert outcome.prepared
    assert outcome.remarks == ()
    image = nib.load(tmp_path / "labelsTs" / "s0001.nii.gz")
    labels = np.asarray(image.dataobj)
    assert image.get_data_dtype() == np.uint8
    assert len(np.unique(labels)) == 59
    for structure in STRUCTURES:
        mask = nib.load(folder / "segmentations" / f"{structure.name}.nii.gz")
        np.testing.assert_array_equal(labels == structure.id, np.asarray(mask.dataobj) == 1)
    np.testing.assert_array_equal(image.affine, nib.load(folder / "ct.nii.gz").affine)


def test_the_scan_is_linked_or_copied_byte_for_byte(raw_case, tmp_path, prepare):
    target = tmp_path / "out" / "imagesTr" / "s0001.nii.gz"

    assert prepare(raw_case).image is ImageKept.HARD_LINK
    assert target.samefile(raw_case / "ct.nii.gz")
    assert prepare(raw_case, copy_images=True).image is ImageKept.COPY
    assert not target.samefile(raw_case / "ct.nii.gz")
    assert target.read_bytes() == (raw_case / "ct.nii.gz").read_bytes()
    assert prepare(raw_case).image is ImageKept.HARD_LINK
    assert sorted(os.listdir(target.parent)) == ["s0001.nii.gz"]


def test_a_scan_on_another_disk_is_copied(raw_case, tmp_path, prepare):
    here = tmp_path.stat().st_dev
    disks = (Path(name) for name in ("/dev/shm", "/tmp", "/var/tmp"))
    elsewhere = next(disk for disk in disks if disk.is_dir() and disk.stat().st_dev != here)
    link = raw_case / "ct.nii.gz"
    whole = link.read_bytes()
    target = elsewhere / f"ct-{os.getpid()}.nii.gz"
    target.write_bytes(whole)
    try:
        link.unlink()
        link.symlink_to(target)
        assert prepare(raw_case).image is ImageKept.COPY
    finally:
        target.unlink()
    assert (tmp_path / "out" / "imagesTr" / "s0001.nii.gz").read_bytes() == whole


def test_what_a_scanner_wrote_into_the_header_stays_out_of_the_labels(raw_case, tmp_path, prepare):
    image = nib.load(raw_case / "ct.nii.gz")
    image.header["descrip"] = b"DOE^JANE"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), raw_case / "ct.nii.gz")

    assert prepare(raw_case).prepared
    raw = gzip.decompress((tmp_path / "out" / "labelsTr" / "s0001.nii.gz").read_bytes())
    assert b"DOE" not in raw


# Each fault: how to make it, the file it is about, its code, and whether it refuses the case.
def _missing(case: Path, write) -> None:
    (case / "segmentations" / "pancreas.nii.gz").unlink()


def _extra(case: Path, write) -> None:
    write(case / "segmentations" / "tumour.nii.gz", np.ones(SHAPE, np.uint8))


def _misnamed(case: Path, write) -> None:
    (case / "segmentations" / "kidney_left.nii.gz").rename(
        case / "segmentations" / "Kidney-Left.nii.gz"
    )


def _unpacked(case: Path, write) -> None:
    packed = case / "segmentations" / "liver.nii.gz"
    (case / "segmentations" / "liver.nii").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()


def _other_shape(case: Path, write) -> None:
    write(case / "segmentations" / "liver.nii.gz", np.zeros((9, 7, 10), np.uint8))


def _moved(case: Path, write) -> None:
    moved = AFFINE.copy()
    moved[2, 3] += 0.75
    write(case / "segmentations" / "liver.nii.gz", np.zeros(SHAPE, np.uint8), moved)


def _mirrored(case: Path, write) -> None:
    write(
        case / "segmentations" / "liver.nii.gz",
        np.zeros(SHAPE, np.uint8),
        AFFINE @ np.diag([-1.0, 1, 1, 1]),
    )


def _no_orientation(case: Path, write) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE)
    image.set_sform(AFFINE, 0)
    image.set_qform(AFFINE, 0)
    nib.save(image, case / "segmentations" / "liver.nii.gz")


def _overlapping(case: Path, write) -> None:
    write(case / "segmentations" / "liver.nii.gz", np.ones(SHAPE, np.uint8))


def _float64(case: Path, write) -> None:
    path = case / "segmentations" / "liver.nii.gz"
    write(path, np.asarray(nib.load(path).dataobj).astype(np.float64))


def _probabilities(case: Path, write) -> None:
    write(case / "segmentations" / "liver.nii.gz", np.full(SHAPE, 0.4, np.float32))


def _labels_255(case: Path, write) -> None:
    write(case / "segmentations" / "liver.nii.gz", np.full(SHAPE, 255, np.uint8))


def _empty_mask_file(case: Path, write) -> None:
    (case / "segmentations" / "liver.nii.gz").write_bytes(b"")


def _cut_mask(case: Path, write) -> None:
    path = case / "segmentations" / "liver.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def _no_nifti(case: Path, write) -> None:
    (case / "segmentations" / "liver.nii.gz").write_bytes(gzip.compress(b"<html>" * 300))


def _cut_scan(case: Path, write) -> None:
    path = case / "ct.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def _no_scan(case: Path, write) -> None:
    (case / "ct.nii.gz").unlink()


def _empty_scan(case: Path, write) -> None:
    (case / "ct.nii.gz").write_bytes(b"")


def _no_hu(case: Path, write) -> None:
    write(case / "ct.nii.gz", np.full(SHAPE, 70000, np.int32))


def _not_finite(case: Path, write) -> None:
    write(case / "ct.nii.gz", np.full(SHAPE, np.nan, np.float32))


def _all_empty(case: Path, write) -> None:
    for path in (case / "segmentations").iterdir():
        write(path, np.zeros(SHAPE, np.uint8))


def _no_masks(case: Path, write) -> None:
    for path in (case / "segmentations").iterdir():
        path.unlink()


def _v2_name(case: Path, write) -> None:
    write(case / "segmentations" / "vertebrae_S1.nii.gz", np.zeros(SHAPE, np.uint8))


FAULTS = [
    (_missing, "pancreas.nii.gz", Reason.MISSING_MASK, True),
    (_extra, "tumour.nii.gz", Reason.EXTRA_MASK, False),
    (_misnamed, "Kidney-Left.nii.gz", Reason.MISNAMED_MASK, True),
    (_unpacked, "liver.nii", Reason.MISNAMED_MASK, True),
    (_other_shape, "liver.nii.gz", Reason.OTHER_GRID, True),
    (_moved, "liver.nii.gz", Reason.OTHER_GRID, True),
    (_mirrored, "liver.nii.gz", Reason.OTHER_GRID, True),
    (_no_orientation, "liver.nii.gz", Reason.NO_ORIENTATION, True),
    (_float64, "liver.nii.gz", Reason.FLOAT_MASK, False),
    (_probabilities, "liver.nii.gz", Reason.MASK_NOT_BINARY, True),
    (_labels_255, "liver.nii.gz", Reason.MASK_NOT_BINARY, True),
    (_empty_mask_file, "liver.nii.gz", Reason.EMPTY_FILE, True),
    (_cut_mask, "liver.nii.gz", Reason.UNREADABLE_FILE, True),
    (_no_nifti, "liver.nii.gz", Reason.UNREADABLE_FILE, True),
    (_cut_scan, "ct.nii.gz", Reason.UNREADABLE_FILE, True),
    (_no_scan, "ct.nii.gz", Reason.MISSING_IMAGE, True),
    (_empty_scan, "ct.nii.gz", Reason.EMPTY_FILE, True),
    (_no_hu, "ct.nii.gz", Reason.CORRUPT_PIXEL_DATA, True),
    (_not_finite, "ct.nii.gz", Reason.CORRUPT_PIXEL_DATA, True),
    (_all_empty, "segmentations", Reason.NO_STRUCTURE, True),
    (_no_masks, "segmentations", Reason.MISSING_MASK, True),
    (_v2_name, "segmentations", Reason.V2_NAMES, True),
]


@pytest.mark.parametrize(
    ("fault", "file", "code", "refuses"), FAULTS, ids=[fault[0].__name__[1:] for fault in FAULTS]
)
def test_each_fault_has_its_code_and_names_its_file(
    raw_case, tmp_path, write_nifti, prepare, fault, file, code, refuses
):
    fault(raw_case, write_nifti)

    outcome = prepare(raw_case)

    assert _codes(outcome) == [(code, file)]
    assert outcome.prepared != refuses
    assert outcome.remarks[0].refuses == refuses
    assert (tmp_path / "out" / "labelsTr" / "s0001.nii.gz").exists() != refuses
    assert (tmp_path / "out" / "imagesTr" / "s0001.nii.gz").exists() != refuses
    assert str(tmp_path) not in outcome.remarks[0].detail


def test_overlaps_go_to_the_last_of_the_list_and_are_counted(
    raw_case, tmp_path, write_nifti, prepare
):
    _overlapping(raw_case, write_nifti)
    truth = np.load(raw_case / ".truth.npy")
    earlier = {name: int((truth == i).sum()) for i, name in ((1, "spleen"), (2, "kidney_right"))}
    later = int((truth > 5).sum())

    outcome = prepare(raw_case)

    assert outcome.prepared
    told = {Path(remark.file).name: remark.detail for remark in outcome.remarks}
    assert {remark.reason for remark in outcome.remarks} == {Reason.OVERLAPPING_MASKS}
    assert told.pop("liver.nii.gz") == (
        f"{sum(earlier.values())} voxels taken from others: "
        f"spleen {earlier['spleen']}, kidney_right {earlier['kidney_right']}"
    )
    assert sum(int(detail.split()[0]) for detail in told.values()) == later
    np.testing.assert_array_equal(_labels(tmp_path), np.where(truth > 5, truth, 5))


def test_all_faults_of_a_case_are_told_at_once(raw_case, write_nifti, prepare):
    _missing(raw_case, write_nifti)
    _empty_mask_file(raw_case, write_nifti)
    _extra(raw_case, write_nifti)

    codes = {reason for reason, _ in _codes(prepare(raw_case))}

    assert codes == {Reason.MISSING_MASK, Reason.EMPTY_FILE, Reason.EXTRA_MASK}


def _make_v2(case: Path, write, heart: bool = False) -> None:
    masks = case / "segmentations"
    for name in (
        *("heart_myocardium", "heart_atrium_left", "heart_ventricle_left"),
        *("heart_atrium_right", "heart_ventricle_right", "pulmonary_artery", "face"),
    ):
        (masks / f"{name}.nii.gz").unlink()
    empty = np.zeros(SHAPE, np.uint8)
    for name in ("heart", "pulmonary_vein", "skull", "prostate"):
        write(masks / f"{name}.nii.gz", empty)
    s1 = empty.copy()
    s1[0, 0, :3] = 1
    write(masks / "vertebrae_S1.nii.gz", s1)
    if heart:
        write(masks / "heart.nii.gz", s1)


def test_a_v2_case_is_refused_and_offered_a_remap(raw_case, write_nifti, prepare):
    _make_v2(raw_case, write_nifti)

    (remark,) = prepare(raw_case).remarks

    assert remark.reason is Reason.V2_NAMES
    assert "--remap-v2" in remark.detail
    assert "vertebrae_S1" in remark.detail


def test_a_remapped_v2_case_gets_s1_into_the_sacrum(raw_case, tmp_path, write_nifti, prepare):
    _make_v2(raw_case, write_nifti)
    truth = np.load(raw_case / ".truth.npy")
    truth[truth == 44] = 0  # the heart is not in this scan
    truth[0, 0, :3] = np.maximum(truth[0, 0, :3], 92)

    outcome = prepare(raw_case, remap_v2=True)

    assert outcome.prepared
    assert Reason.V2_REMAPPED in {remark.reason for remark in outcome.remarks}
    np.testing.assert_array_equal(_labels(tmp_path), truth)


@pytest.mark.parametrize("remap_v2", [False, True])
def test_a_v2_case_without_s1_is_refused(raw_case, write_nifti, prepare, remap_v2):
    _make_v2(raw_case, write_nifti)
    (raw_case / "segmentations" / "vertebrae_S1.nii.gz").unlink()

    outcome = prepare(raw_case, remap_v2=remap_v2)

    assert not outcome.prepared
    refused = {(r.reason, Path(r.file).name) for r in outcome.remarks if r.refuses}
    lacking = (Reason.MISSING_MASK, "vertebrae_S1.nii.gz")
    assert refused == {lacking if remap_v2 else (Reason.V2_NAMES, "segmentations")}


def test_a_v2_case_with_a_heart_lacks_its_chambers_and_is_refused(raw_case, write_nifti, prepare):
    _make_v2(raw_case, write_nifti, heart=True)

    outcome = prepare(raw_case, remap_v2=True)

    assert not outcome.prepared
    refused = {Path(remark.file).name for remark in outcome.remarks if remark.refuses}
    assert len(refused) == 6
    assert "heart_atrium_left.nii.gz" in refused
    assert "pulmonary_artery.nii.gz" in refused
