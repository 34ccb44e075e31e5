"""A dataset folder names its cases, and says at once what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.reasons import Reason
from training.dataset import DatasetError, DatasetFolder


@pytest.fixture
def dataset(tmp_path) -> Path:
    for folder, names in {
        "imagesTr": ["s0002.nii.gz", "s0001.nii.gz", "._s0001.nii.gz", "notes.txt"],
        "labelsTr": ["s0001.nii.gz", "s0002.nii"],
        "imagesTs": ["s0003.nii.gz", "s0004.nii.gz"],
        "labelsTs": ["s0004.nii.gz"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path


def test_pairs_come_by_name_and_other_files_are_left_alone(dataset):
    first, second = DatasetFolder(dataset).training_pairs()

    assert (first.name, second.name) == ("s0001", "s0002")
    assert first.image == dataset / "imagesTr" / "s0001.nii.gz"
    assert second.labels == dataset / "labelsTr" / "s0002.nii"


def test_a_test_scan_may_lack_labels(dataset):
    third, fourth = DatasetFolder(dataset).test_pairs()

    assert third.labels is None
    assert fourth.labels == dataset / "labelsTs" / "s0004.nii.gz"


def test_a_published_dataset_without_labels_of_the_test_set_is_one(dataset):
    (dataset / "labelsTs" / "s0004.nii.gz").unlink()
    (dataset / "labelsTs").rmdir()

    assert [pair.labels for pair in DatasetFolder(dataset).test_pairs()] == [None, None]


@pytest.mark.parametrize(
    ("added", "removed", "reason"),
    [
        (None, "labelsTr/s0001.nii.gz", Reason.MISSING_LABELS),
        (None, "imagesTr/s0001.nii.gz", Reason.MISSING_IMAGE),
        ("imagesTr/s0001.nii", None, Reason.DUPLICATE_CASE),
    ],
)
def test_a_half_or_double_case_is_refused_by_the_name_of_its_file(dataset, added, removed, reason):
    if added:
        (dataset / added).touch()
    if removed:
        (dataset / removed).unlink()

    with pytest.raises(DatasetError, match="s0001") as caught:
        DatasetFolder(dataset).training_pairs()

    assert caught.value.reason is reason


def test_all_faults_of_a_kind_are_told_at_once_the_first_by_name(dataset):
    for number in range(10, 18):
        (dataset / "imagesTr" / f"s{number}.nii.gz").touch()

    with pytest.raises(DatasetError, match=r"s14\.nii\.gz and 3 more"):
        DatasetFolder(dataset).training_pairs()


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_without_cases_is_refused(tmp_path, empty):
    if empty:
        (tmp_path / "imagesTr").mkdir()

    with pytest.raises(DatasetError) as caught:
        DatasetFolder(tmp_path).training_pairs()

    assert caught.value.reason is Reason.NO_CASES
