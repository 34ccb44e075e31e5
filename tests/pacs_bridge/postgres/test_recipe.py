"""What two machines mean by the same names."""

from __future__ import annotations

import pytest
from queue_bench import request_of

from pacs_bridge.postgres.recipe import Recipe, Recipes

REQUEST = request_of(route="all", model="tiny")


@pytest.fixture
def recipe_of(make_config, tmp_path, tiny_models):
    """The recipe of a job by a configuration with changes."""

    def make(**sections: str) -> Recipe:
        models = {"models": f'{{ folder = "{tiny_models}" }}'}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Recipes(make_config(folder, **models | sections)).of(REQUEST)

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
        {"routes": '[{ name = "other", model = "tiny", destinations = ["archive"] }]'},
        {
            "destinations": '[{ name = "archive", ae_title = "A", host = "h", port = 1,'
            ' kinds = ["labelmap"] }]'
        },
        {"results": '{ series_description = "Other" }'},
        {"series": "{ min_slices = 99 }"},
    ],
)
def test_what_decides_a_result_differs_by_its_rules(recipe_of, change):
    assert recipe_of().difference(recipe_of(**change)) == "route, kinds, rules or texts"


def test_other_weights_differ_and_unknown_ones_do_not():
    assert Recipe("", "a" * 64).difference(Recipe("", "b" * 64)) == "weights"
    assert Recipe("", "a" * 64).difference(Recipe()) == ""
