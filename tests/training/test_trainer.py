"""A training run: it learns, it is the same again, and its result runs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.model_store import ModelStore
from inference.network import NetworkSpec, build_network
from inference.preprocessing import IntensitySpec, Scaling
from inference.reasons import Reason
from training.case import Case, CaseRecipe
from training.checkpoint import read_checkpoint, save_checkpoint
from training.errors import TrainingError
from training.export import ModelDetails, export_model
from training.history import History, ValidationRow
from training.patches import PatchSource
from training.plan import Plan
from training.state import TrainingState
from training.synthetic_cases import make_cases
from training.trainer import TrainingRun, run_training
from training.update import Arithmetic, update

SMALL = NetworkSpec(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1), dropout_prob=0.0)
COARSE = CaseRecipe(12.0, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads cost more than they give on windows this small
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> tuple[Case, ...]:
    return tuple(make_cases(range(2), COARSE, tmp_path_factory.mktemp("cases")))


@pytest.fixture
def make_run(cases, tmp_path):
    def make(plan: Plan, **changes) -> TrainingRun:
        run = TrainingRun(cases, (), COARSE, SMALL, plan, tmp_path / "run", seed=3, device="cpu")
        return dataclasses.replace(run, **changes)

    return make


def _quiet(_line: str) -> None:
    pass


def test_the_recipe_of_the_embedded_model_keeps_its_numbers(make_run):
    # Computed by the code that trained the embedded model; bfloat16 keeps 8 bits, and other
    # processors add up in another order.
    plan = Plan(steps=8, window=24, early_window=16, early_share=0.5, warm_up_steps=2)

    losses = run_training(make_run(plan), _quiet).losses

    np.testing.assert_allclose(
        losses,
        [6.481037, 6.425543, 6.043073, 6.377395, 6.071833, 6.827757, 6.330378, 6.711804],
        rtol=2e-3,
    )


def test_a_run_learns_and_shows_it(make_run, cases):
    plan = Plan(steps=30, window=16, learning_rate=5e-3, warm_up_steps=3, validation_steps=15)

    result = run_training(make_run(plan, validation=cases[:1]), _quiet)

    assert np.mean(result.losses[-6:]) < 0.9 * np.mean(result.losses[:6])
    folder = result.checkpoint.parent
    assert result.best == folder / "best.pt"
    assert result.validation is not None
    rows = (folder / "validations.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "15", "30"]
    for name in ("curves.png", "pictures/first_window.png", "pictures/case_00000_0000030.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").glob("events*"))


def test_a_model_tells_the_dice_of_its_own_weights_from_that_of_others(make_run, cases, tmp_path):
    plan = Plan(steps=3, window=16, validation_steps=2, checkpoint_steps=3)
    run = make_run(plan, validation=cases[:1])
    run_training(run, _quiet)
    state = TrainingState.start(build_network(SMALL), plan)
    read_checkpoint(run.folder / "checkpoint.pt").restore(state, run.record())
    state.best, state.judged = ValidationRow(2, 0.8, 0.9, 3), ValidationRow(3, 0.1, 0.2, 3)
    save_checkpoint(state, run.record(), tmp_path / "own.pt")
    state.step = 4
    save_checkpoint(state, run.record(), tmp_path / "later.pt")
    store = ModelStore(tmp_path / "store")

    def metrics(name: str) -> str:
        details = ModelDetails(name=name, source="a test", licence="none", intended_use="tests")
        exported = export_model(tmp_path / f"{name}.pt", details, store)
        return dict(exported.training)["metrics"]

    best = "; best of the run: 0.9000, of step 2, not these weights"
    dice = "validation mean Dice, 5 ml and more: 0.2000, of "
    assert metrics("own") == f"{dice}these weights{best}"
    assert metrics("later") == f"{dice}step 3, not these weights{best}"


def test_where_no_structure_has_5_ml_validations_are_ranked_by_all(make_run, cases):
    plan = Plan(steps=4, window=16, validation_steps=1, checkpoint_steps=4)
    fine = dataclasses.replace(COARSE, spacing_mm=0.01)  # volumes of the same voxels: no ml
    run = make_run(plan, validation=cases[:1], recipe=fine)

    result = run_training(run, _quiet)

    rows = History(run.folder).validations()
    assert [row.mean_dice_5ml for row in rows] == [None] * 4
    best = max(rows, key=lambda row: (row.mean_dice, row.step))
    assert read_checkpoint(run.folder / "best.pt").step == best.step
    assert result.validation is not None
    assert "all structures" in result.validation.measure


def test_a_folder_with_a_checkpoint_is_not_trained_over(make_run):
    run = make_run(Plan(steps=1, window=16))
    run_training(run, _quiet)

    with pytest.raises(TrainingError) as caught:
        run_training(run, _quiet)

    assert caught.value.reason is Reason.CHECKPOINT


def test_a_checkpoint_of_another_run_is_refused(make_run):
    run_training(make_run(Plan(steps=1, window=16)), _quiet)

    with pytest.raises(TrainingError, match="plan, seed differ") as caught:
        run_training(make_run(Plan(steps=2, window=16), seed=4, resume=True), _quiet)

    assert caught.value.reason is Reason.CHECKPOINT


def test_a_run_does_not_go_on_with_other_data_under_the_same_names(make_run, cases, tmp_path):
    run_training(make_run(Plan(steps=1, window=16)), _quiet)
    changed = [
        Case(Path(shutil.copytree(case.folder, tmp_path / "moved" / case.folder.name)))
        for case in cases
    ]
    again = make_run(Plan(steps=1, window=16), cases=tuple(changed), resume=True)
    run_training(again, _quiet)  # elsewhere, but the same
    labels = np.array(changed[0].labels())
    labels[labels == labels.max()] = 1
    np.save(changed[0].folder / "labels.npy", labels)

    with pytest.raises(TrainingError, match="data"):
        run_training(again, _quiet)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_checkpoint(make_run):
    wild = make_run(
        Plan(steps=6, window=16, checkpoint_steps=1, learning_rate=1e30, warm_up_steps=1)
    )

    with pytest.raises(TrainingError) as caught:
        run_training(wild, _quiet)

    assert caught.value.reason is Reason.TRAINING_DIVERGED
    assert 1 <= read_checkpoint(wild.folder / "checkpoint.pt").step < 6


def test_a_step_that_is_no_number_changes_no_weight(cases):
    plan = Plan(steps=6, window=16)
    torch.manual_seed(0)
    state = TrainingState.start(build_network(SMALL), plan)
    before = [p.clone() for p in state.network.parameters()]
    patch = PatchSource(cases, 0, plan).draw(0, 16)
    patch.image[8, 8, 8] = np.nan

    with pytest.raises(TrainingError):
        update(state, [patch], plan, Arithmetic())

    assert all(torch.equal(a, b) for a, b in zip(before, state.network.parameters(), strict=True))
