"""From planned stacks to volumes: exact, bounded, and refused by name."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import examine_series
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import ObjectKind, PixelFormat, SeriesOptions
from dicom_seg.synthetic.pixel_encoding import PixelSyntax
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from inference.volume import PADDING_HU, Volume

ANY_LENGTH = SeriesRules(min_slices=1)
SHAPE = (12, 24, 32)
AXIAL = stack(SHAPE, (3.0, 1.5, 1.5))


@pytest.fixture
def body(rng):
    """Tissue in air, no two voxels alike, as a scanner gives it."""
    hu = rng.integers(-1024, -900, SHAPE).astype(np.int16)
    hu[:, 4:-4, 4:-4] = rng.integers(-100, 300, (12, 16, 24))
    return Volume(hu, AXIAL)


@pytest.fixture
def plan_of(tmp_path):
    """``plan_of(volume, **options)``: the one stack of a series written for it."""

    def planned(volume, **options):
        folder = tmp_path / f"series{len(list(tmp_path.iterdir()))}"
        paths = write_ct_series(volume, folder, SeriesOptions(**options))
        (plan,) = examine_series(paths).stacks
        return plan

    return planned


LOSSLESS = [syntax for syntax in PixelSyntax if syntax.lossy_method is None]
FORMATS = {
    "signed 16": PixelFormat(),
    "unsigned 16": PixelFormat(signed=False, rescale=((1.0, -1024.0),)),
    "unsigned 12": PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),)),
    "signed 13": PixelFormat(bits_stored=13),
}


@pytest.mark.parametrize("pixels", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: s.name)
@pytest.mark.parametrize("kind", [ObjectKind.CT, ObjectKind.ENHANCED_CT], ids=lambda k: k.name)
def test_every_lossless_syntax_gives_every_voxel(plan_of, body, kind, syntax, pixels):
    plan = plan_of(body, kind=kind, transfer_syntax_uid=syntax, pixels=pixels)

    source = read_stack(plan)

    np.testing.assert_array_equal(source.volume.hu, body.hu)
    assert source.volume.geometry.matches(body.geometry)
    assert source.findings == ()


def test_only_the_frames_of_the_stack_are_read(tmp_path, body):
    (path,) = write_ct_series(
        body,
        tmp_path / "ct",
        SeriesOptions(kind=ObjectKind.ENHANCED_CT, transfer_syntax_uid=PixelSyntax.RLE),
    )
    ds = pydicom.dcmread(path)
    frames = list(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=12))
    frames[0] = b"spoilt" * 20
    ds.PixelData = pydicom.encaps.encapsulate(frames)
    scout = pydicom.Dataset()
    scout.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    ds.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [scout]
    ds.save_as(path)

    (plan,) = examine_series([path]).stacks

    np.testing.assert_array_equal(read_stack(plan).volume.hu, body.hu[1:])


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_number_of_workers_changes_nothing(plan_of, body, workers):
    plan = plan_of(body, transfer_syntax_uid=PixelSyntax.JPEG_LS)

    np.testing.assert_array_equal(read_stack(plan, workers).volume.hu, body.hu)


def test_progress_goes_from_plane_to_plane_to_the_end(plan_of, body):
    shares = []

    read_stack(plan_of(body), progress=shares.append)

    assert shares == pytest.approx([(z + 1) / 12 for z in range(12)])


def test_an_error_in_progress_stops_the_reading(plan_of, body):
    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_stack(plan_of(body), progress=stop)


@pytest.mark.parametrize("syntax", [PixelSyntax.EXPLICIT_LITTLE, PixelSyntax.JPEG_2000_LOSSLESS])
def test_memory_is_the_volume_and_a_few_planes(tmp_path, rng, syntax):
    geometry = stack((24, 256, 256), (3.0, 1.0, 1.0))
    hu = np.clip(rng.normal(40, 300, geometry.shape), -1000, 1000).astype(np.int16)
    options = SeriesOptions(transfer_syntax_uid=syntax)
    paths = write_ct_series(Volume(hu, geometry), tmp_path / "ct", options)
    tracemalloc.start()
    try:
        (plan,) = examine_series(paths).stacks
        read_stack(plan, workers=2)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < hu.nbytes + 20 * hu[0].nbytes


def test_rescale_of_each_slice_is_its_own(plan_of, body):
    rescale = tuple((1.0 + z % 3, -1024.0 - 7 * z) for z in range(12))
    volume = Volume((body.hu // 6) * 6 - 1024 % 6, AXIAL)
    volume.hu[:] = np.array(
        [
            np.round((plane - b) / m) * m + b
            for plane, (m, b) in zip(volume.hu, rescale, strict=True)
        ]
    )
    plan = plan_of(volume, pixels=PixelFormat(rescale=rescale))

    np.testing.assert_array_equal(read_stack(plan).volume.hu, volume.hu)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"RescaleSlope": "1.3", "RescaleIntercept": "-20.25"}, Reason.HU_ROUNDED),
        ({"RescaleSlope": "90"}, Reason.HU_CLIPPED),
        ({"RescaleIntercept": "2000"}, Reason.IMPLAUSIBLE_HU),
    ],
)
def test_what_happened_to_values_is_a_finding(plan_of, body, overrides, reason):
    source = read_stack(plan_of(body, overrides=overrides))

    assert reason in {finding.reason for finding in source.findings}


def test_padding_that_hides_tissue_is_a_finding(plan_of, body):
    pixels = PixelFormat(padding=(0, 40))

    source = read_stack(plan_of(body, overrides={"PixelPaddingValue": 0,
                                                 "PixelPaddingRangeLimit": 40}))  # fmt: skip

    assert Reason.IMPLAUSIBLE_HU in {finding.reason for finding in source.findings}
    hidden = (body.hu >= pixels.padding[0]) & (body.hu <= pixels.padding[1])
    np.testing.assert_array_equal(source.volume.hu == PADDING_HU, hidden)


def test_a_file_that_has_gone_since_is_named(plan_of, body):
    plan = plan_of(body)
    row = plan.table.rows[4]
    row.path.unlink()

    with pytest.raises(SeriesRefusedError, match=row.sop_instance_uid) as caught:
        read_stack(plan)

    assert caught.value.reason is Reason.SOURCE_MISSING


def test_a_file_that_shrank_since_is_named(plan_of, body):
    plan = plan_of(body)
    row = plan.table.rows[4]
    row.path.write_bytes(row.path.read_bytes()[:-100])

    with pytest.raises(SeriesRefusedError, match=row.sop_instance_uid) as caught:
        read_stack(plan)

    assert caught.value.reason is Reason.SOURCE_MISSING


def by_gdcm(path):
    """Hounsfield units of one file, ``(z, y, x)`` in the order of its frames."""
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    return pixels.reshape(-1, *pixels.shape[-2:])


def same_as_gdcm(path):
    """Every voxel that is not padding."""
    (plan,) = examine_series([path], ANY_LENGTH).stacks
    hu = read_stack(plan).volume.hu
    theirs = by_gdcm(path)
    measured = hu != PADDING_HU
    frames = [(row.frame_number or 1) - 1 for row in plan.table.rows]
    np.testing.assert_array_equal(hu[measured], theirs[frames][measured])
    return float(measured.mean())


@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "693_J2KI.dcm"])
def test_odd_files_of_pydicom_read_as_by_gdcm(name):
    assert same_as_gdcm(Path(get_testdata_file(name))) > 0.5


@pytest.mark.shared
@pytest.mark.parametrize(
    "pattern",
    [
        "ts_dicom/1658?.dcm",
        "dcm_qa_ct_Philips_tilt16_5/I2?0.dcm",
        "dcm_qa_ct_Philips_notilt/*.dcm",
        "dcmqi/ct-3slice/*.dcm",
        "dcmqi/24x38x3/image/*.dcm",
        "dcmqi/24x38x3/multiframe/*.dcm",
        "pydicom_data/693_*.dcm",
        "pydicom_data/explicit_VR-UN.dcm",
    ],
)
def test_real_series_read_as_by_gdcm(shared_data, pattern):
    paths = sorted(shared_data.glob(pattern))
    assert paths
    for path in paths:
        assert same_as_gdcm(path) > 0.5


@pytest.mark.shared
def test_padding_of_a_real_series_is_padding(shared_data):
    (plan,) = examine_series(
        sorted((shared_data / "dcmqi/ct-3slice").glob("*.dcm")), ANY_LENGTH
    ).stacks

    hu = read_stack(plan).volume.hu

    corners = hu[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == PADDING_HU).all()
    assert hu[hu != PADDING_HU].min() >= -1024


@pytest.mark.shared
def test_two_encodings_of_one_image_give_one_volume(shared_data):
    volumes = []
    for name in ("693_J2KR.dcm", "693_UNCR.dcm"):
        (plan,) = examine_series([shared_data / "pydicom_data" / name], ANY_LENGTH).stacks
        volumes.append(read_stack(plan).volume.hu)

    np.testing.assert_array_equal(*volumes)


def rewritten(path):
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))


def replaced_by_an_equal_one(path):
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.with_suffix(".new").write_bytes(path.read_bytes())
    path.with_suffix(".new").replace(path)
    os.utime(path, ns=times)


def lengthened(path):
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + bytes(2))
    os.utime(path, ns=times)


@pytest.mark.parametrize("change", [rewritten, replaced_by_an_equal_one, lengthened])
@pytest.mark.parametrize("kind", [ObjectKind.CT, ObjectKind.ENHANCED_CT], ids=lambda k: k.name)
def test_a_file_that_is_not_the_one_that_was_examined_is_refused_by_instance(
    plan_of, body, change, kind
):
    plan = plan_of(body, kind=kind)
    row = plan.table.rows[5]
    change(row.path)

    with pytest.raises(SeriesRefusedError) as refused:
        read_stack(plan)

    assert refused.value.reason is Reason.SOURCE_MISSING
    assert row.sop_instance_uid in refused.value.detail
    assert "changed" in refused.value.detail
