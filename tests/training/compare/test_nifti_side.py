"""Values of label files: v1, v2, a table within the file or beside it."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from inference.nifti import NiftiError, read_label_nifti
from inference.reasons import Reason
from inference.structures import STRUCTURE_BY_NAME, STRUCTURES
from training.compare.label_values import Numbering, known_values, read_values
from training.compare.nifti_side import read_nifti_side
from training.errors import TrainingError

TABLE = """<?xml version="1.0"?> <CaretExtension> <VolumeInformation Index="0"> <LabelTable>
<Label Key="1" Red="0.0" Green="1.0" Blue="0.0" Alpha="1"><![CDATA[aorta]]></Label>
<Label Key="2" Red="0.0" Green="1.0" Blue="0.0" Alpha="1"><![CDATA[skull]]></Label>
</LabelTable></VolumeInformation></CaretExtension>"""


def write(path, values, table: str | None = None, dtype=np.uint8):
    image = nib.Nifti1Image(np.array(values, dtype=dtype).reshape(-1, 1, 1), np.eye(4))
    if table is not None:
        image.header.extensions.append(Nifti1Extension(0, table.encode()))
    nib.save(image, path)
    return path


def ids(side) -> list[int]:
    return side.layers[0].labels.ravel().tolist()


def named(*names: str) -> list[int]:
    return [STRUCTURE_BY_NAME[name].id if name else 0 for name in names]


def test_without_a_table_values_are_ids_of_v1(tmp_path):
    side = read_nifti_side(write(tmp_path / "l.nii", [0, 7, 104, 2]))

    assert ids(side) == [0, 7, 104, 2]
    assert not side.sparse
    assert side.values == "TotalSegmentator v1, as the file has no label table"
    assert read_nifti_side(tmp_path / "l.nii", Numbering.V1).values == "TotalSegmentator v1"


def test_values_of_v2_are_taken_for_the_same_structures_of_v1(tmp_path):
    path = write(tmp_path / "l.nii", [0, 52, 51, 26, 117, 21], dtype=np.float32)

    side = read_nifti_side(path, Numbering.V2)

    assert ids(side) == named("", "aorta", "", "sacrum", "", "urinary_bladder")
    (finding,) = side.findings
    assert finding.detail == "left out: heart, costal_cartilages"


def test_the_table_of_v2_names_97_structures_of_v1():
    """All but five parts of the heart, the pulmonary artery and the face."""
    found = set(known_values(Numbering.V2).structure_ids.values())

    missing = {s.name for s in STRUCTURES if s.id not in found}
    assert missing == {
        "heart_myocardium", "heart_atrium_left", "heart_ventricle_left", "heart_atrium_right",
        "heart_ventricle_right", "pulmonary_artery", "face",
    }  # fmt: skip
    assert len(known_values(Numbering.V2).names) == 117


def test_the_table_within_a_file_is_believed(tmp_path):
    side = read_nifti_side(write(tmp_path / "l.nii.gz", [0, 1, 2], TABLE))

    assert ids(side) == named("", "aorta", "")
    assert side.values == "label table of the file"
    assert side.findings[0].detail == "left out: skull"
    assert ids(read_nifti_side(tmp_path / "l.nii.gz", Numbering.V1)) == [0, 1, 2]


def test_the_names_of_v2_within_a_file_count_as_those_of_v2_by_number(tmp_path):
    table = TABLE.replace("aorta", "sacrum").replace("skull", "vertebrae_S1")

    side = read_nifti_side(write(tmp_path / "l.nii.gz", [0, 1, 2], table))

    assert ids(side) == named("", "sacrum", "sacrum")
    assert not [finding for finding in side.findings if "left out" in finding.detail]


def test_a_value_beyond_16_bit_in_the_table_of_a_file_is_passed_over(tmp_path):
    table = TABLE.replace('Key="2"', 'Key="70000"').replace("skull", "liver")

    assert ids(read_nifti_side(write(tmp_path / "l.nii", [0, 1], table))) == named("", "aorta")


def test_a_value_without_a_name_is_refused(tmp_path):
    for values, table in (([0, 105], None), ([1, 3], TABLE)):
        path = write(tmp_path / "l.nii", values, table)

        with pytest.raises(NiftiError) as refusal:
            read_nifti_side(path)

        assert refusal.value.reason is Reason.UNKNOWN_LABEL
        assert str(max(values)) in refusal.value.detail


def test_what_is_no_label_is_refused(tmp_path):
    with pytest.raises(NiftiError) as refusal:
        read_nifti_side(write(tmp_path / "l.nii", [0, 1.5], dtype=np.float32))

    assert refusal.value.reason is Reason.CORRUPT_PIXEL_DATA


def test_names_come_from_a_file_of_the_users_own(tmp_path):
    table = tmp_path / "names.csv"
    table.write_text("value,name\n0,background\n300,Left Kidney\n2,tumour\n")

    side = read_nifti_side(
        write(tmp_path / "l.nii", [0, 300, 2], dtype=np.uint16), read_values(table)
    )

    assert ids(side) == named("", "kidney_left", "")
    table.write_text("value,name\nx,liver\n4,\n5,liver\n5,liver\n70000,spleen\n")
    with pytest.raises(TrainingError) as refusal:
        read_values(table)
    for line in ("line 2", "line 3", "line 5", "line 6"):
        assert line in refusal.value.detail
    assert "line 4" not in refusal.value.detail


@pytest.mark.shared
def test_v1_and_v2_labels_of_a_real_scan_say_the_same(shared_data):
    newer = read_nifti_side(shared_data / "ts_dicom_labels_v2.nii.gz")
    older = read_label_nifti(shared_data / "ts_dicom_labels_v1.nii.gz")

    np.testing.assert_array_equal(newer.layers[0].labels, older.labels)
    assert newer.findings[0].detail.startswith("left out: ")
    by_number = read_nifti_side(shared_data / "ts_dicom_labels_v2.nii.gz", Numbering.V2)
    np.testing.assert_array_equal(by_number.layers[0].labels, older.labels)
