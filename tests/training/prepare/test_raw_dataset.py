"""Which cases a raw dataset has, and which set each belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.reasons import Reason
from training.dataset import DatasetError
from training.prepare.outcome import Split
from training.prepare.raw_dataset import read_raw_dataset


@pytest.fixture
def raw(tmp_path) -> Path:
    for name in ("s0001", "s0002", "s0003", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    return tmp_path


def _meta(raw: Path, *rows: str, header: str = "image_id;age;split") -> None:
    (raw / "meta.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def test_the_table_says_which_set_a_case_belongs_to(raw):
    _meta(raw, "s0001;57;train", "s0002;44;val", "s0003;61;test")

    dataset = read_raw_dataset(raw)

    assert [(case.name, case.split) for case in dataset.cases] == [
        ("s0001", Split.TRAINING),
        ("s0002", Split.TRAINING),
        ("s0003", Split.TEST),
    ]
    assert dataset.left_out == ()


def test_a_table_with_commas_and_a_byte_order_mark_is_read(raw):
    (raw / "meta.csv").write_text(
        "\ufeffimage_id,split\ns0001,train\ns0002,Test \ns0003,val\n", encoding="utf-8"
    )

    assert [case.split for case in read_raw_dataset(raw).cases][1] is Split.TEST


@pytest.mark.parametrize(
    "rows",
    [
        ("s0001;57;train", "s0003;1;test"),
        ("s0001;57;train", "s0003;1;test", "s0002;44;"),
        ("s0001;57;train", "s0003;1;test", "s0002;44;holdout"),
        ("s0001;57;train", "s0003;1;test", "s0002;44;train", "s0002;44;test"),
    ],
)
def test_a_case_that_may_be_of_the_test_set_is_left_out(raw, rows):
    _meta(raw, *rows)

    dataset = read_raw_dataset(raw)

    assert [case.name for case in dataset.cases] == ["s0001", "s0003"]
    (outcome,) = dataset.left_out
    assert outcome.case == "s0002"
    assert not outcome.prepared
    assert outcome.remarks[0].reason is Reason.NO_SPLIT


def test_a_case_without_its_folder_is_told(raw):
    _meta(raw, "s0001;5;train", "s0002;5;val", "s0003;5;test", "s0004;5;test")

    (outcome,) = read_raw_dataset(raw).left_out

    assert (outcome.case, outcome.split) == ("s0004", Split.TEST)
    assert outcome.remarks[0].reason is Reason.MISSING_CASE


def test_without_a_table_all_cases_are_for_training_and_say_so(raw):
    dataset = read_raw_dataset(raw)

    assert {case.split for case in dataset.cases} == {Split.TRAINING}
    assert [case.remarks[0].reason for case in dataset.cases] == [Reason.NO_SPLIT] * 3


def test_a_table_that_is_none_is_refused(raw):
    _meta(raw, "s0001;5", header="id;age")

    with pytest.raises(DatasetError, match=r"meta\.csv") as caught:
        read_raw_dataset(raw)

    assert caught.value.reason is Reason.NO_SPLIT


def test_a_folder_without_cases_is_refused(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError) as caught:
            read_raw_dataset(root)
        assert caught.value.reason is Reason.NO_CASES
