"""Which outcomes are stale, and which of them are planned anew."""

from __future__ import annotations

import pytest

from pacs_bridge.archive.series_book import SeriesBook, SeriesState, StaleResults

STATES = (SeriesState.DONE, SeriesState.REFUSED, SeriesState.FAILED)


@pytest.fixture
def book(tree, plan_of):
    """A book of three series that are over, each in another state, by the recipe ``first``."""
    for state in STATES:
        tree.add("run", state)
    plan = plan_of(tree.root).plan
    with plan.write() as connection:
        for number, state in enumerate(STATES, 1):
            connection.execute(
                "UPDATE series SET state = ?, done_contents = contents, done_recipe = 'first'"
                " WHERE number = ?",
                (state, number),
            )
    book = SeriesBook(plan)
    book.note_lasting("first", "the same result")
    return book


def test_other_limits_make_no_result_stale_and_what_they_refused_is_looked_at_again(book):
    book.note_lasting("other limits", "the same result")
    assert book.stale_results("other limits") == StaleResults(0, 0)
    assert book.refresh("other limits") == 2
    assert book.stale_results("other limits").count == 0


def test_results_of_another_recipe_are_stale_and_stay_unless_they_are_to_be_made_again(book):
    book.note_lasting("other kinds", "another result")
    assert book.stale_results("other kinds") == StaleResults(0, 1)
    assert book.refresh("other kinds", redo_results=False) == 2
    assert book.stale_results("other kinds").count == 1
    assert book.refresh("other kinds") == 1
    assert book.refresh("other kinds") == 0


def test_a_result_of_other_files_is_stale_by_them_whatever_else_changed(book, plan_of, tree):
    with plan_of(tree.root).plan.write() as connection:
        connection.execute("UPDATE series SET done_contents = 'of before'")
    assert book.stale_results("never noted") == StaleResults(1, 0)
    assert book.refresh("first", only=1) == 1


def test_a_recipe_that_was_never_noted_is_like_no_other(book):
    assert book.stale_results("never noted") == StaleResults(0, 1)
    assert book.stale_results("first").count == 0


def test_recipes_are_alike_where_their_results_rest_on_the_same(book):
    book.note_lasting("other limits", "the same result")
    book.note_lasting("other kinds", "another result")
    assert book.is_alike("first", "other limits")
    assert not book.is_alike("first", "other kinds")
    assert book.is_alike("never noted", "never noted")
    assert not book.is_alike("never noted", "nor was this")


def test_what_failed_runs_again_when_it_is_to(book):
    assert book.refresh("first", redo_results=False) == 0
    assert book.refresh("first", (SeriesState.FAILED,), redo_results=False) == 1
