"""NIfTI files in and out: place in mm, values, and a code for every odd file."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from inference.errors import InvalidGeometryError
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.nifti import (
    NiftiError,
    open_nifti,
    orientation_findings,
    read_label_nifti,
    read_nifti,
    write_label_nifti,
)
from inference.reasons import Reason

AFFINE = np.array([[-0.8, 0, 0, 31], [0, 0.7, 0, -12], [0, 0, 2.5, 250], [0, 0, 0, 1.0]])


def save(
    path: Path,
    data: npt.NDArray[np.generic],
    affine: npt.NDArray[np.float64] = AFFINE,
    units: str = "mm",
) -> Path:
    """``data`` is (x, y, z); as many other programs write it."""
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    image.header.set_xyzt_units(units)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


def refused(path: Path) -> tuple[Reason, str]:
    with pytest.raises(NiftiError) as error:
        read_nifti(path)
    assert path.name in error.value.detail
    return error.value.reason, error.value.detail


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64", ">i2"])
def test_values_keep_their_place_in_mm(tmp_path: Path, suffix: str, dtype: str) -> None:
    data = np.full((6, 5, 4), -1000, dtype=dtype)
    data[4, 1, 2] = 700

    volume = read_nifti(save(tmp_path / f"ct{suffix}", data))

    assert volume.hu.shape == (4, 5, 6)
    (index,) = np.argwhere(volume.hu == 700)
    ras = AFFINE @ [4, 1, 2, 1]
    np.testing.assert_allclose(volume.geometry.lps_mm(index), ras[:3] * [-1, -1, 1], atol=1e-5)
    assert (volume.hu == -1000).sum() == volume.hu.size - 1


def test_stored_values_are_rescaled_and_rounded(tmp_path: Path) -> None:
    stored = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    image = nib.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(1.25, -1024)
    path = tmp_path / "ct.nii"
    nib.save(image, path)
    expected = np.rint(np.asarray(nib.load(path).dataobj))

    np.testing.assert_array_equal(read_nifti(path).hu, expected.T)


@pytest.mark.parametrize("suffix", [".nii.gz", ".NII.GZ"])
def test_a_compressed_file_may_be_far_smaller_than_its_voxels(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / "air.nii.gz", np.full((40, 40, 40), -1000, dtype=np.int16))
    path = path.rename(tmp_path / f"case{suffix}")

    assert (read_nifti(path).hu == -1000).all()


def test_metres_become_millimetres(tmp_path: Path) -> None:
    affine = np.diag([0.001, 0.001, 0.002, 1.0])
    data = np.zeros((6, 5, 4), dtype=np.int16)

    geometry = read_nifti(save(tmp_path / "ct.nii", data, affine, units="meter")).geometry

    np.testing.assert_allclose(geometry.spacing_mm, (2.0, 1.0, 1.0), rtol=1e-6)


def test_a_trailing_axis_of_one_is_no_fourth_dimension(tmp_path: Path) -> None:
    volume = read_nifti(save(tmp_path / "ct.nii", np.zeros((6, 5, 4, 1), dtype=np.int16)))

    assert volume.hu.shape == (4, 5, 6)


def test_the_qform_serves_where_the_sform_has_no_code(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((6, 5, 4), dtype=np.int16), AFFINE)
    image.set_sform(None, 0)
    image.set_qform(AFFINE, 1)
    nib.save(image, tmp_path / "ct.nii")

    geometry = read_nifti(tmp_path / "ct.nii").geometry

    np.testing.assert_allclose(geometry.lps_mm([0, 0, 0]), [-31, 12, 250], atol=1e-4)


def with_forms(path: Path, sform: npt.NDArray[np.float64], qform: npt.NDArray[np.float64]) -> Path:
    """A file whose two forms both have a code."""
    image = nib.Nifti1Image(np.zeros((60, 50, 40), dtype=np.int16), None)
    image.set_sform(sform, 2)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return path


def test_forms_that_mirror_one_another_are_refused(tmp_path: Path) -> None:
    mirrored = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])

    reason, detail = refused(with_forms(tmp_path / "ct.nii", AFFINE, mirrored))

    assert reason is Reason.ORIENTATION_CONFLICT
    assert "qform mirrors the sform" in detail


@pytest.mark.parametrize(
    ("shift_mm", "scale", "findings"),
    [(0.0, 1.0, []), (0.6, 1.0, []), (1.6, 1.0, ["2.0"]), (0.0, 1.1, ["8.6"])],
)
def test_forms_more_than_a_voxel_apart_are_remarked_on_and_the_sform_is_used(
    tmp_path: Path, shift_mm: float, scale: float, findings: list[str]
) -> None:
    other = AFFINE @ np.diag([scale, scale, scale, 1.0])
    other[0, 3] += shift_mm
    path = with_forms(tmp_path / "ct.nii", AFFINE, other)

    found = orientation_findings(open_nifti(path, 10**6))

    assert [each.reason for each in found] == [Reason.ORIENTATION_CONFLICT] * len(findings)
    assert all(
        f"{voxels} voxels" in each.detail for each, voxels in zip(found, findings, strict=True)
    )
    np.testing.assert_allclose(
        read_nifti(path).geometry.lps_mm([0, 0, 0]), [-31, 12, 250], atol=1e-4
    )


def test_no_orientation_is_refused_and_none_is_made_up(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((6, 5, 4), dtype=np.int16), None)
    image.set_sform(AFFINE, 0)
    image.set_qform(AFFINE, 0)
    nib.save(image, tmp_path / "ct.nii.gz")

    assert refused(tmp_path / "ct.nii.gz")[0] is Reason.NO_ORIENTATION


def test_an_orientation_that_is_no_grid_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((6, 5, 4), dtype=np.int16), AFFINE)
    flat = AFFINE.copy()
    flat[:3, 2] = flat[:3, 0]
    image.set_qform(None, 0)
    image.set_sform(flat, 1)
    nib.save(image, tmp_path / "ct.nii")

    assert refused(tmp_path / "ct.nii")[0] is Reason.MISSING_GEOMETRY


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((6, 5, 4, 3), dtype=np.int16),
        np.zeros((6, 5), dtype=np.int16),
        np.zeros((6, 5, 4), dtype=RGB),
        np.zeros((6, 5, 4), dtype=np.complex64),
    ],
)
def test_what_is_not_three_dimensional_numbers_is_refused(
    tmp_path: Path, data: npt.NDArray[np.generic]
) -> None:
    assert refused(save(tmp_path / "ct.nii", data))[0] is Reason.UNREADABLE_FILE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 40000.0, -32768.0])
def test_values_that_are_no_hu_are_refused_with_their_plane(tmp_path: Path, value: float) -> None:
    data = np.zeros((6, 5, 4), dtype=np.float32)
    data[1, 2, 3] = value

    reason, detail = refused(save(tmp_path / "ct.nii.gz", data))

    assert reason is Reason.CORRUPT_PIXEL_DATA
    assert "plane 3" in detail


def test_a_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(-1000, 1000, (30, 30, 30)).astype(np.int16)
    whole = save(tmp_path / "whole.nii.gz", data).read_bytes()
    for name, content in (
        ("cut.nii.gz", whole[: len(whole) // 2]),
        ("checksum.nii.gz", whole[:-8] + b"\0" * 8),
        ("cut.nii", gzip.decompress(whole)[:5000]),
    ):
        (tmp_path / name).write_bytes(content)

        assert refused(tmp_path / name)[0] is Reason.UNREADABLE_FILE


@pytest.mark.parametrize("content", [b"", b"\0" * 348, b"\x5c\x01\0\0" + b"\xff" * 600, b"text"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mhd", ""])
def test_bytes_that_are_no_nifti_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"ct{suffix}"
    path.write_bytes(content)

    assert refused(path)[0] is Reason.UNREADABLE_FILE


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere.nii.gz")[0] is Reason.UNREADABLE_FILE


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nii", np.zeros((6, 5, 4), dtype=np.int16))
    header = bytearray(path.read_bytes())
    header[42:48] = np.array([30000, 30000, 30000], dtype="<i2").tobytes()
    path.write_bytes(header)

    assert refused(path)[0] is Reason.TOO_LARGE
    with pytest.raises(NiftiError) as error:
        read_nifti(path, max_voxels=10**14)
    assert error.value.reason is Reason.UNREADABLE_FILE


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shear", [0.0, 0.6])
def test_labels_survive_their_file_in_place(
    tmp_path: Path, rng: np.random.Generator, suffix: str, shear: float
) -> None:
    # shear: gantry tilt, planes shifted along the columns
    affine = np.array([[0, 0, 0.7, -20], [shear, 0.7, 0, 5], [2.5, 0, 0, 90], [0, 0, 0, 1.0]])
    geometry = Geometry.from_affine(affine, (7, 6, 5))
    labels = rng.integers(0, 105, (7, 6, 5)).astype(np.uint8)

    write_label_nifti(LabelMap(labels, geometry), tmp_path / f"labels{suffix}")
    back = read_label_nifti(tmp_path / f"labels{suffix}")

    np.testing.assert_array_equal(back.labels, labels)
    assert back.geometry.matches(geometry, tolerance_mm=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == [f"labels{suffix}"]
    stored = nib.load(tmp_path / f"labels{suffix}")
    assert stored.get_data_dtype() == np.uint8
    assert int(stored.header["sform_code"]) == 1
    assert int(stored.header["qform_code"]) == (0 if shear else 1)


def test_the_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    labels = LabelMap(
        np.zeros((4, 5, 6), dtype=np.uint8), Geometry.from_affine(np.eye(4), (4, 5, 6))
    )
    for name in ("a.nii.gz", "b.nii.gz"):
        write_label_nifti(labels, tmp_path / name)

    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_uneven_planes_are_not_written_as_if_they_were_even(tmp_path: Path) -> None:
    origins = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 4.0]])
    geometry = Geometry((3, 2, 2), origins, np.array([0, 1.0, 0]), np.array([1.0, 0, 0]))

    with pytest.raises(InvalidGeometryError):
        write_label_nifti(
            LabelMap(np.zeros((3, 2, 2), dtype=np.uint8), geometry), tmp_path / "labels.nii"
        )

    assert list(tmp_path.iterdir()) == []


def test_whole_ids_in_floating_point_are_labels(tmp_path: Path) -> None:
    data = np.arange(105, dtype=np.float64).reshape(5, 7, 3)

    labels = read_label_nifti(save(tmp_path / "labels.nii.gz", data)).labels

    np.testing.assert_array_equal(labels, data.T)


@pytest.mark.parametrize("value", [105.0, -1.0, 3.5, np.nan])
def test_what_is_no_id_is_refused_with_its_value(tmp_path: Path, value: float) -> None:
    data = np.zeros((5, 7, 3))
    data[1, 2, 1] = value

    with pytest.raises(NiftiError) as error:
        read_label_nifti(save(tmp_path / "labels.nii.gz", data))

    assert error.value.reason is Reason.CORRUPT_PIXEL_DATA
    assert f"plane 1 holds {value:g}" in error.value.detail


@pytest.mark.shared
def test_real_files_are_read_as_other_readers_read_them(shared_data: Path) -> None:
    for name in ("totalseg_v1_dataset/s0001/ct.nii.gz", "totalseg_thorax/ct_cropped.nii.gz"):
        image = nib.load(shared_data / name)

        volume = read_nifti(shared_data / name)

        np.testing.assert_array_equal(volume.hu.T, np.asarray(image.dataobj))
        for index in ((0, 0, 0), (3, 50, 17)):
            ras = (image.affine @ [*index[::-1], 1])[:3]
            np.testing.assert_allclose(volume.geometry.lps_mm(index), ras * [-1, -1, 1])


@pytest.mark.shared
def test_real_labels_in_floating_point_are_read_and_other_numberings_refused(
    shared_data: Path,
) -> None:
    folder = shared_data / "totalseg_v1_dataset"

    assert len(read_label_nifti(folder / "s0001_labels_v1_full.nii.gz").present()) == 59
    with pytest.raises(NiftiError):
        read_label_nifti(folder / "s0001_labels_v2_fast.nii.gz")
