"""Options that would mean nothing are wrong calls, and what is stale is made again when asked."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.volume import Volume
from pacs_bridge.archive.accounts import outcome_counts
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.cli.archive_work import refresh
from pacs_bridge.cli.main import main


@pytest.fixture
def call(ram_folder, monkeypatch):
    """Run a command within the folder of the test; gives its exit status and what it said."""
    monkeypatch.chdir(ram_folder)

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["archive", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


@pytest.fixture
def planned(call, tree):
    """A plan of one series in the folder ``run``."""
    tree.add("run", "a")
    assert call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)[0] == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--model", "no-such-model"),
        ("--models", "."),
        ("--kind", "binary"),
        ("--device", "cuda:9"),
        ("--precision", "fp32"),
        ("--job-timeout", "5"),
        ("--structures", "liver"),
    ],
)
def test_an_option_that_a_service_would_not_follow_is_a_wrong_call(
    call, planned, make_config, monkeypatch, option, value
):
    make_config(sources='[{ name = "old", kind = "plan", folder = "run" }]')
    monkeypatch.setenv("PACS_BRIDGE_CONFIG", "bridge.toml")
    status, said = call("run", "--run", "run", "--quiet", option, value)
    assert (status, option in said) == (2, True)


def test_what_the_environment_says_of_models_is_no_wrong_call(call, tree, make_config, monkeypatch):
    tree.add("too-few-slices", "few", range(3))
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    make_config()
    monkeypatch.setenv("PACS_BRIDGE_MODELS", "elsewhere")
    assert call("run", "--run", "run", "--config", "bridge.toml", "--quiet")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "2020-01-01"),
        ("--to", "2020-01-01"),
        ("--body-part", "CHEST"),
        ("--study-description", "x"),
        ("--series-description", "x"),
    ],
)
def test_a_query_without_an_archive_to_ask_is_a_wrong_call(call, tree, ram_folder, words):
    tree.add("run", "a")
    status, said = call("plan", "--run", "run", tree.root, "--quiet", *words)
    assert (status, words[0] in said) == (2, True)
    assert not (ram_folder / "run").exists()


def test_structures_that_there_are_not_are_a_wrong_call(call, planned, tiny_models):
    words = ("--out", "out", "--models", tiny_models, "--model", "tiny", "--structures")
    assert call("run", "--run", "run", "--quiet", *words, "elbow")[0] == 2
    assert call("run", "--run", "run", "--quiet", *words, ",")[0] == 2


def test_a_title_without_a_page_and_a_route_without_a_configuration_are_wrong_calls(call, planned):
    assert call("report", "--run", "run", "--title", "x")[0] == 2
    assert call("run", "--run", "run", "--out", "out", "--route", "all", "--quiet")[0] == 2


def test_a_route_that_is_not_there_is_a_wrong_call_in_a_run_of_its_own(call, planned, make_config):
    make_config()
    words = ("--out", "out", "--config", "bridge.toml", "--route", "other", "--quiet")
    assert call("run", "--run", "run", *words)[0] == 2


def bright_series(folder: Path) -> None:
    hu = np.full((12, 16, 16), -1000, dtype=np.int16)
    hu[3:9, 4:12, 4:12] = 700
    write_ct_series(Volume(hu, stack(hu.shape, (3.0, 4.0, 3.0))), folder, SeriesOptions(seed=1))


@pytest.mark.parametrize("is_wanted", [False, True])
def test_what_was_refused_is_run_again_where_that_is_asked_for(planned, ram_folder, is_wanted):
    plan = PlanFile(ram_folder / "run")
    with plan.write() as connection:
        connection.execute(
            "UPDATE series SET state = 'refused', done_contents = contents, done_recipe = 'today'"
        )
    options = {"retry_failed": True, "redo_stale": False, "retry_refused": is_wanted}
    refresh(plan, Recipe("m", "d" * 64, "today"), options)
    (count,) = outcome_counts(plan)
    assert count.state == ("planned" if is_wanted else "refused")
    plan.close()


@pytest.mark.parametrize("redo_stale", [False, True])
def test_how_many_results_are_stale_is_said_and_they_are_made_again_when_asked_for(
    planned, ram_folder, capsys, redo_stale
):
    plan = PlanFile(ram_folder / "run")
    with plan.write() as connection:
        connection.execute(
            "UPDATE series SET state = 'done', done_contents = contents, done_recipe = 'before'"
        )
    recipe = Recipe("m", "d" * 64, "today", lasting="rests on this")
    refresh(plan, recipe, {"retry_failed": False, "redo_stale": redo_stale})
    said = capsys.readouterr().err
    assert "1 results are stale (0 by their files, 1 by model or settings)" in said
    assert ("made again" in said, "--redo-stale" in said) == (redo_stale, not redo_stale)
    (count,) = outcome_counts(plan)
    assert count.state == ("planned" if redo_stale else "done")
    plan.close()


def test_a_run_of_its_own_is_as_the_configuration_has_it_and_other_limits_make_nothing_stale(
    call, tree, ram_folder, tiny_models, make_config
):
    bright_series(tree.root)
    make_config(
        models=f'{{ folder = "{tiny_models}" }}',
        workers='{ devices = ["cuda:9"], precision = "fp32" }',
        results='{ series_description = "Of the site" }',
        destinations='[{ name = "archive", ae_title = "A", host = "h", port = 1,'
        ' kinds = ["labelmap"] }]',
        routes='[{ name = "all", model = "tiny", destinations = ["archive"],'
        ' structures = ["spleen", "ribs"], postprocessing = { smooth_borders = true } }]',
    )
    run = ("run", "--run", "run", "--out", "out", "--config", "bridge.toml", "--route", "all")
    call("plan", "--run", "run", tree.root, "--quiet", "--processes", 1)
    assert call(*run, "--quiet")[0] == 2  # no such card
    assert call(*run, "--quiet", "--device", "auto")[0] == 0

    (path,) = ram_folder.glob("out/??/*/*.dcm")
    assert (path.name, dcmread(path).SeriesDescription) == ("seg-labelmap.dcm", "Of the site")
    model = json.loads(path.with_name("report.json").read_text())["model"]
    assert (model["name"], model["parameters"]["precision"]) == ("tiny", "fp32")
    assert "smooth" in json.dumps(model["parameters"])
    assert set(model["parameters"]["structures"].split()) > {"spleen"}

    call("plan", "--run", "run", "--quiet", "--processes", 1, "--min-slices", 11)
    assert call(*run, "--quiet", "--redo-stale", "--device", "cpu")[0] == 0
    words = ("report", "--run", "run", "--cost-an-hour", 3600)
    told = json.loads(call(*words, "--json")[1])
    assert (told["stale"], len(told["runs"])) == (0, 2)
    assert (told["models"][0][0], told["models"][0][2:]) == ("tiny", ["fp32", 1])
    assert path.stat().st_mtime < datetime.fromisoformat(told["runs"][1]["started_at"]).timestamp()
    assert told["cost"]["stages"]["segment"] == pytest.approx(told["seconds"]["segment"])
    assert told["cost"]["machine"] == pytest.approx(told["run_seconds"])
    assert ", cost " in call(*words)[1]
