"""Plans from lists, and plans that are ended and begun again."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from pathlib import Path

import pytest

from dicom_seg.read.examination import SeriesRules
from inference.reasons import Reason
from pacs_bridge.archive import planning
from pacs_bridge.archive.accounts import outcome_counts
from pacs_bridge.archive.manifest import UnusableListError, read_manifest
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planner import Planner
from pacs_bridge.archive.planning import (
    PlanInputs,
    WrongFolderError,
    check_complete,
    make_plan,
    rules_of,
)
from pacs_bridge.errors import PermanentError, TransientError


@pytest.fixture
def planned(ram_folder):
    """Plan, and give the series by reason."""

    def run(*paths: Path, manifest: str = "") -> dict[str, int]:
        listed = None
        if manifest:
            listed = ram_folder / "list.csv"
            listed.write_text(manifest)
        inputs = PlanInputs(paths=paths, manifest=listed, processes=1)
        make_plan(ram_folder / "run", inputs, SeriesRules(), lambda *_: None)
        plan = PlanFile(ram_folder / "run")
        counts = {count.reason or "run": count.series for count in outcome_counts(plan)}
        plan.close()
        return counts

    return run


def uid(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.1.{100_000_000 + number}"


def test_only_listed_series_run_and_unknown_ones_are_coded(tree, planned):
    for number in range(3):
        tree.add("run", f"s{number}")
    wanted = f"PatientName,SeriesInstanceUID\nx,{uid(1)}\nx,{uid(2)}\nx,1.2.3.404\n"
    assert planned(tree.root, manifest=wanted) == {
        "run": 2, "not-selected": 1, "source-missing": 1,
    }  # fmt: skip
    assert planned() == {"run": 2, "not-selected": 1, "source-missing": 1}
    other = f"{uid(3)}\n{uid(1)}\n"
    assert planned(manifest=other) == {"run": 2, "not-selected": 1}


def test_what_another_list_has_named_and_was_nowhere_is_in_the_account_no_more(tree, planned):
    tree.add("run", "a")
    assert planned(tree.root, manifest=f"{uid(1)}\n1.2.3.404\n") == {"run": 1, "source-missing": 1}
    assert planned(manifest=f"{uid(1)}\n1.2.3.405\n1.2.3.406\n") == {
        "run": 1, "source-missing": 2,
    }  # fmt: skip
    assert planned(manifest=f"{uid(1)}\n") == {"run": 1}


def test_a_list_may_name_folders_and_files(tree, planned, ram_folder):
    tree.add("run", "a")
    tree.add("run", "b")
    tree.add("run", "c")
    one = next((tree.root / "c").iterdir()).relative_to(ram_folder)
    assert planned(manifest=f"path\narchive/a\narchive/b\n{one}\n") == {
        "run": 2, "too-few-slices": 1,
    }  # fmt: skip


def test_where_the_paths_of_a_list_lie_takes_work_that_grows_as_the_list_does(ram_folder):
    def calls_for(count: int) -> int:
        """Calls of functions that finding the roots of so many folders takes."""
        folders = [ram_folder / f"{count}" / f"{number}" for number in range(count)]
        for folder in folders:
            folder.mkdir(parents=True)
        within = [folders[0] / "a", folders[-1] / "b"]
        for folder in within:
            folder.mkdir()
        plan = PlanFile(ram_folder / f"run-{count}", must_exist=False)
        calls = 0

        def count_call(_frame: object, event: str, _argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count_call)
        try:
            roots = planning._roots(plan, (), [*folders, *within])
        finally:
            sys.setprofile(None)
            plan.close()
        assert roots == folders
        return calls

    assert calls_for(200) < 15 * calls_for(20)


def test_a_path_of_a_list_that_is_not_there_is_counted_and_found_when_it_comes(
    tree, planned, ram_folder
):
    tree.add("run", "a")
    listed = "path\narchive/a\narchive/later\n"
    for _ in range(2):
        assert planned(manifest=listed) == {"run": 1, "source-missing": 1}
    plan = PlanFile(ram_folder / "run")
    with plan.read() as connection:
        rows = connection.execute("SELECT detail FROM folders WHERE reason IS NOT NULL").fetchall()
    plan.close()
    assert [row[0] for row in rows] == ["No such file or directory"]
    tree.add("run", "later")
    assert planned() == {"run": 2}


def test_an_input_that_is_not_there_is_refused_without_its_name(tree, planned):
    with pytest.raises(PermanentError) as caught:
        planned(tree.root, tree.root / "Doe^Jane")
    assert caught.value.reason is Reason.SOURCE_MISSING
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "series", "paths", "problems"),
    [
        ("1.2.3\n1.2.4\n1.2.3\n", ["1.2.3", "1.2.4"], [], ()),
        ("\ufeffStudyInstanceUID;SeriesInstanceUID\n9.9;1.2.3\n9.9;\n", ["1.2.3"], [], (3,)),
        ("# made by hand\n\nfolder one\n1.2.3\n", ["1.2.3"], ["folder one"], ()),
        ("path\tnote\na b\tx\n", [], ["a b"], ()),
        ("SeriesInstanceUID\nnot-a-uid\n", [], [], (2,)),
        ("", [], [], ()),
    ],
)
def test_lists_are_read_as_people_write_them(tmp_path, text, series, paths, problems):
    (tmp_path / "folder one").mkdir()
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    found = read_manifest(path)
    assert list(found.series) == series
    assert [each.name for each in found.paths] == paths
    assert found.problems == problems


@pytest.mark.parametrize(
    "text",
    ["SeriesInstanceUID\n", "SeriesInstanceUID\n1.2E+10\n1.2.3\n", "Name;SerUID\nDoe;1.2.3\n",
     "StudyInstanceUID\n1.2.3\n", "SeriesInstanceUID\n\"=\"\"1.2.3\"\"\"\n", ""],
)  # fmt: skip
def test_a_list_that_does_not_say_what_it_selects_plans_nothing(tree, planned, ram_folder, text):
    tree.add("run", "a")
    (ram_folder / "empty.csv").write_text(text)
    inputs = PlanInputs(paths=(tree.root,), manifest=ram_folder / "empty.csv", processes=1)
    with pytest.raises(UnusableListError) as caught:
        make_plan(ram_folder / "run", inputs, SeriesRules(), lambda *_: None)
    assert "Doe" not in str(caught.value)
    assert not (ram_folder / "run").exists()


def test_a_list_of_paths_restricts_what_is_planned_of_a_folder(tree, planned, ram_folder):
    for name in "abc":
        tree.add("run", name)
    assert planned(tree.root, manifest="path\narchive/a\n") == {"run": 1, "not-selected": 2}
    one = next((tree.root / "c").iterdir()).relative_to(ram_folder)
    assert planned(manifest=f"path\narchive/b\n{one}\n") == {"run": 2, "not-selected": 1}


def test_the_folder_of_the_run_and_that_of_its_results_are_not_planned(tree, ram_folder):
    tree.add("run", "a")
    with pytest.raises(WrongFolderError):
        make_plan(tree.root, PlanInputs(paths=(tree.root / "a",)), SeriesRules(), lambda *_: None)


def test_a_plan_that_was_ended_is_not_complete(tree, planned, ram_folder):
    tree.add("run", "a")

    def end(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_plan(ram_folder / "run", PlanInputs(paths=(tree.root,)), SeriesRules(), end)
    plan = PlanFile(ram_folder / "run")
    with pytest.raises(PermanentError):
        check_complete(plan)
    planned()
    check_complete(plan)
    plan.close()


def test_processes_that_read_end_with_the_planner(ram_folder, wait_for):
    script = (
        "import os, signal, sys\n"
        "from pacs_bridge.archive.pool import header_readers\n"
        "if __name__ == '__main__':\n"
        "    with header_readers(1) as readers:\n"
        "        print(readers.submit(os.getpid).result(), flush=True)\n"
        "        signal.pause()\n"
    )
    path = ram_folder / "planner.py"
    path.write_text(script)
    process = subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True)
    reader = Path("/proc") / process.stdout.readline().strip()
    server = Path("/proc") / reader.joinpath("stat").read_text().rpartition(")")[2].split()[1]
    process.kill()
    process.wait()
    process.stdout.close()
    wait_for(lambda: not is_alive(reader) and not is_alive(server))


def is_alive(process: Path) -> bool:
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_list_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(PermanentError):
        read_manifest(path)


def test_a_plan_that_was_killed_goes_on_where_it_was(tree, ram_folder, wait_for):
    tree.fill(120)
    command = [sys.executable, "-m", "pacs_bridge", "archive", "plan", "--run", "run", "--json"]
    command += ["--quiet", "--processes", "1"]
    process = subprocess.Popen(
        [*command, str(tree.root)], cwd=ram_folder, stdout=subprocess.DEVNULL
    )
    known = ram_folder / "run" / "plan.sqlite"

    def has_begun() -> bool:
        if not known.exists() or process.poll() is not None:
            return process.poll() is not None
        plan = PlanFile(ram_folder / "run")
        with plan.read() as connection:
            count = connection.execute("SELECT count(*) FROM files").fetchone()[0]
        plan.close()
        return bool(count)

    wait_for(has_begun)
    process.kill()
    process.wait()
    done = subprocess.run(
        [*command, str(tree.root)], cwd=ram_folder, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    counts = {row["reason"] or "run": row["series"] for row in told["outcomes"]}
    assert counts == tree.expected
    assert told["files_read"] < told["files_met"]


def test_a_reader_that_is_ended_ends_the_plan_with_a_code_and_what_was_read_stays(
    tree, planned, ram_folder
):
    tree.fill(10)
    plan = PlanFile(ram_folder / "run", must_exist=False)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        ended = executor.submit(os._exit, 1)
        with pytest.raises(BrokenExecutor):
            ended.result()
        planner = Planner(plan, SeriesRules(), b"key", executor)
        with pytest.raises((TransientError, BrokenExecutor)) as caught:
            planner.take_in([tree.root])
    assert caught.type is TransientError
    assert planned(tree.root) == tree.expected


def test_limits_stay_those_of_the_last_call_where_none_are_given(tree, ram_folder):
    tree.add("run", "a", range(12))
    run = ram_folder / "run"

    def planned(rules: SeriesRules | None = None, min_slices: int | None = None) -> SeriesRules:
        inputs = PlanInputs(paths=(tree.root,), processes=1, min_slices=min_slices)
        make_plan(run, inputs, rules, lambda *_: None)
        plan = PlanFile(run)
        found = rules_of(plan)
        plan.close()
        return found

    assert planned() == SeriesRules()
    assert planned(min_slices=20).min_slices == 20
    assert planned().min_slices == 20
    assert planned(SeriesRules(max_gap_mm=4.0)) == SeriesRules(min_slices=20, max_gap_mm=4.0)
    assert planned(min_slices=11) == SeriesRules(min_slices=11, max_gap_mm=4.0)
    assert planned(SeriesRules()) == SeriesRules(min_slices=11)


def test_a_listed_file_that_is_gone_from_a_folder_that_is_there_is_counted(tree, planned):
    tree.add("run", "a")
    here = sorted((tree.root / "a").iterdir())[0].name
    listed = f"path\narchive/a/{here}\narchive/a/gone\n"
    assert planned(manifest=listed) == {"too-few-slices": 1, "source-missing": 1}
    assert planned(manifest=f"path\narchive/a/{here}\n") == {"too-few-slices": 1}


def test_a_series_that_a_list_names_in_another_study_than_its_files_does_not_run(tree, planned):
    tree.add("run", "a")
    tree.add("run", "b")
    study = uid(2).replace(".498.1.", ".498.2.")
    wanted = "SeriesInstanceUID,StudyInstanceUID\n"
    listed = f"{wanted}{uid(1)},1.2.3\n{uid(2)},{study}\n"
    assert planned(tree.root, manifest=listed) == {"run": 1, "source-missing": 1}
    assert planned(manifest=f"{wanted}{uid(1)},\n{uid(2)},{study}\n") == {"run": 2}
