"""What two machines mean by the same names."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from queue_bench import request_of
from tiny_model import TINY

from inference.model_store import ModelStore
from inference.network import build_network
from pacs_bridge.postgres import recipe
from pacs_bridge.postgres.recipe import Recipe, Recipes
from pacs_bridge.queue import JobRequest

REQUEST = request_of(route="all", model="tiny")


@pytest.fixture
def recipe_of(make_config, tmp_path, tiny_models):
    """The recipe of a job by a configuration with changes."""

    def make(request: JobRequest = REQUEST, **sections: str) -> Recipe:
        models = {"models": f'{{ folder = "{tiny_models}" }}'}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Recipes(make_config(folder, **models | sections)).of(request)

    return make


def test_the_same_configuration_in_another_place_is_the_same_recipe(recipe_of):
    assert recipe_of().rules
    assert recipe_of().weights
    assert recipe_of().difference(recipe_of()) == ""


@pytest.mark.parametrize(
    "change",
    [
        {
            "routes": '[{ name = "all", model = "tiny", destinations = ["archive"],'
            " postprocessing = { smooth_borders = true } }]"
        },
        {
            "routes": '[{ name = "all", model = "tiny", destinations = ["archive"],'
            ' structures = ["liver"] }]'
        },
        {"routes": '[{ name = "other", model = "tiny", destinations = ["archive"] }]'},
        {
            "destinations": '[{ name = "archive", ae_title = "A", host = "h", port = 1,'
            ' kinds = ["labelmap"] }]'
        },
        {"results": '{ series_description = "Other" }'},
        {"series": "{ min_slices = 99 }"},
        {"workers": '{ precision = "fp32" }'},
    ],
)
def test_what_decides_a_result_differs_by_its_rules(recipe_of, change):
    assert recipe_of().difference(recipe_of(**change)) == (
        "route, kinds, rules, texts, source, precision or release"
    )


def asked(url: str, more: str = "") -> str:
    return f'[{{ name = "pacs", kind = "dicomweb", url = "{url}"{more} }}]'


@pytest.mark.parametrize(
    "elsewhere",
    [
        "[]",
        asked("https://other.example/dicom"),
        '[{ name = "pacs", kind = "dimse", ae_title = "A", host = "h", port = 104 }]',
        '[{ name = "pacs", kind = "plan", folder = "run" }]',
    ],
)
def test_a_worker_that_lacks_the_source_of_a_job_or_means_another_archive_by_it_differs(
    recipe_of, elsewhere
):
    request = request_of(route="all", model="tiny", source="pacs")
    here = recipe_of(request, sources=asked("https://pacs.example/dicom"))

    assert here.difference(recipe_of(request, sources=elsewhere))
    same = asked("https://pacs.example/dicom/", ", page_size = 7")
    assert here.difference(recipe_of(request, sources=same)) == ""


def test_sources_that_a_job_does_not_name_are_no_difference(recipe_of):
    here = recipe_of(sources=asked("https://pacs.example/dicom"))

    assert here.difference(recipe_of()) == ""


def test_a_worker_needs_no_source_for_files_that_the_ticket_lists(recipe_of):
    request = request_of(route="all", model="tiny", source="old")
    here = recipe_of(request, sources='[{ name = "old", kind = "plan", folder = "run" }]')

    assert here.difference(recipe_of(request)) == ""


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory):
    """Two model stores with one fine model, and a coarse one of other weights."""
    weights = build_network(TINY.network).state_dict()
    other = {name: tensor + 1 for name, tensor in weights.items()}
    fine = replace(TINY, name="fine", spacing_mm=1.5, demonstration=False)
    folders = [tmp_path_factory.mktemp(name) for name in ("here", "there")]
    for folder, coarse in zip(folders, (weights, other), strict=True):
        ModelStore(folder).add(fine, weights)
        ModelStore(folder).add(replace(fine, name="coarse", spacing_mm=3.0), coarse)
    return folders


@pytest.mark.parametrize(
    ("structures", "difference"), [("", ""), (', structures = ["liver"]', "weights")]
)
def test_where_structures_are_wanted_the_model_that_finds_them_counts(
    recipe_of, two_stores, structures, difference
):
    request = request_of(route="all", model="fine")
    route = f'[{{ name = "all", model = "fine", destinations = ["archive"]{structures} }}]'
    here, there = (
        recipe_of(request, routes=route, models=f'{{ folder = "{folder}" }}')
        for folder in two_stores
    )

    assert here.rules == there.rules
    assert here.difference(there) == difference


def test_a_damaged_model_makes_the_weights_of_others_no_secret(recipe_of, two_stores, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(two_stores[0], folder)
    (folder / "another").mkdir()
    (folder / "another" / "manifest.json").write_text("{")
    request = request_of(route="all", model="fine")
    route = '[{ name = "all", model = "fine", destinations = ["archive"], structures = ["liver"] }]'

    here, there = (
        recipe_of(request, routes=route, models=f'{{ folder = "{each}" }}').weights
        for each in (folder, two_stores[0])
    )

    assert here == there != ""


def test_other_weights_differ_and_unknown_ones_do_not():
    assert Recipe("", "a" * 64).difference(Recipe("", "b" * 64)) == "weights"
    assert Recipe("", "a" * 64).difference(Recipe()) == ""


def test_another_release_leaves_the_job_to_the_one_of_its_bridge(recipe_of, monkeypatch):
    here = recipe_of()
    monkeypatch.setattr(recipe, "software_version", lambda: "99.0")

    assert "release" in here.difference(recipe_of())
