"""What makes a result stale, and what only decides whether there is one."""

from __future__ import annotations

import pytest

from inference.model_store import embedded_store
from pacs_bridge.archive.recipe import Recipe, recipe_of


@pytest.fixture
def recipe(make_config):
    """The recipe of the only route of a configuration with changes."""

    def make(**sections: str) -> Recipe:
        config = make_config(**sections)
        return recipe_of(config, config.routes[0], [embedded_store()])

    return make


def test_limits_that_only_select_are_no_part_of_what_a_result_rests_on(recipe):
    usual, other = recipe(), recipe(series="{ min_slices = 20, max_gap_mm = 5.0 }")
    assert usual.digest != other.digest
    assert usual.lasting == other.lasting


@pytest.mark.parametrize(
    "change",
    [
        {"workers": '{ precision = "fp32" }'},
        {"results": '{ series_description = "Other" }'},
        {
            "destinations": '[{ name = "archive", ae_title = "A", host = "h", port = 1,'
            ' kinds = ["labelmap"] }]'
        },
        {
            "routes": '[{ name = "all", model = "synthetic-3mm", destinations = ["archive"],'
            " postprocessing = { smooth_borders = true } }]"
        },
        {
            "routes": '[{ name = "all", model = "synthetic-3mm", destinations = ["archive"],'
            ' structures = ["liver"] }]'
        },
    ],
)
def test_what_changes_a_result_makes_it_stale_and_is_compared_with_a_service(recipe, change):
    usual, other = recipe(), recipe(**change)
    assert usual.lasting != other.lasting
    assert usual.digest != other.digest
    assert usual.settings != other.settings


@pytest.mark.parametrize(
    ("asked", "made", "is_wanted"),
    [
        ("fp32", "bf16", False),
        ("fp32", "fp32", True),
        ("fp32", "", True),
        ("bf16", "fp32", True),  # by a device that lacks it
        ("auto", "bf16", True),
    ],
)
def test_less_precision_than_was_asked_for_is_not_what_is_wanted(asked, made, is_wanted):
    assert Recipe("m", "d", "r", precision=asked).is_made_so(made) is is_wanted
