"""Scans and labels of a bundle's dataset meet by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.reasons import Reason
from training.bundle.cases import scan_pairs, split_cases
from training.dataset import DatasetError
from training.preset import load_preset

PRESET = Path(__file__).resolve().parents[3] / "configs" / "train_3.0mm.toml"


def test_the_last_cases_judge_and_are_not_trained_on(dataset):
    cases = split_cases(str(dataset), load_preset(PRESET), validation_cases=2)
    names = [Path(item["image"]).name for item in cases.training + cases.validation]
    assert names == sorted(names)
    assert [Path(item["label"]).parent.name for item in cases.validation] == ["labelsTr"] * 2
    assert len(cases.validation) == 2


def test_lists_of_files_meet_by_name_whatever_their_order(dataset):
    images = [str(dataset / "imagesTr" / f"p000{n}.nii.gz") for n in (3, 1, 2)]
    labels = [str(dataset / "labelsTr" / f"p000{n}.nii.gz") for n in (1, 2, 3)]
    cases = split_cases("", load_preset(PRESET), 1, images, labels)
    for item in cases.training + cases.validation:
        assert Path(item["image"]).name == Path(item["label"]).name


def test_a_scan_without_its_label_is_refused_by_name(dataset):
    images = [str(path) for path in (dataset / "imagesTr").glob("p*")]
    labels = [str(dataset / "labelsTr" / "p0001.nii.gz")]
    with pytest.raises(DatasetError) as caught:
        split_cases("", load_preset(PRESET), 1, images, labels)
    assert caught.value.reason is Reason.MISSING_LABELS
    assert "p0002" in caught.value.detail


def test_two_scans_of_one_name_are_refused(dataset):
    class Twice:
        data = [{"image": "a/s1.nii.gz"}, {"image": "b/s1.nii"}]  # noqa: RUF012

    with pytest.raises(DatasetError) as caught:
        scan_pairs(Twice())
    assert caught.value.reason is Reason.DUPLICATE_CASE
