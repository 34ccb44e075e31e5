"""The embedded model's training: it learns, resumes exactly, and its result runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from inference.model_store import ModelStore
from inference.network import NetworkSpec
from inference.preprocessing import IntensitySpec, Scaling
from inference.segmenter import SegResNetSegmenter
from inference.structures import CLASS_COUNT
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.synthetic.traits import FieldOfView
from training.case import Case, CaseRecipe
from training.embedded import EmbeddedRun, run_embedded
from training.patches import PatchSource
from training.plan import Plan
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
    patch = PatchSource(cases, 4, Plan(steps=9)).draw(7, window=24)
    again = PatchSource(cases, 4, Plan(steps=9)).draw(7, window=24)

    assert patch.image.shape == patch.labels.shape == (24, 24, 24)
    np.testing.assert_array_equal(patch.image, again.image)
    np.testing.assert_array_equal(patch.labels, again.labels)
    np.testing.assert_array_equal(patch.frame, again.frame)


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
    assert dict(manifest.training)["steps"] == "2 of 2"
    patient = SyntheticPatient.from_seed(1)
    volume, _ = patient.sample(default_geometry(patient, (16, 12, 12), FieldOfView.THORAX))
    labels = SegResNetSegmenter(store.load("synthetic-3mm")).segment(volume)
    assert labels.geometry.matches(volume.geometry)
    assert labels.labels.max() < CLASS_COUNT
