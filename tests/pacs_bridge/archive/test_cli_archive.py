"""The four commands, as a user calls them; those of docs/archives.md among them."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import Volume
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planning import is_complete
from pacs_bridge.cli.main import main

PAGE = Path(__file__).resolve().parents[3] / "docs" / "archives.md"
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


@pytest.fixture
def call(ram_folder, monkeypatch):
    """Run a command within the folder of the test; gives its exit status and what it said."""
    monkeypatch.chdir(ram_folder)

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["archive", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout

    return run


def bright_series(folder: Path, count: int) -> None:
    hu = np.full((10, 16, 16), -1000, dtype=np.int16)
    hu[3:9, 4:12, 4:12] = 700
    volume = Volume(hu, stack(hu.shape, (3.0, 4.0, 3.0)))
    for number in range(count):
        write_ct_series(volume, folder / f"Doe^Jane {number}", SeriesOptions(seed=number + 1))


def test_the_commands_of_the_page_do_what_it_says(ram_folder, tiny_models, tree):
    bright_series(tree.root, 2)
    tree.add("left-out", "few", range(3))
    (ram_folder / "wanted.csv").write_text("SeriesInstanceUID\n1.2.3.4\n")
    commands = [
        shlex.split(line.removeprefix("$ pacs-bridge "))
        for block in _BLOCK.findall(PAGE.read_text())
        for line in block.splitlines()
    ]
    given = {"/data/ct": str(tree.root), "wholebody-3mm": "tiny"}
    environment = {**os.environ, "PACS_BRIDGE_MODELS": str(tiny_models)}
    said = []
    for command in commands:
        words = [given.get(word, word) for word in command]
        result = subprocess.run(
            [sys.executable, "-m", "pacs_bridge", *words],
            cwd=ram_folder, env=environment, text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, (words, result.stderr)
        assert "Doe" not in result.stdout + result.stderr
        said.append(result.stdout)

    assert len(commands) == 6
    assert "2 done" in said[2]
    rows = list(csv.DictReader((ram_folder / "account.csv").read_text().splitlines()))
    assert [row["state"] for row in rows].count("done") == 2
    assert all(float(row["segment_s"]) > 0 for row in rows if row["state"] == "done")
    assert "3 series in all" in said[3]
    assert "2 left-out: not-selected" in said[4]
    assert "1 left-out: source-missing" in said[4]
    table = pq.read_table(ram_folder / "account.parquet")
    assert sorted(table.column("state").to_pylist()) == ["done", "done", "left-out"]
    page = (ram_folder / "account.html").read_text()
    assert "<script" not in page
    assert "http" not in page
    for secret in ("Doe", "SYNTHETIC-0001", rows[0]["series_instance_uid"], str(tree.root)):
        assert secret not in page
    records = [json.loads(path.read_text()) for path in ram_folder.glob("results/??/*/record.json")]
    assert {record["made"]["outputs"] for record in records} == {1}


def test_a_plan_says_how_many_by_reason_as_json(call, tree):
    tree.fill(10)
    status, said = call("plan", "--run", "run", tree.root, "--json", "--quiet", "--processes", 1)
    told = json.loads(said)
    counts = {row["reason"] or "run": row["series"] for row in told["outcomes"]}
    assert (status, counts) == (0, tree.expected)
    assert told["series"] == sum(tree.expected.values())
    status, said = call("plan", "--run", "run", "--json", "--quiet", "--min-slices", 20)
    assert {row["reason"] for row in json.loads(said)["outcomes"]} >= {"too-few-slices"}
    assert json.loads(said)["files_read"] == 0


def test_status_needs_a_plan(call):
    assert call("status", "--run", "nowhere")[0] == 1
    assert call("plan", "--run", "run", "--quiet")[0] == 1
    assert call("plan", "--run", "run", "missing", "--quiet")[0] == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--out", "out", "--between", "nineteen"),
        ("--out", "out", "--rate", "many"),
        ("--out", "out", "--model", "no-such-model"),
        ("--out", "out", "--device", "cuda:7"),
        (),
    ],
)
def test_a_wrong_call_says_so(call, tree, options):
    tree.add("run", "a")
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    assert call("run", "--run", "run", "--quiet", *options)[0] == 2


def test_a_list_that_selects_nothing_and_folders_that_are_read_and_written_are_wrong_calls(
    call, tree, ram_folder, tiny_models
):
    tree.add("run", "a")
    (ram_folder / "list.csv").write_text("SeriesInstanceUID\n")
    plan = ("plan", "--run", "run", "--quiet", "--processes", 1)
    assert call(*plan, tree.root, "--manifest", "list.csv")[0] == 2
    assert call("plan", "--run", tree.root, tree.root, "--quiet")[0] == 2
    assert [path.name for path in tree.root.iterdir()] == ["a"]
    assert call(*plan, tree.root)[0] == 0
    run = ("run", "--run", "run", "--models", tiny_models, "--model", "tiny", "--quiet")
    assert call(*run, "--out", tree.root)[0] == 2
    assert call(*run, "--out", ram_folder)[0] == 2


def test_a_plan_that_is_not_complete_is_not_run(call, tree, ram_folder, tiny_models):
    tree.add("run", "a")
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    plan = PlanFile(ram_folder / "run")
    plan.set("is_complete", False)
    plan.close()
    run = ("run", "--run", "run", "--models", tiny_models, "--model", "tiny", "--quiet")
    assert call(*run, "--out", "out")[0] == 1
    assert not (ram_folder / "out").exists()
    told = json.loads(call("status", "--run", "run", "--json")[1])
    assert not told["is_plan_complete"]


def test_a_service_that_does_not_know_the_files_of_a_plan_is_told_what_to_add(
    call, tree, make_config, ram_folder
):
    tree.add("run", "a")
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    make_config()
    status, _ = call("run", "--run", "run", "--config", "bridge.toml", "--quiet")
    assert status == 2


def test_results_are_put_in_a_folder_of_their_model_alone_and_its_disk_may_be_away(
    call, tree, ram_folder, tiny_models
):
    bright_series(tree.root, 1)
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    run = ("run", "--run", "run", "--models", tiny_models, "--model", "tiny", "--quiet")
    run = (*run, "--kind", "labelmap", "--out")
    other = ram_folder / "other"
    other.mkdir()
    (other / "notes.txt").write_text("of somebody")
    assert call(*run, "other")[0] == 2
    assert [path.name for path in other.iterdir() if path.name[0] != "."] == ["notes.txt"]
    assert call(*run, "out")[0] == 0
    away = (ram_folder / "out").rename(ram_folder / "away")
    (ram_folder / "out").mkdir()  # as it is where nothing is mounted
    assert call(*run, "out")[0] == 2
    assert not any((ram_folder / "out").iterdir())
    (ram_folder / "out").rmdir()
    assert call(*run, "out")[0] == 2
    away.rename(ram_folder / "out")
    assert call(*run, "out")[0] == 0
    assert call(*run, "new")[0] == 0
    assert len(list(ram_folder.glob("new/??/*/record.json"))) == 1


def test_a_call_that_is_refused_plans_nothing_anew(call, tree, ram_folder, tiny_models):
    tree.add("run", "a")
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    plan = PlanFile(ram_folder / "run")
    with plan.write() as connection:
        connection.execute("UPDATE series SET state = 'failed', reason = 'source-missing'")
    run = ("run", "--run", "run", "--models", tiny_models, "--out", "out", "--retry-failed")
    assert call(*run, "--model", "no-such-model", "--quiet")[0] == 2
    assert call(*run, "--model", "tiny", "--device", "cuda:7", "--quiet")[0] == 2
    (ram_folder / "other").mkdir()
    (ram_folder / "other" / "notes.txt").write_text("of somebody")
    assert call(*run, "--model", "tiny", "--quiet", "--out", "other")[0] == 2
    with plan.read() as connection:
        assert [row[0] for row in connection.execute("SELECT state FROM series")] == ["failed"]
    plan.close()


def test_the_account_of_a_run_that_is_not_over_says_so(call, tree):
    tree.fill(10)
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    status, said = call("report", "--run", "run", "--html", "account.html")
    assert (status, "unfinished: 7 series are open" in said) == (0, True)
    assert "This run is not finished" in Path("account.html").read_text()
    told = json.loads(call("report", "--run", "run", "--json")[1])
    assert (told["open"], told["is_finished"]) == (7, False)


def test_options_of_the_model_are_the_same_wherever_they_are():
    commands = [main.commands["segment"], main.commands["archive"].commands["run"]]
    told = [{each.name: each.to_info_dict() for each in command.params} for command in commands]
    names = {"model_name", "models_folder", "kinds", "device", "precision"}
    assert all(told[0][name] == told[1][name] for name in names)


def test_two_processes_do_not_run_one_plan(call, tree, ram_folder):
    tree.add("run", "a")
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    code = (
        "import sys, pathlib; from pacs_bridge.archive.run_log import alone\n"
        "with alone(pathlib.Path('run')): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    try:
        assert call("run", "--run", "run", "--out", "out", "--quiet")[0] == 1
        assert call("plan", "--run", "run", "--quiet")[0] == 1
        assert call("status", "--run", "run")[0] == 0
    finally:
        holder.communicate()


def test_a_run_that_is_told_to_end_finishes_what_it_has_in_hand(ram_folder, tree, tiny_models):
    bright_series(tree.root, 12)
    environment = {**os.environ, "PACS_BRIDGE_MODELS": str(tiny_models)}

    def command(*words: object) -> list[str]:
        return [sys.executable, "-m", "pacs_bridge", "archive", *map(str, words)]

    subprocess.run(
        command("plan", "--run", "run", tree.root, "--quiet"), cwd=ram_folder, check=True
    )
    run = command("run", "--run", "run", "--out", "out", "--model", "tiny", "--kind", "labelmap")
    process = subprocess.Popen(
        run, cwd=ram_folder, env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    process.stderr.readline()  # it has begun
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=120)
    assert (process.returncode, b"Traceback" in said) == (1, False)
    status = subprocess.run(
        command("status", "--run", "run", "--json"), cwd=ram_folder, check=True,
        capture_output=True,
    )  # fmt: skip
    counts = {row["state"]: row["series"] for row in json.loads(status.stdout)["outcomes"]}
    assert counts.get("done", 0) == len(list(ram_folder.glob("out/??/*/report.json")))
    assert counts.keys() <= {"done", "waiting", "planned"}
    assert sum(counts.values()) == 12


def test_a_run_whose_results_cannot_be_placed_says_so_before_it_is_told_to_end(
    ram_folder, tree, tiny_models
):
    bright_series(tree.root, 1)
    archive = [sys.executable, "-m", "pacs_bridge", "archive"]
    plan = [*archive, "plan", "--run", "run", str(tree.root), "--quiet"]
    subprocess.run(plan, cwd=ram_folder, check=True)
    (ram_folder / "out").mkdir()
    words = ["--out", "out", "--model", "tiny", "--kind", "labelmap", "--quiet"]
    with (ram_folder / "out" / ".placing.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = subprocess.Popen(
            [*archive, "run", "--run", "run", *words], cwd=ram_folder, stderr=subprocess.PIPE,
            env={**os.environ, "PACS_BRIDGE_MODELS": str(tiny_models)}, text=True,
        )  # fmt: skip
        said = run.stderr.readline()
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=120)
    assert run.returncode == 1
    assert "another run is putting a result there" in said


@pytest.mark.parametrize("kind", ["dimse", "dicomweb"])
def test_a_plan_that_waits_for_an_archive_ends_when_it_is_told_to(ram_folder, make_config, kind):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        place = {
            "dimse": f'ae_title = "PACS", host = "127.0.0.1", port = {port}',
            "dicomweb": f'url = "http://127.0.0.1:{port}/dicom-web"',
        }
        make_config(sources=f'[{{ name = "pacs", kind = "{kind}", {place[kind]} }}]')
        words = ("--run", "run", "--config", "bridge.toml", "--source", "pacs", "--quiet")
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_bridge", "archive", "plan", *words],
            cwd=ram_folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)  # it has asked
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "plan again" in said
    plan = PlanFile(ram_folder / "run")
    assert not is_complete(plan)
    plan.close()
