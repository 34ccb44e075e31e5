"""A process that goes on for one that died does what was called, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_model import TINY

from dicom_seg.read.examination import SeriesRules
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.model_store import ModelStore
from inference.network import build_network
from inference.volume import Volume
from pacs_bridge.archive.accounts import open_series, series_lines
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planning import PlanInputs, make_plan
from pacs_bridge.archive.run_log import RunClock
from pacs_bridge.archive.window import Pace
from pacs_bridge.archive.work_process import keep_working
from pacs_bridge.cli.archive_own import OwnCall, OwnOrder, checked, work
from pacs_bridge.clock import SystemClock
from pacs_bridge.time_limit import EX_SOFTWARE


@pytest.fixture
def plan(tree, ram_folder) -> Iterator[PlanFile]:
    """A plan of one series, which failed before."""
    hu = np.full((10, 16, 16), -1000, dtype=np.int16)
    hu[3:9, 4:12, 4:12] = 700
    folder = tree.root / "bright"
    write_ct_series(Volume(hu, stack(hu.shape, (3.0, 4.0, 3.0))), folder, SeriesOptions(seed=1))
    inputs = PlanInputs((tree.root,), processes=1)
    make_plan(ram_folder / "run", inputs, SeriesRules(), lambda *_: None)
    plan = PlanFile(ram_folder / "run")
    with plan.write() as connection:
        connection.execute("UPDATE series SET state = 'failed', reason = 'source-missing'")
    yield plan
    plan.close()


@pytest.fixture
def order_of(plan, ram_folder) -> Callable[[Path], OwnOrder]:
    """A call that is to run again what failed, with the model that is preferred of a store."""

    def order(models_folder: Path) -> OwnOrder:
        options = {
            "out_folder": ram_folder / "out",
            "config_path": None,
            "route": None,
            "models_folder": models_folder,
            "model_name": None,
            "kinds": ("labelmap",),
            "device": "cpu",
            "precision": "auto",
            "job_timeout_s": None,
            "structures": None,
            "given": frozenset(),
            "redo_stale": False,
            "retry_failed": True,
            "retry_refused": False,
        }
        return checked(OwnCall(ram_folder / "run", options, Pace(None, None), False, True))

    return order


def add_model(store: Path, name: str) -> None:
    """The network's smallest form, with random weights."""
    weights = build_network(TINY.network).state_dict()
    ModelStore(store).add(replace(TINY, name=name), weights)


def test_who_dies_while_the_model_loads_takes_neither_model_nor_retry_along(
    works, leaving, plan, order_of, ram_folder
):
    models = ram_folder / "models"
    add_model(models, "wholebody-3mm")
    add_model(ram_folder / "better", "wholebody-1.5mm")
    order, deaths = order_of(models), []
    better = ram_folder / "better" / "wholebody-1.5mm"
    dying = partial(works.die_when_the_model_loads, better, models, order)

    status = keep_working(dying, leaving, lambda: open_series(plan), deaths.append)

    assert (status, deaths) == (0, [EX_SOFTWARE])
    (line,) = series_lines(plan)
    assert (line.state, line.model) == ("done", "wholebody-3mm")
    assert ModelStore(models).names() == ("wholebody-1.5mm", "wholebody-3mm")


def test_what_failed_when_the_call_had_worked_already_has_had_its_turn(
    leaving, plan, order_of, ram_folder
):
    add_model(ram_folder / "models", "wholebody-3mm")
    order = order_of(ram_folder / "models")
    RunClock(plan, order.recipe, SystemClock(), is_own=True)
    assert work(order, leaving) == 0
    (line,) = series_lines(plan)
    assert line.state == "failed"


def test_results_are_looked_for_once_a_call_and_not_by_each_process_of_it(
    leaving, plan, order_of, ram_folder
):
    add_model(ram_folder / "models", "wholebody-3mm")
    order = order_of(ram_folder / "models")
    RunClock(plan, order.recipe, SystemClock(), is_own=True)
    with plan.write() as connection:
        made = json.dumps({"result": "ab/abcd"})
        connection.execute("UPDATE series SET state = 'done', reason = NULL, made = ?", (made,))
    assert work(order, leaving) == 0
    assert list((ram_folder / "out").glob("??/*")) == []
