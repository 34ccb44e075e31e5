"""What is said of a series from outside, and when it counts."""

from __future__ import annotations

import pytest
from arrivals import SERIES, NoShelf, arrival_of

from pacs_bridge.ledger.announcements import Announcement
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

    ledger.series.expect(Announcement(SERIES, 100))

    job = JobRequest(SERIES, 1, "r", "m", ("archive",))
    assert not ledger.series.conclude(looked_at, Verdict(State.READY, job=job))
    assert ledger.series.open_revisions()[0].expected_instances == 100
    assert ledger.jobs.claim("w", 60) is None


@pytest.mark.usefixtures("received")
def test_who_says_the_same_again_and_again_holds_no_series_up(ledger):
    ledger.series.expect(Announcement(SERIES, 100))
    (looked_at,) = ledger.series.open_revisions()
    ledger.series.expect(Announcement(SERIES, 100))
    assert ledger.series.conclude(looked_at, Verdict(State.QUIET))


def _come(ledger, **changes):
    """One instance of the series comes; gives what the collector looks at."""
    ledger.instances.enter([arrival_of(1, **changes)], NoShelf())
    (revision,) = ledger.series.open_revisions()
    return revision


@pytest.mark.parametrize("known", ["nothing", "an archive run", "a refusal"])
def test_what_is_said_before_anything_has_come_counts_when_it_comes(ledger, known):
    if known == "an archive run":
        ledger.jobs.submit(JobRequest(SERIES, 1, "r", "m", (), Priority.ARCHIVE, "pacs", "1.2"))
    elif known == "a refusal":
        ledger.refusals.note([RefusedInstance(SERIES, f"{SERIES}.1", "A700", "CT1")])
    ledger.series.expect(Announcement(SERIES, 90, Priority.ARCHIVE))
    ledger.series.expect(Announcement(SERIES, 100))
    revision = _come(ledger)
    assert (revision.expected_instances, revision.priority) == (100, None)


@pytest.mark.parametrize(
    ("study", "patient", "count"),
    [("1.2", "p", 100), (None, None, 100), ("9.9", "p", None), ("1.2", "q", None)],
)
def test_what_was_said_of_the_series_of_another_patient_does_not_count(
    ledger, study, patient, count
):
    ledger.series.expect(Announcement(SERIES, 100, Priority.ARCHIVE, study, patient))
    revision = _come(ledger)
    assert revision.expected_instances == count
    assert revision.priority is (None if count is None else Priority.ARCHIVE)


@pytest.mark.parametrize(
    ("study", "patient"), [("9.9", "p"), ("1.2", "q"), ("", None), ("9.9", None)]
)
@pytest.mark.usefixtures("received")
def test_what_is_said_of_the_series_of_another_patient_is_not_noted(ledger, study, patient):
    (before,) = ledger.series.open_revisions()
    assert not ledger.series.expect(Announcement(SERIES, 100, Priority.ARCHIVE, study, patient))
    assert ledger.series.open_revisions() == (before,)


def test_who_speaks_of_another_patients_series_of_the_same_uid_wipes_nothing_out(ledger):
    ledger.series.expect(Announcement(SERIES, 100, Priority.ARCHIVE, "1.2", "p"))
    ledger.series.expect(Announcement(SERIES, 60, None, "9.9", "q"))
    revision = _come(ledger)
    assert (revision.expected_instances, revision.priority) == (100, Priority.ARCHIVE)


def test_of_what_was_said_with_and_without_a_name_the_latest_counts_and_once(ledger):
    for count, study, patient in [
        (80, "1.2", "p"),
        (90, None, None),
        (70, "9.9", None),
        (100, None, "p"),
        (60, "1.2", "q"),
    ]:
        assert ledger.series.expect(Announcement(SERIES, count, None, study, patient))
    assert _come(ledger).expected_instances == 100
    with ledger.database.read() as connection:
        left = connection.execute("SELECT instance_count FROM announced ORDER BY 1").fetchall()
    assert [row[0] for row in left] == [60, 70]


def test_what_the_instance_itself_says_goes_before_what_was_said_of_its_series(ledger):
    ledger.series.expect(Announcement(SERIES, 100))
    assert _come(ledger, expected_instances=80).expected_instances == 80


@pytest.mark.usefixtures("received")
def test_how_urgent_a_series_is_may_be_said_anew(ledger):
    for priority in (Priority.ARCHIVE, None):
        ledger.series.expect(Announcement(SERIES, 100, priority))
        assert ledger.series.open_revisions()[0].priority is priority


def test_what_was_said_and_never_came_is_forgotten_in_time(ledger, clock):
    ledger.series.expect(Announcement(SERIES, 100))
    ledger.series.give_up_incomplete(3600.0)
    clock.pass_s(3601.0)
    ledger.series.expect(Announcement("1.2.4", 100))
    ledger.series.give_up_incomplete(3600.0)
    assert _come(ledger).expected_instances is None
    later = _come_of(ledger, "1.2.4")
    assert later.expected_instances == 100


def _come_of(ledger, series):
    arrival = arrival_of("other", sop_instance_uid=f"{series}.1", series_instance_uid=series)
    ledger.instances.enter([arrival], NoShelf())
    return ledger.series.open_revisions()[-1]
