"""The embedded model's training: it learns, resumes exactly, and its result runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.model_store import ModelStore
from inference.network import NetworkSpec, build_network
from inference.preprocessing import IntensitySpec, Scaling
from inference.segmenter import SegResNetSegmenter
from inference.structures import CLASS_COUNT
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import FieldOfView
from training.case import Case, CaseRecipe
from training.embedded import EmbeddedRun, run_embedded
from training.loop import Plan, TrainingState, train
from training.patches import PatchSource
from training.synthetic_cases import make_cases

SMALL = NetworkSpec(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1), dropout_prob=0.0)
COARSE = CaseRecipe(12.0, IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads cost more than they give on windows this small
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[Case]:
    return make_cases(range(2), COARSE, tmp_path_factory.mktemp("cases"))


def _state(plan: Plan) -> TrainingState:
    torch.manual_seed(0)
    return TrainingState.start(build_network(SMALL), plan)


def test_a_case_is_the_patient_on_the_networks_grid_with_its_place_in_the_body(cases):
    case = cases[0]
    image, labels, spots, frame = case.image(), case.labels(), case.spots(), case.frame()

    assert image.shape == labels.shape
    assert image.dtype == np.int16
    for structure_id, *voxel in spots[::50]:
        assert labels[tuple(voxel)] == structure_id
    liver = spots[spots[:, 0] == 5][:, 1:] @ frame[:, :3].T + frame[:, 3]
    np.testing.assert_allclose(liver.mean(axis=0), [-50, -30, 195], atol=25)  # right, high


def test_a_window_keeps_values_labels_and_place_together(cases):
    patch = PatchSource(cases, seed=4).draw(7, window=24)
    again = PatchSource(cases, seed=4).draw(7, window=24)

    assert patch.image.shape == patch.labels.shape == (24, 24, 24)
    np.testing.assert_array_equal(patch.image, again.image)
    thin = patch.thinned(2)
    np.testing.assert_array_equal(thin.labels, patch.labels[::2, ::2, ::2])
    np.testing.assert_allclose(thin.frame @ [3, 4, 5, 1], patch.frame @ [6, 8, 10, 1])


def test_a_few_steps_lower_the_loss(cases):
    plan = Plan(steps=24, window=16, learning_rate=5e-3, warm_up_steps=3)

    class OneWindow(PatchSource):
        def draw(self, step, window):
            return super().draw(0, window)

    losses = train(_state(plan), OneWindow(cases, 0), plan, log=lambda _: None)

    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(cases, tmp_path):
    plan = Plan(steps=6, window=16, warm_up_steps=2)
    source = PatchSource(cases, 0)
    whole = train(_state(plan), source, plan, log=lambda _: None)

    first = _state(plan)
    stop_early = iter(range(3))

    class Stopped(Exception):
        pass

    class Source(PatchSource):
        def draw(self, step, window):
            if next(stop_early, None) is None:
                raise Stopped
            return super().draw(step, window)

    with pytest.raises(Stopped):
        train(first, Source(cases, 0), plan, log=lambda _: None)
    first.save(tmp_path / "checkpoint.pt")
    second = _state(plan)
    second.load(tmp_path / "checkpoint.pt")
    rest = train(second, source, plan, log=lambda _: None)

    np.testing.assert_allclose(rest, whole[3:], rtol=1e-4)


def test_the_command_leaves_a_model_that_segments(tmp_path: Path):
    run = EmbeddedRun(
        seed=3,
        folder=tmp_path,
        cases=range(1),
        steps=2,
        workers=1,
        recipe=COARSE,
        network=SMALL,
        window=16,
        early_window=16,
    )

    manifest = run_embedded(run, lambda _: None)

    store = ModelStore(tmp_path / "models")
    assert store.verify("synthetic-3mm") == manifest
    assert manifest.demonstration
    assert dict(manifest.training)["steps"] == "2"
    patient = SyntheticPatient.from_seed(1)
    volume, _ = patient.sample(default_geometry(patient, (16, 12, 12), FieldOfView.THORAX))
    labels = SegResNetSegmenter(store.load("synthetic-3mm")).segment(volume)
    assert labels.geometry.matches(volume.geometry)
    assert labels.labels.max() < CLASS_COUNT
