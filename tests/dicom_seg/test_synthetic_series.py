"""Synthetic CT series, read back with readers that are not ours."""

from __future__ import annotations

import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dicom_seg.synthetic.acquisition import (
    PatientPosition,
    Plane,
    reversed_stack,
    stack,
    tilted,
    turned,
    unevenly_spaced,
)
from dicom_seg.synthetic.options import (
    FileNames,
    NumberOrder,
    ObjectKind,
    PixelFormat,
    SeriesOptions,
)
from dicom_seg.synthetic.pixel_encoding import PixelSyntax
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import PADDING_HU, Volume

SHAPE = (5, 18, 22)
SPACING_MM = (3.0, 0.9, 0.7)
CENTRE_MM = (12.0, -34.0, 560.0)
DCIODVFY = Path(sysconfig.get_path("scripts")) / "dciodvfy"

U12 = PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),))
S12 = PixelFormat(bits_stored=12)
U16 = PixelFormat(signed=False, rescale=((1.0, -1024.0),))
S16 = PixelFormat()
U8 = PixelFormat(bits_stored=8, signed=False, rescale=((16.0, -1024.0),))
LOSSLESS = [syntax for syntax in PixelSyntax if syntax.lossy_method is None]
#: Format and largest error in HU of each lossy syntax; half a step of 16 HU for 8 bits.
LOSSY = {
    PixelSyntax.JPEG_BASELINE: (U8, 8 + 16 * 6),
    PixelSyntax.JPEG_EXTENDED: (U12, 12),
    PixelSyntax.JPEG_LS_NEAR: (U12, 2),
    PixelSyntax.JPEG_2000: (U12, 6),
    PixelSyntax.HTJ2K: (U12, 2),
}


def smooth_volume(geometry):
    """A ramp in each direction, other in every voxel's neighbourhood; -1000..1600 HU."""
    z, y, x = np.indices(geometry.shape)
    return Volume((-1000 + 300 * z + 40 * y + 17 * x).astype(np.int16), geometry)


@pytest.fixture
def volume():
    return smooth_volume(stack(SHAPE, SPACING_MM, CENTRE_MM))


def gdcm_stored(path):
    """(frames, y, x) stored values by GDCM."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    dtype = {
        gdcm.PixelFormat.UINT8: np.uint8,
        gdcm.PixelFormat.UINT12: np.uint16,
        gdcm.PixelFormat.UINT16: np.uint16,
        gdcm.PixelFormat.INT12: np.int16,
        gdcm.PixelFormat.INT16: np.int16,
    }[image.GetPixelFormat().GetScalarType()]
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    columns, rows = image.GetDimension(0), image.GetDimension(1)
    return np.frombuffer(data, dtype).reshape(-1, rows, columns)


def dciodvfy_errors(path):
    told = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False)
    return [line for line in told.stderr.splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("pixels", [U12, S12, U16, S16], ids=["u12", "s12", "u16", "s16"])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: s.name)
def test_lossless_pixels_come_back_exactly_from_pydicom_and_gdcm(tmp_path, volume, syntax, pixels):
    paths = write_ct_series(
        volume, tmp_path, SeriesOptions(transfer_syntax_uid=syntax, pixels=pixels)
    )

    intercept = pixels.rescale[0][1]
    for path, hu in zip(paths, volume.hu, strict=True):
        ds = pydicom.dcmread(path)
        assert ds.file_meta.TransferSyntaxUID == syntax
        np.testing.assert_array_equal(ds.pixel_array + intercept, hu)
        np.testing.assert_array_equal(gdcm_stored(path)[0] + intercept, hu)


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda s: s.name)
def test_lossy_pixels_come_back_near_and_say_that_they_are_lossy(tmp_path, volume, syntax):
    pixels, tolerance_hu = LOSSY[syntax]

    paths = write_ct_series(
        volume, tmp_path, SeriesOptions(transfer_syntax_uid=syntax, pixels=pixels)
    )

    slope, intercept = pixels.rescale[0]
    for path, hu in zip(paths, volume.hu, strict=True):
        error = np.abs(gdcm_stored(path)[0] * slope + intercept - hu)
        assert error.max() <= tolerance_hu
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == (
            "01",
            syntax.lossy_method,
        )


def test_a_format_that_a_syntax_cannot_hold_is_refused(tmp_path, volume):
    with pytest.raises(ValueError, match="JPEG_BASELINE holds 8 unsigned bits"):
        write_ct_series(
            volume, tmp_path, SeriesOptions(transfer_syntax_uid=PixelSyntax.JPEG_BASELINE)
        )


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
@pytest.mark.parametrize(
    "syntax",
    [PixelSyntax.EXPLICIT_LITTLE, PixelSyntax.IMPLICIT_LITTLE, PixelSyntax.JPEG_2000_LOSSLESS],
    ids=lambda s: s.name,
)
def test_dciodvfy_finds_no_error(tmp_path, volume, kind, syntax):
    leaning = smooth_volume(tilted(volume.geometry, 14.0))
    options = SeriesOptions(
        kind=kind,
        transfer_syntax_uid=syntax,
        pixels=replace(U12, padding=(0, 3)),
        numbers=NumberOrder.RANDOM,
        patient_position="FFP",
    )

    paths = write_ct_series(leaning, tmp_path, options)

    assert [dciodvfy_errors(path) for path in paths] == [[]] * len(paths)


@pytest.mark.parametrize("syntax", [s for s in LOSSY if s is not PixelSyntax.JPEG_BASELINE])
def test_dciodvfy_finds_no_error_in_lossy_images(tmp_path, volume, syntax):
    options = SeriesOptions(transfer_syntax_uid=syntax, pixels=U12)

    assert dciodvfy_errors(write_ct_series(volume, tmp_path, options)[0]) == []


def test_dciodvfy_would_find_a_missing_attribute(tmp_path, volume):
    path = write_ct_series(volume, tmp_path, SeriesOptions(overrides={"KVP": None}))[0]

    assert any("KVP" in error for error in dciodvfy_errors(path))


PLACES = {
    **{p.value: stack(SHAPE, SPACING_MM, CENTRE_MM, p) for p in PatientPosition},
    "coronal": stack(SHAPE, SPACING_MM, CENTRE_MM, plane=Plane.CORONAL),
    "sagittal": stack(SHAPE, SPACING_MM, CENTRE_MM, plane=Plane.SAGITTAL),
    "oblique": turned(stack(SHAPE, SPACING_MM, CENTRE_MM), (1, 2, 3), 25.0),
    "descending": reversed_stack(stack(SHAPE, SPACING_MM, CENTRE_MM)),
}


@pytest.mark.parametrize("geometry", PLACES.values(), ids=PLACES.keys())
def test_itk_finds_every_voxel_at_its_place_in_mm(tmp_path, geometry):
    volume = smooth_volume(geometry)
    write_ct_series(volume, tmp_path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = sitk.ReadImage(names)

    index = np.argwhere(np.ones(SHAPE, dtype=bool))[::97]
    for (z, y, x), lps_mm in zip(index, geometry.lps_mm(index), strict=True):
        there = image.TransformPhysicalPointToIndex(lps_mm.tolist())
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(there), lps_mm, atol=1e-6)
        assert image[there] == volume.hu[z, y, x]


@pytest.mark.parametrize(
    "geometry",
    [
        tilted(stack(SHAPE, SPACING_MM, CENTRE_MM), 16.5),
        unevenly_spaced(stack(SHAPE, SPACING_MM, CENTRE_MM), [1.0, 4.0, 2.0, 7.0]),
    ],
    ids=["tilted", "uneven"],
)
@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_planes_that_no_affine_describes_are_where_they_are(tmp_path, geometry, kind):
    volume = smooth_volume(geometry)
    paths = write_ct_series(volume, tmp_path, SeriesOptions(kind=kind))

    seen = [plane for path in paths for plane in plane_attributes(path)]
    assert len(seen) == SHAPE[0]
    for z, (position, orientation, spacing, hu) in enumerate(seen):
        np.testing.assert_allclose(position, geometry.origins_mm[z], atol=1e-6)
        np.testing.assert_allclose(orientation[:3] * spacing[1], geometry.column_step_mm)
        np.testing.assert_allclose(orientation[3:] * spacing[0], geometry.row_step_mm)
        np.testing.assert_array_equal(hu, volume.hu[z])


def plane_attributes(path):
    """Position, orientation, spacing and HU of every plane of a file, by pydicom."""
    ds = pydicom.dcmread(path)
    stored = ds.pixel_array
    if "PerFrameFunctionalGroupsSequence" not in ds:
        hu = stored * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        yield (
            np.array(ds.ImagePositionPatient, float),
            np.array(ds.ImageOrientationPatient, float),
            np.array(ds.PixelSpacing, float),
            hu,
        )
        return
    shared = ds.SharedFunctionalGroupsSequence[0]
    for frame, groups in enumerate(ds.PerFrameFunctionalGroupsSequence):
        rescale = groups if "PixelValueTransformationSequence" in groups else shared
        values = rescale.PixelValueTransformationSequence[0]
        yield (
            np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float),
            np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float),
            np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float),
            stored.reshape(-1, ds.Rows, ds.Columns)[frame] * float(values.RescaleSlope)
            + float(values.RescaleIntercept),
        )


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_each_plane_can_have_a_rescale_of_its_own(tmp_path, volume, kind):
    rescale = tuple((1.0 + 0.5 * z, -1024.0 - z) for z in range(SHAPE[0]))
    options = SeriesOptions(kind=kind, pixels=PixelFormat(rescale=rescale))

    paths = write_ct_series(volume, tmp_path, options)

    for z, (*_, hu) in enumerate(plane for path in paths for plane in plane_attributes(path)):
        assert np.abs(hu - volume.hu[z]).max() <= rescale[z][0] / 2


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_unmeasured_voxels_become_padding_and_measured_ones_do_not(tmp_path, volume, kind):
    hu = np.maximum(volume.hu, -1024)
    hu[:, :4] = PADDING_HU
    hu[:, 4] = -1024  # would be stored as 0, which is padding
    options = SeriesOptions(kind=kind, pixels=replace(U12, padding=(0, 7)))

    paths = write_ct_series(Volume(hu, volume.geometry), tmp_path, options)

    ds = pydicom.dcmread(paths[0])
    assert (ds.PixelPaddingValue, ds.PixelPaddingRangeLimit) == (0, 7)
    stored = np.concatenate([gdcm_stored(path) for path in paths])
    np.testing.assert_array_equal(stored <= 7, hu == PADDING_HU)
    assert set(np.unique(stored[stored <= 7])) == set(range(8))


def test_a_measured_voxel_that_would_read_as_padding_is_refused(tmp_path, volume):
    options = SeriesOptions(pixels=PixelFormat(padding=(-1000, -900)))

    with pytest.raises(ValueError, match="stored as padding"):
        write_ct_series(volume, tmp_path, options)


def test_a_single_padding_value_has_no_range(tmp_path, volume):
    options = SeriesOptions(pixels=PixelFormat(padding=(-2000, -2000)))

    ds = pydicom.dcmread(write_ct_series(volume, tmp_path, options)[0])

    assert ds.PixelPaddingValue == -2000
    assert "PixelPaddingRangeLimit" not in ds


def test_values_beyond_the_format_are_clipped(tmp_path, volume):
    hu = volume.hu.copy()
    hu[0, 0, :2] = (-3000, 9000)

    path = write_ct_series(Volume(hu, volume.geometry), tmp_path, SeriesOptions(pixels=U12))[0]

    assert gdcm_stored(path)[0, 0, :2].tolist() == [0, 4095]


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        (NumberOrder.ASCENDING, [1, 2, 3, 4, 5]),
        (NumberOrder.REVERSED, [5, 4, 3, 2, 1]),
        (NumberOrder.DUPLICATE, [1, 1, 1, 1, 1]),
        (NumberOrder.MISSING, [None] * 5),
    ],
)
def test_instance_numbers_run_as_asked(tmp_path, volume, order, numbers):
    paths = write_ct_series(volume, tmp_path, SeriesOptions(numbers=order))

    assert [pydicom.dcmread(path).InstanceNumber for path in paths] == numbers


def test_random_numbers_are_a_permutation_that_is_not_the_order(tmp_path, volume):
    paths = write_ct_series(volume, tmp_path, SeriesOptions(numbers=NumberOrder.RANDOM))

    numbers = [int(pydicom.dcmread(path).InstanceNumber) for path in paths]
    assert sorted(numbers) == [1, 2, 3, 4, 5]
    assert numbers != sorted(numbers)


def test_frames_can_run_in_any_order_over_several_instances(tmp_path, volume):
    options = SeriesOptions(
        kind=ObjectKind.ENHANCED_CT, numbers=NumberOrder.REVERSED, frames_per_instance=2
    )

    paths = write_ct_series(volume, tmp_path, options)

    assert [int(pydicom.dcmread(path).NumberOfFrames) for path in paths] == [2, 2, 1]
    seen = [plane for path in paths for plane in plane_attributes(path)]
    for (position, *_, hu), z in zip(seen, [4, 3, 2, 1, 0], strict=True):
        np.testing.assert_allclose(position, volume.geometry.origins_mm[z], atol=1e-6)
        np.testing.assert_array_equal(hu, volume.hu[z])


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
@pytest.mark.parametrize("syntax", [PixelSyntax.EXPLICIT_LITTLE, PixelSyntax.JPEG_LS])
def test_the_same_options_give_the_same_bytes(tmp_path, volume, kind, syntax):
    options = SeriesOptions(kind=kind, transfer_syntax_uid=syntax, seed=7)

    one = write_ct_series(volume, tmp_path / "one", options)
    two = write_ct_series(volume, tmp_path / "two", options)

    assert [p.name for p in one] == [p.name for p in two]
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_seed_series_and_stack_name_study_series_and_instances(tmp_path, volume):
    def uids(**names):
        folder = tmp_path / "-".join(f"{k}{v}" for k, v in names.items())
        paths = write_ct_series(volume, folder, SeriesOptions(**names))
        ds = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
        return (
            {d.StudyInstanceUID for d in ds},
            {d.SeriesInstanceUID for d in ds},
            {d.FrameOfReferenceUID for d in ds},
            {d.SOPInstanceUID for d in ds},
        )

    study, series, frame, instances = uids(seed=1)
    assert (len(study), len(series), len(frame), len(instances)) == (1, 1, 1, 5)
    other = uids(seed=1, series=2)
    assert (other[0], other[2]) == (study, frame)
    assert other[1] != series
    assert not other[3] & instances
    stacked = uids(seed=1, stack=2)
    assert stacked[:3] == (study, series, frame)
    assert not stacked[3] & instances
    assert not any(a & b for a, b in zip(uids(seed=2), (study, series, frame), strict=False))


def test_the_frame_of_reference_of_the_geometry_is_kept(tmp_path):
    geometry = stack(SHAPE, SPACING_MM, frame_of_reference_uid="2.25.42")

    path = write_ct_series(smooth_volume(geometry), tmp_path)[0]

    assert pydicom.dcmread(path).FrameOfReferenceUID == "2.25.42"


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_file_names_tell_nothing_when_shuffled(tmp_path, volume, kind):
    options = SeriesOptions(kind=kind, file_names=FileNames.SHUFFLED, frames_per_instance=1)

    paths = write_ct_series(volume, tmp_path, options)

    assert len(set(paths)) == 5
    assert [p.name for p in paths] != sorted(p.name for p in paths)
    assert {p.suffix for p in paths} == {""}


def test_files_can_be_named_by_their_instance(tmp_path, volume):
    options = SeriesOptions(file_names=FileNames.SOP_INSTANCE_UID)

    for path in write_ct_series(volume, tmp_path, options):
        assert path.stem == pydicom.dcmread(path).SOPInstanceUID


def test_attributes_can_be_set_and_removed(tmp_path, volume):
    options = SeriesOptions(
        overrides={"PatientID": "", "RescaleSlope": None, "ConvolutionKernel": "B70"},
        plane_overrides={2: {"ImagePositionPatient": None}},
    )

    read = [pydicom.dcmread(path) for path in write_ct_series(volume, tmp_path, options)]

    assert all(ds.PatientID == "" and "RescaleSlope" not in ds for ds in read)
    assert all(ds.ConvolutionKernel == "B70" for ds in read)
    assert ["ImagePositionPatient" in ds for ds in read] == [True, True, False, True, True]


def test_overrides_reach_into_functional_groups(tmp_path, volume):
    options = SeriesOptions(
        kind=ObjectKind.ENHANCED_CT,
        overrides={"RescaleIntercept": None},
        plane_overrides={1: {"ImagePositionPatient": [1, 2, 3]}},
    )

    ds = pydicom.dcmread(write_ct_series(volume, tmp_path, options)[0])

    shared = ds.SharedFunctionalGroupsSequence[0]
    assert "RescaleIntercept" not in shared.PixelValueTransformationSequence[0]
    frame = ds.PerFrameFunctionalGroupsSequence[1]
    assert frame.PlanePositionSequence[0].ImagePositionPatient == [1, 2, 3]


def test_rows_and_columns_at_a_slant_are_refused(tmp_path, volume):
    slanted = replace(volume.geometry, row_step_mm=np.array([0.2, 0.9, 0.0]))

    with pytest.raises(ValueError, match="right angles"):
        write_ct_series(smooth_volume(slanted), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits_stored": 10},
        {"rescale": ()},
        {"rescale": ((0.0, 1.0),)},
        {"signed": False, "padding": (-5, 0)},
    ],
)
def test_an_impossible_pixel_format_is_refused(wrong):
    with pytest.raises(ValueError):
        PixelFormat(**wrong)
