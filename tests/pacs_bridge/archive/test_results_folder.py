"""Results in their place: whole, recognised, and nobody's by name."""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from dicom_seg.read.examination import SeriesRules
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from pacs_bridge.archive import results_folder
from pacs_bridge.archive.job_endings import JobEndings
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.results_folder import ResultsFolder, made_of
from pacs_bridge.archive.series_book import Made, PlannedSeries, SeriesBook
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.process import ProcessOptions, SeriesSource, process_series
from pacs_bridge.report import SeriesReport

SERIES = PlannedSeries(1, "1.2.3", "1.2", "files", "contents", 1, 1)


@pytest.fixture
def finished(ram_folder, bright_volume, bright_segmenter, clock):
    """A folder with a finished result, made once and copied."""
    series = SeriesOptions(overrides={"SeriesInstanceUID": SERIES.series})
    paths = write_ct_series(bright_volume, ram_folder / "ct", series)
    options = ProcessOptions(rules=SeriesRules())
    made = ram_folder / "made"
    process_series(SeriesSource(tuple(paths), clock.now()), bright_segmenter, options, made)

    def copy(target: Path) -> Path:
        shutil.copytree(made, target)
        return target

    return copy


def names(folder: Path) -> list[str]:
    """Of all files but those of systems and our own."""
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if not name.startswith("."))


WHOLE = ["record.json", "report.json", "seg-binary.dcm", "seg-labelmap.dcm"]


def test_a_result_is_found_by_what_it_rests_on_and_by_nothing_else(finished, ram_folder):
    results = ResultsFolder(ram_folder / "out")
    made = results.place(SERIES, "recipe", finished(ram_folder / "job"))
    assert results.find(SERIES, "recipe") == made
    assert results.find(SERIES, "another") is None
    changed = PlannedSeries(1, "1.2.3", "1.2", "files", "other contents", 1, 1)
    assert results.find(changed, "recipe") is None
    assert (made.outputs, made.model) == (2, "bright")


def test_a_result_with_a_stack_of_less_precision_is_not_told_as_one_of_the_other(
    finished, ram_folder
):
    report = SeriesReport.read(finished(ram_folder / "job") / "report.json")
    stacks = [
        replace(report.stacks[0], parameters={"precision": precision})
        for precision in ("bf16", "fp32")
    ]
    mixed = made_of(replace(report, stacks=tuple(stacks)), "")

    assert mixed.precision == "bf16 fp32"
    assert not Recipe("m", "d", "r", precision="fp32").is_made_so(mixed.precision)
    assert made_of(replace(report, stacks=tuple(stacks[1:])), "").precision == "fp32"


def test_a_newer_result_takes_the_place_of_an_older_one(finished, ram_folder):
    results = ResultsFolder(ram_folder / "out")
    results.place(SERIES, "old", finished(ram_folder / "one"))
    results.place(SERIES, "new", finished(ram_folder / "two"))
    assert results.find(SERIES, "old") is None
    assert results.find(SERIES, "new") is not None
    assert names(ram_folder / "out") == WHOLE


def test_results_may_lie_on_another_disk(finished, ram_folder, tmp_path):
    results = ResultsFolder(tmp_path / "out")
    results.place(SERIES, "recipe", finished(ram_folder / "job"))
    assert names(tmp_path / "out") == WHOLE
    assert not (ram_folder / "job").exists()


def test_a_full_disk_is_waited_for_and_loses_nothing(
    finished, ram_folder, tmp_path, files_of_at_most
):
    results = ResultsFolder(tmp_path / "out")
    job = finished(ram_folder / "job")
    with files_of_at_most(100), pytest.raises(TransientError) as caught:
        results.place(SERIES, "recipe", job)
    assert caught.value.reason is Reason.DISK_FULL
    assert results.find(SERIES, "recipe") is None
    results.place(SERIES, "recipe", job)
    assert names(tmp_path / "out") == WHOLE


@pytest.mark.parametrize("is_replacing", [False, True])
def test_a_move_that_was_ended_in_between_is_finished(finished, ram_folder, is_replacing):
    out = ram_folder / "out"
    results = ResultsFolder(out)
    if is_replacing:
        results.place(SERIES, "old", finished(ram_folder / "old"))
    results.place(SERIES, "recipe", finished(ram_folder / "job"))
    (final,) = out.glob("??/*")
    (out / ".staging").mkdir(exist_ok=True)
    final.rename(out / ".staging" / final.name)  # as it was before the last step

    made = results.place(SERIES, "recipe", ram_folder / "job")

    assert results.find(SERIES, "recipe") == made
    assert names(out) == WHOLE


def test_a_result_of_another_series_takes_no_place(finished, ram_folder):
    results = ResultsFolder(ram_folder / "out")
    other = replace(SERIES, series="1.2.9")
    with pytest.raises(PermanentError):
        results.place(other, "recipe", finished(ram_folder / "job"))
    assert names(ram_folder / "out") == []
    assert results.place(SERIES, "recipe", ram_folder / "job") is not None


def test_a_part_of_a_result_takes_no_whole_ones_place(finished, ram_folder):
    results = ResultsFolder(ram_folder / "out")
    made = results.place(SERIES, "recipe", finished(ram_folder / "job"))
    part = finished(ram_folder / "part")
    (part / "seg-binary.dcm").unlink()
    assert results.place(SERIES, "recipe", part) == made
    (finished(ram_folder / "again") / "report.json").unlink()
    assert results.place(SERIES, "other recipe", ram_folder / "again") is None
    assert names(ram_folder / "out") == WHOLE
    assert results.find(SERIES, "recipe") == made


def test_a_move_to_another_disk_that_was_ended_while_its_source_was_deleted_loses_nothing(
    finished, ram_folder, tmp_path
):
    results = ResultsFolder(tmp_path / "out")
    made = results.place(SERIES, "recipe", finished(ram_folder / "job"))
    job = finished(ram_folder / "job")
    (job / "seg-binary.dcm").unlink()
    assert results.place(SERIES, "recipe", job) == made
    assert names(tmp_path / "out") == WHOLE
    assert not job.exists()


def test_a_result_that_is_nowhere_has_to_be_made_again(ram_folder):
    assert ResultsFolder(ram_folder / "out").place(SERIES, "recipe", ram_folder / "job") is None


@pytest.mark.parametrize(
    "changed",
    ["", "[]", "{}", {"made": {"findings": ["of-a-later-version"]}}, {"made": {"new": 1}}],
)
def test_a_record_that_is_not_understood_is_none(finished, ram_folder, changed):
    results = ResultsFolder(ram_folder / "out")
    results.place(SERIES, "recipe", finished(ram_folder / "job"))
    (path,) = (ram_folder / "out").glob("??/*/record.json")
    record = json.loads(path.read_text())
    path.write_text(changed if isinstance(changed, str) else json.dumps(record | changed))
    assert results.find(SERIES, "recipe") is None
    results.place(SERIES, "recipe", finished(ram_folder / "again"))
    assert results.find(SERIES, "recipe") is not None


def test_a_run_takes_no_place_that_holds_what_another_one_has_made(finished, ram_folder):
    one, other = (ResultsFolder(ram_folder / "out", run) for run in ("one", "other"))
    changed = replace(SERIES, contents="of another disk")
    first = one.place(SERIES, "recipe", finished(ram_folder / "a"))

    second = other.place(changed, "recipe", finished(ram_folder / "b"))

    assert first.result != second.result
    assert one.find(SERIES, "recipe") == first
    assert other.find(changed, "recipe") == second
    # what rests on the same is for everybody, and its time is counted once
    assert first.seconds
    assert other.find(SERIES, "recipe") == replace(first, seconds={})
    again = other.place(changed, "newer", finished(ram_folder / "c"))
    assert again.result == second.result
    assert one.place(SERIES, "newer", finished(ram_folder / "d")).result == first.result
    assert names(ram_folder / "out") == sorted(2 * WHOLE)


def test_two_runs_that_place_one_series_at_once_take_nothing_from_each_other(
    finished, ram_folder, monkeypatch
):
    one, other = (ResultsFolder(ram_folder / "out", run) for run in ("one", "other"))
    between: list[Callable[[], object]] = [
        lambda: other.place(SERIES, "second", finished(ram_folder / "b"))
    ]
    rename = Path.rename

    def beside(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        if between:  # the first has been staged
            between.pop()()
        return renamed

    monkeypatch.setattr(Path, "rename", beside)
    made = one.place(SERIES, "first", finished(ram_folder / "a"))
    assert one.find(SERIES, "first") == made
    assert other.find(SERIES, "second") is not None
    assert names(ram_folder / "out") == sorted(2 * WHOLE)


@pytest.mark.parametrize("has_locks", [True, False])
@pytest.mark.parametrize("call", ["flush", "_move", "rename"])
def test_a_place_that_another_run_takes_at_any_moment_is_left_to_it(
    finished, ram_folder, monkeypatch, call, has_locks
):
    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOLCK, "no locks")))
    one, other = (ResultsFolder(ram_folder / "out", run) for run in ("one", "other"))
    b = finished(ram_folder / "b")
    owner = Path if call == "rename" else results_folder
    known = getattr(owner, call)
    is_first = True

    def beside(*arguments: Path) -> object:
        nonlocal is_first
        if is_first and (call != "rename" or arguments[1].parent.parent == ram_folder / "out"):
            is_first = False
            with suppress(TransientError):  # it is tried again
                other.place(SERIES, "second", b)
        return known(*arguments)

    monkeypatch.setattr(owner, call, beside)
    a = finished(ram_folder / "a")
    with suppress(TransientError):
        one.place(SERIES, "first", a)
    made = one.place(SERIES, "first", a), other.place(SERIES, "second", b)
    assert made == (one.find(SERIES, "first"), other.find(SERIES, "second"))
    assert None not in made
    assert names(ram_folder / "out") == sorted(2 * WHOLE)


def test_a_run_that_waits_for_another_one_is_told_so_and_loses_nothing(finished, ram_folder):
    results = ResultsFolder(ram_folder / "out", "one")
    job = finished(ram_folder / "job")
    with (ram_folder / "out" / ".placing.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="another run"):
            results.place(SERIES, "recipe", job)
    assert results.place(SERIES, "recipe", job) == results.find(SERIES, "recipe")
    assert names(ram_folder / "out") == WHOLE


def test_of_two_runs_that_make_the_same_at_once_the_second_takes_the_firsts_result(
    finished, ram_folder
):
    one, other = (ResultsFolder(ram_folder / "out", run) for run in ("one", "other"))
    job = finished(ram_folder / "b")
    first = one.place(SERIES, "recipe", finished(ram_folder / "a"))
    second = other.place(SERIES, "recipe", job)
    assert second == first  # its seconds were its own, and are as many here
    assert second.seconds
    assert not job.exists()
    assert names(ram_folder / "out") == WHOLE


@pytest.mark.parametrize("is_ended_in_between", [False, True])
def test_a_run_that_takes_anothers_result_leaves_no_older_one_of_its_own(
    finished, ram_folder, monkeypatch, is_ended_in_between
):
    one, other = (ResultsFolder(ram_folder / "out", run) for run in ("one", "other"))
    one.place(SERIES, "old", finished(ram_folder / "a"))
    assert other.place(SERIES, "older", finished(ram_folder / "b")) is not None
    newer = one.place(SERIES, "new", finished(ram_folder / "c"))
    job = finished(ram_folder / "d")
    if is_ended_in_between:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", ended_after(Path.rename, 2))
            with pytest.raises(KeyboardInterrupt):
                other.place(SERIES, "new", job)
    assert other.place(SERIES, "new", job) == newer
    assert names(ram_folder / "out") == WHOLE
    assert one.find(SERIES, "new") == newer


def test_a_run_that_finds_anothers_result_leaves_no_older_one_of_its_own(finished, ram_folder):
    one, other = (ResultsFolder(ram_folder / "out", run) for run in ("one", "other"))
    one.place(SERIES, "old", finished(ram_folder / "a"))
    older = other.place(SERIES, "older", finished(ram_folder / "b"))
    plan = PlanFile(ram_folder / "run", must_exist=False)

    def found(recipe: str) -> Made | None:
        of = Recipe(older.model, older.model_digest, recipe)
        return JobEndings(ram_folder, of, other, SeriesBook(plan)).found(SERIES)

    assert found("older") == older
    assert names(ram_folder / "out") == sorted(2 * WHOLE)
    newer = one.place(SERIES, "new", finished(ram_folder / "c"))
    assert found("new") == replace(newer, seconds={})
    assert names(ram_folder / "out") == WHOLE
    plan.close()


def ended_after(rename: Callable[[Path, Path], Path], calls: int) -> Callable[..., Path]:
    """A rename that ends the run when it was called so often."""
    left = iter(range(calls - 1))

    def ending(path: Path, target: Path) -> Path:
        renamed = rename(path, target)
        if next(left, None) is None:
            raise KeyboardInterrupt
        return renamed

    return ending


def test_of_two_runs_that_make_the_same_of_other_instances_each_keeps_its_own(finished, ram_folder):
    one, other = (ResultsFolder(ram_folder / "out", run) for run in ("one", "other"))
    first = one.place(SERIES, "recipe", finished(ram_folder / "a"))
    report = finished(ram_folder / "b") / "report.json"
    uid = SeriesReport.read(report).stacks[0].outputs[0].sop_instance_uid
    report.write_text(report.read_text().replace(uid, "2.25.1"))  # of a corrected patient
    second = other.place(SERIES, "recipe", ram_folder / "b")
    assert second.result != first.result
    assert names(ram_folder / "out") == sorted(2 * WHOLE)


def test_a_run_that_was_ended_when_its_result_was_staged_leaves_nothing_staged(
    finished, ram_folder
):
    out = ram_folder / "out"
    one, other = (ResultsFolder(out, run) for run in ("one", "other"))
    made = one.place(SERIES, "recipe", finished(ram_folder / "a"))
    (out / ".staging" / "other").mkdir(parents=True)
    finished(out / ".staging" / "other" / Path(made.result).name)

    assert other.place(SERIES, "recipe", ram_folder / "gone") == made

    assert names(out) == WHOLE


def test_another_run_that_puts_a_result_there_for_a_moment_is_waited_for(
    finished, ram_folder, monkeypatch
):
    results = ResultsFolder(ram_folder / "out", "one")
    with (ram_folder / "out" / ".placing.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(
            "pacs_bridge.archive.results_folder.time.sleep",
            lambda _s: fcntl.flock(held, fcntl.LOCK_UN),
        )
        assert results.place(SERIES, "recipe", finished(ram_folder / "job")) is not None
