"""A real series with real labels: both kinds, by Slicer's reader and by dciodvfy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from dicom_seg.codes import code_of
from dicom_seg.read.examination import StackPlan
from dicom_seg.read.series import examine_series
from dicom_seg.segmentation import SegKind, write_segmentation
from dicom_seg.verification import verify_segmentation
from inference.label_map import LabelMap

TOOLS = Path(sys.executable).parent

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def plan(shared_data: Path) -> StackPlan:
    (plan,) = examine_series(sorted((shared_data / "ts_dicom").iterdir())).stacks
    return plan


@pytest.fixture(scope="module")
def labels(shared_data: Path, plan: StackPlan) -> LabelMap:
    """The labels on the planes of the series, matched by position in mm."""
    image = nibabel.load(shared_data / "ts_dicom_labels_v1.nii.gz")
    stored = np.asarray(image.dataobj).astype(np.uint8)
    geometry = plan.table.geometry()
    lps_from_index = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in stored.shape), indexing="ij"), axis=-1)
    lps_mm = corners @ lps_from_index[:3, :3].T + lps_from_index[:3, 3]
    zyx = geometry.index_of(lps_mm)
    np.testing.assert_allclose(zyx, np.rint(zyx), atol=1e-3)
    assert zyx.reshape(-1, 3).min() > -1e-3
    array = stored.transpose(2, 1, 0)
    for axis, near, far in (
        (0, (0, 0, 0), (0, 0, 1)),
        (1, (0, 0, 0), (0, 1, 0)),
        (2, (0, 0, 0), (1, 0, 0)),
    ):
        if zyx[near][axis] > zyx[far][axis]:
            array = np.flip(array, axis)
    return LabelMap(np.ascontiguousarray(array), geometry)


@pytest.mark.parametrize("kind", SegKind)
def test_the_labels_of_a_real_series_come_back_voxel_for_voxel(
    plan, labels, make_request, tmp_path, kind
) -> None:
    request = make_request(kind)
    written = write_segmentation(labels, plan, request, tmp_path / "seg.dcm")
    verify_segmentation(written.path, labels, plan, request)

    said = subprocess.run([TOOLS / "dciodvfy", written.path], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "Error" not in said.stderr + said.stdout
    subprocess.run(
        [TOOLS / "segimage2itkimage", "--inputDICOM", written.path, "--outputDirectory", tmp_path,
         "-t", "nrrd", "--mergeSegments"],
        check=True, capture_output=True,
    )  # fmt: skip
    (decoded,) = tmp_path.glob("*.nrrd")
    image = SimpleITK.ReadImage(decoded)
    found = SimpleITK.GetArrayFromImage(image)
    structure_of = np.array([0, *written.segment_ids], dtype=np.uint8)
    assert len(written.segment_ids) == 29
    step = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    index = np.argwhere(found)
    lps_mm = np.array(image.GetOrigin()) + index[:, ::-1] @ step.T
    zyx = labels.geometry.index_of(lps_mm)
    np.testing.assert_allclose(zyx, np.rint(zyx), atol=1e-3)
    back = np.zeros_like(labels.labels)
    back[tuple(np.rint(zyx).astype(int).T)] = structure_of[found[tuple(index.T)]]
    np.testing.assert_array_equal(back, labels.labels)


def test_each_frame_of_a_real_series_refers_to_its_own_slice(
    plan, labels, make_request, tmp_path
) -> None:
    path = write_segmentation(labels, plan, make_request(), tmp_path / "seg.dcm").path

    position = {
        str(ds.SOPInstanceUID): ds.ImagePositionPatient
        for ds in (pydicom.dcmread(row.path, stop_before_pixels=True) for row in plan.table.rows)
    }
    ds = pydicom.dcmread(path)
    assert len(ds.PerFrameFunctionalGroupsSequence) == ds.NumberOfFrames == 480
    for item in ds.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        own = item.PlanePositionSequence[0].ImagePositionPatient
        assert own == position[source.ReferencedSOPInstanceUID]
    assert [s.SegmentLabel for s in ds.SegmentSequence] == [
        code_of(i).name for i in labels.present()
    ]
