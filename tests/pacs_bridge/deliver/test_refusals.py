"""What a destination refuses, and whether it refuses everything."""

from __future__ import annotations

from pacs_bridge.deliver.refusals import Refusals


def test_a_result_that_is_refused_as_all_are_waits_no_longer_than_they() -> None:
    refusals = Refusals()

    assert [refusals.note(each) for each in (1, 2, 1, 2)] == [0, 0, 0, 0]
    assert refusals.lately() == {1, 2}


def test_a_result_that_is_refused_although_others_are_taken_waits_longer_each_time() -> None:
    refusals = Refusals()
    waits = []
    for _ in range(6):
        waits.append(refusals.note(1))
        refusals.taken(2)

    assert waits == [0, 1, 2, 4, 8, 8]
    assert refusals.lately() == frozenset()


def test_what_is_over_is_forgotten() -> None:
    refusals = Refusals()
    refusals.note(1)
    refusals.note(2)
    refusals.taken(1)
    refusals.forget(2)
    refusals.forget(3)

    assert [refusals.note(each) for each in (1, 2)] == [0, 0]
