"""How long a series is waited for that its source does not give."""

from __future__ import annotations

import pytest

from inference.reasons import Reason
from pacs_bridge.archive.patience import Patience, takes_place
from pacs_bridge.ledger.archive_jobs import JobStanding
from pacs_bridge.queue import State


def standing(attempts: int, reason: Reason = Reason.SOURCE_UNREACHABLE) -> JobStanding:
    return JobStanding(State.RETRY, reason, "", 2 * attempts, "", "pacs", attempts)


def test_a_source_that_gives_nothing_is_waited_for():
    patience = Patience()
    patience.note_came("pacs")
    assert not any(patience.is_over(1, standing(each)) for each in range(1, 100))


def test_what_comes_from_another_source_says_nothing():
    patience = Patience()
    for attempts in range(1, 100):
        patience.note_came("other")
        assert not patience.is_over(1, standing(attempts))


def test_a_series_that_fails_while_others_come_is_given_up():
    patience = Patience()
    told = []
    for attempts in range(1, 6):
        patience.note_came("pacs")
        told.append(patience.is_over(1, standing(attempts)))
        assert patience.is_over(1, standing(attempts)) == told[-1]  # a look counts nothing
    assert told == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("reason", "attempts", "expected"),
    [
        (Reason.SOURCE_UNREACHABLE, 1, True),
        (Reason.SOURCE_UNREACHABLE, 4, False),
        (Reason.SOURCE_INCOMPLETE, 1, False),
    ],
)
def test_a_series_that_fails_by_itself_or_often_takes_no_others_place(reason, attempts, expected):
    assert takes_place(standing(attempts, reason)) is expected
