"""The page of an account says first whether it is the last one."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pacs_bridge.archive.accounts import account_of
from pacs_bridge.archive.report_page import PageText, page


@pytest.fixture
def shown(tree, plan_of):
    """The page of three series, in these states."""
    for number in range(3):
        tree.add("run", f"s{number}")
    plan = plan_of(tree.root).plan

    def make(*states: str, is_complete: bool = True) -> str:
        plan.set("is_complete", is_complete)
        with plan.write() as connection:
            for number, state in enumerate(states, 1):
                connection.execute("UPDATE series SET state = ? WHERE number = ?", (state, number))
        text = PageText("", datetime(2026, 1, 1, tzinfo=UTC), None)
        return page(account_of(plan), text)

    return make


def test_an_unfinished_run_says_so_before_any_figure_and_how_many_are_open(shown):
    text = shown("done", "planned", "waiting")
    at = text.index("This run is not finished")
    assert at < text.index("class='figures'")
    assert "2 of 3 series are open</b>: 1 still to run, 1 at work" in text
    assert "<title>Unfinished: " in text


def test_a_plan_in_part_says_that_there_may_be_more(shown):
    text = shown("done", "done", "done", is_complete=False)
    assert "This run is not finished" in text
    assert "The plan is not complete" in text
    assert "series are open" not in text


def test_a_finished_run_says_nothing_of_the_kind(shown):
    text = shown("done", "failed", "skipped")
    assert "not finished" not in text
    assert "Unfinished" not in text
