"""The readers of highdicom and of 3D Slicer (dcmqi) find the same voxels at the same place."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK as sitk

from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import SegKind
from dicom_seg.synthetic.acquisition import (
    PatientPosition,
    Plane,
    reversed_stack,
    stack,
    tilted,
    turned,
    unevenly_spaced,
)
from dicom_seg.synthetic.options import ObjectKind, SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.structures import STRUCTURE_BY_NAME

READER = Path(sysconfig.get_path("scripts")) / "segimage2itkimage"
OUTPUT = ("-t", "nrrd", "--mergeSegments", "-p", "out")
HFS = stack((12, 25, 31), (3.0, 1.7, 1.5), (12.0, -34.0, 560.0))
EVEN = {
    "head first supine": HFS,
    "feet first prone": stack(HFS.shape, HFS.spacing_mm, position=PatientPosition("FFP")),
    "decubitus": stack(HFS.shape, HFS.spacing_mm, position=PatientPosition("HFDL")),
    "coronal": stack(HFS.shape, HFS.spacing_mm, plane=Plane.CORONAL),
    "oblique": turned(HFS, (1, 2, 3), 25.0),
    "descending": reversed_stack(HFS),
}
ANY = {
    **EVEN,
    "tilted": tilted(HFS, 14.0),
    "uneven": unevenly_spaced(HFS, [2.0, 4.0, 3.0, 2.5, 5.0, 1.5, 3.0, 2.0, 4.0, 3.5, 2.0]),
}
KINDS = pytest.mark.parametrize("kind", SegKind)


@pytest.fixture
def segmenter(bright_segmenter):
    return bright_segmenter(side_x_mm=0.7)


@KINDS
@pytest.mark.parametrize("objects", [ObjectKind.CT, ObjectKind.ENHANCED_CT])
@pytest.mark.parametrize("geometry", ANY.values(), ids=ANY.keys())
def test_highdicom_finds_in_each_source_image_what_is_bright_there(
    geometry, objects, kind, tmp_path, blobs, segmenter, segment_series, read_source
):
    paths = write_ct_series(blobs(geometry), tmp_path / "ct", SeriesOptions(kind=objects))
    (path,) = segment_series(examine_series(paths), kind, tmp_path, segmenter)
    planes = read_source(paths)

    seg = hd.seg.segread(path)
    keys = [plane.key for plane in planes]
    if objects is ObjectKind.CT:
        found = seg.get_pixels_by_source_instance(
            [uid for uid, _ in keys], combine_segments=True, ignore_spatial_locations=True
        )
    else:
        found = seg.get_pixels_by_source_frame(
            keys[0][0],
            [frame for _, frame in keys],
            combine_segments=True,
            ignore_spatial_locations=True,
        )

    numbers = {item.segment_label: item.segment_number for item in segments(seg)}
    for plane, pixels in zip(planes, found, strict=True):
        expected = np.zeros(plane.hu.shape, dtype=np.uint8)
        for name, mask in segmenter.expected(plane).items():
            expected[mask] = numbers[name]
        np.testing.assert_array_equal(pixels, expected)


def segments(seg):
    return [seg.get_segment_description(number) for number in seg.segment_numbers]


@KINDS
@pytest.mark.parametrize("geometry", EVEN.values(), ids=EVEN.keys())
def test_dcmqi_finds_every_voxel_at_its_place_in_mm(
    geometry, kind, tmp_path, blobs, segmenter, segment_series, read_source
):
    paths = write_ct_series(blobs(geometry), tmp_path / "ct")
    (path,) = segment_series(examine_series(paths), kind, tmp_path, segmenter)

    subprocess.run(
        [READER, "--inputDICOM", path, "--outputDirectory", tmp_path, *OUTPUT],
        check=True,
        capture_output=True,
    )

    (nrrd,) = tmp_path.glob("out*.nrrd")
    image = sitk.ReadImage(nrrd)
    ids = sorted(
        STRUCTURE_BY_NAME[n].id for n in (segmenter.left, segmenter.right, segmenter.middle)
    )
    count = 0
    for plane in read_source(paths):
        points = plane.lps_mm(plane.hu.shape)
        for name, mask in segmenter.expected(plane).items():
            number = ids.index(STRUCTURE_BY_NAME[name].id) + 1
            for point in points[mask].tolist():
                assert image[image.TransformPhysicalPointToIndex(point)] == number
            count += int(mask.sum())
    assert np.count_nonzero(sitk.GetArrayViewFromImage(image)) == count
