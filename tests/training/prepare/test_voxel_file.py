"""Reading many files: as the plain reader reads them, whatever they are like."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from inference.nifti import NiftiError, read_nifti
from inference.reasons import Reason
from training.prepare.voxel_file import VoxelReader

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def _save(path, array, kind=nib.Nifti1Image):
    image = kind(array, AFFINE)
    image.set_sform(AFFINE, 1)
    nib.save(image, path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_voxels_and_place_are_those_of_the_clinics_reader(tmp_path, rng, kind, dtype, suffix):
    path = tmp_path / f"a{suffix}"
    _save(path, rng.integers(0, 100, (5, 6, 7)).astype(dtype), kind)

    file = VoxelReader().read(path)

    volume = read_nifti(path)
    np.testing.assert_array_equal(file.voxels.reshape(7, 6, 5), volume.hu)
    assert file.geometry.matches(volume.geometry)
    assert file.is_stored


def test_a_big_endian_file_is_read_as_what_it_says(tmp_path, rng):
    array = rng.integers(-900, 900, (5, 6, 7)).astype(">i2")
    image = nib.Nifti1Image(array, AFFINE, header=nib.Nifti1Header(endianness=">"))
    image.set_data_dtype(">i2")
    image.set_sform(AFFINE, 1)
    nib.save(image, tmp_path / "a.nii.gz")

    voxels = VoxelReader().read(tmp_path / "a.nii.gz").voxels

    np.testing.assert_array_equal(voxels, array.ravel(order="F"))


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_headers_of_nifti_2_are_told_apart_by_all_their_bytes(tmp_path, endianness):
    reader = VoxelReader()
    for name, moved_mm in (("a", 0), ("b", 40)):
        affine = AFFINE + np.pad([[moved_mm]], ((0, 3), (3, 0)))
        header = nib.Nifti2Header(endianness=endianness)
        image = nib.Nifti2Image(np.ones((3, 4, 5), np.uint8), affine, header=header)
        image.set_sform(affine, 1)
        nib.save(image, tmp_path / f"{name}.nii.gz")

        found = reader.read(tmp_path / f"{name}.nii.gz").geometry

        assert found.matches(read_nifti(tmp_path / f"{name}.nii.gz").geometry)


def test_scaled_values_are_scaled(tmp_path):
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), AFFINE)
    image.set_sform(AFFINE, 1)
    image.header.set_slope_inter(0.5, 0)
    nib.save(image, tmp_path / "a.nii.gz")

    file = VoxelReader().read(tmp_path / "a.nii.gz")

    np.testing.assert_allclose(file.voxels, 0.5)
    assert not file.is_stored


def test_a_file_of_several_gzip_members_is_whole(tmp_path, rng):
    array = rng.integers(0, 2, (20, 20, 20)).astype(np.uint8)
    _save(tmp_path / "a.nii", array)
    data = (tmp_path / "a.nii").read_bytes()
    half = len(data) // 2
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))

    voxels = VoxelReader().read(tmp_path / "a.nii.gz").voxels

    np.testing.assert_array_equal(voxels, array.ravel(order="F"))


def test_one_reader_reads_files_of_any_size_one_after_the_other(tmp_path, rng):
    reader = VoxelReader()
    for number, shape in enumerate([(5, 6, 7), (15, 16, 17), (3, 2, 9), (5, 6, 7)]):
        array = rng.integers(0, 255, shape).astype(np.uint8)
        _save(tmp_path / f"{number}.nii.gz", array)
        found = reader.read(tmp_path / f"{number}.nii.gz")
        np.testing.assert_array_equal(found.voxels, array.ravel(order="F"))
        assert found.geometry.shape == shape[::-1]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip_a_bit(data: bytes) -> bytes:
    return data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]  # of the checksum


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", Reason.EMPTY_FILE),
        (_cut, Reason.UNREADABLE_FILE),
        (_flip_a_bit, Reason.UNREADABLE_FILE),
        (lambda data: b"\x1f\x8b", Reason.UNREADABLE_FILE),
        (lambda data: b"PK\x03\x04 a spreadsheet", Reason.UNREADABLE_FILE),
        (lambda data: gzip.compress(b"short"), Reason.UNREADABLE_FILE),
        (lambda data: gzip.compress(bytes(1000)), Reason.UNREADABLE_FILE),
        (lambda data: gzip.compress(gzip.decompress(data)[:-1]), Reason.UNREADABLE_FILE),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(tmp_path, rng, damage, reason):
    path = tmp_path / "liver.nii.gz"
    _save(path, rng.integers(0, 2, (20, 20, 20)).astype(np.uint8))
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(NiftiError, match="liver") as caught:
        VoxelReader().read(path)

    assert caught.value.reason is reason


def test_a_header_that_promises_much_takes_no_memory(tmp_path):
    _save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.uint8))
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[40:48] = np.array([3, 30000, 30000, 30000], np.int16).tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(data)))

    with pytest.raises(NiftiError) as caught:
        VoxelReader().read(tmp_path / "a.nii.gz")

    assert caught.value.reason in (Reason.TOO_LARGE, Reason.UNREADABLE_FILE)
