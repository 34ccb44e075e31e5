"""What is said of a series from outside, and when it counts."""

from __future__ import annotations

import pytest
from arrivals import SERIES, NoShelf, arrival_of

from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.refusals import RefusedInstance
from pacs_bridge.ledger.series import Verdict
from pacs_bridge.queue import JobRequest, Priority, State


@pytest.fixture
def ledger(ram_folder, clock) -> Ledger:
    return Ledger.open(ram_folder / "ledger.sqlite", clock)


@pytest.fixture
def received(ledger) -> None:
    """One instance of the series."""
    arrival = arrival_of(1, digest="digest", data_offset_bytes=0)
    ledger.instances.enter([arrival], NoShelf())


@pytest.mark.usefixtures("received")
def test_a_conclusion_is_void_when_a_series_is_said_to_have_more_meanwhile(ledger):
    (looked_at,) = ledger.series.open_revisions()

    assert ledger.series.expect(SERIES, 100)

    job = JobRequest(SERIES, 1, "r", "m", ("archive",))
    assert not ledger.series.conclude(looked_at, Verdict(State.READY, job=job))
    assert ledger.series.open_revisions()[0].expected_instances == 100
    assert ledger.jobs.claim("w", 60) is None


@pytest.mark.usefixtures("received")
def test_who_says_the_same_again_and_again_holds_no_series_up(ledger):
    ledger.series.expect(SERIES, 100)
    (looked_at,) = ledger.series.open_revisions()
    assert ledger.series.expect(SERIES, 100)
    assert ledger.series.conclude(looked_at, Verdict(State.QUIET))


def test_nothing_is_noted_of_a_series_of_which_nothing_was_received(ledger):
    assert not ledger.series.expect(SERIES, 100)
    ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", (), Priority.ARCHIVE, "pacs", "1.2"))
    assert not ledger.series.expect(SERIES, 100)
    ledger.refusals.note([RefusedInstance("1.2.4", "1.2.4.1", "A700", "CT1")])
    assert not ledger.series.expect("1.2.4", 100)
