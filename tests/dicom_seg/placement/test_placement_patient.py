"""The exact labels of the synthetic patient, through a series and a Segmentation and back."""

from __future__ import annotations

import numpy as np
import pytest

from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import SegKind, write_segmentation
from dicom_seg.synthetic.acquisition import PatientPosition, Plane, covering, tilted
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from dicom_seg.verification import verify_segmentation
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES, structure
from inference.synthetic.patient import SyntheticPatient, default_geometry

SEED = 3


def lying(position, plane=Plane.AXIAL, tilt_degrees=0.0):
    patient = SyntheticPatient.from_seed(SEED)
    usual = default_geometry(patient, (12.0, 8.0, 8.0))
    corners = usual.lps_mm(np.array([[0, 0, 0], np.array(usual.shape) - 1]))
    box = np.stack([corners.min(axis=0), corners.max(axis=0)])
    return patient, tilted(covering(box, (12.0, 8.0, 7.0), position, plane), tilt_degrees)


@pytest.mark.parametrize(
    ("position", "plane", "tilt_degrees"),
    [
        ("HFS", Plane.AXIAL, 0.0),
        ("FFP", Plane.AXIAL, 12.0),
        ("HFDL", Plane.AXIAL, 0.0),
        ("HFS", Plane.CORONAL, 0.0),
        ("HFS", Plane.SAGITTAL, 0.0),
    ],
)
def test_every_structure_comes_back_on_its_own_side(
    position, plane, tilt_degrees, tmp_path, seg_request, read_segmentation
):
    patient, geometry = lying(PatientPosition(position), plane, tilt_degrees)
    volume, truth = patient.sample(geometry)
    paths = write_ct_series(volume, tmp_path, SeriesOptions(patient_position=position))

    (plan,) = examine_series(paths).stacks
    np.testing.assert_array_equal(read_stack(plan).volume.hu, volume.hu)
    for kind in SegKind:
        path = tmp_path / f"{kind}.seg"
        write_segmentation(truth, plan, seg_request(kind), path)
        verify_segmentation(path, truth, plan, seg_request(kind))
        check_sides(dict(middles_mm(read_segmentation(path))), truth)


def check_sides(middle_mm, truth):
    """Each structure is where the truth has it, and no left one right of its twin."""
    assert set(middle_mm) == {structure(i).name for i in truth.present()}
    pairs = [s for s in STRUCTURES if s.is_left and {s.name, s.twin} <= set(middle_mm)]
    assert len(pairs) > 10
    for left in pairs:
        assert middle_mm[left.name][0] > middle_mm[left.twin][0], left.name
    for name, middle in middle_mm.items():
        index = np.argwhere(truth.labels == STRUCTURE_BY_NAME[name].id)
        np.testing.assert_allclose(middle, truth.geometry.lps_mm(index).mean(axis=0), atol=1e-3)


def middles_mm(frames):
    """Name and mean position of the voxels of every structure."""
    points = {}
    for frame in frames:
        lps_mm = None
        for name, mask in frame.masks.items():
            lps_mm = frame.lps_mm(mask.shape) if lps_mm is None else lps_mm
            points.setdefault(name, []).append(lps_mm[mask])
    return [(name, np.concatenate(parts).mean(axis=0)) for name, parts in points.items()]
