"""Which job of a series is meant, and to whom it is told: received ones, and those of archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from arrivals import SERIES, NoShelf, arrival_of

from inference.reasons import Reason
from pacs_bridge.config.bridge import CollectorConfig
from pacs_bridge.config.routes import RouteConfig
from pacs_bridge.control.answers import Answer, CallFault
from pacs_bridge.control.routes import Routes, Whose
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.ledger.arrival import Fate
from pacs_bridge.ledger.associations import (
    AssociationEnd,
    AssociationOutcome,
)
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.refusals import RefusedInstance
from pacs_bridge.log import JsonLog
from pacs_bridge.queue import JobRequest, Priority, ResultFile, State
from pacs_bridge.receive.collector import Collector

QUIET_S = 60.0
IDENTITY = IdentityHash(b"test")
MINE = Whose("1.2", "P1")
NOBODY = Whose()
Post = Callable[..., Answer]


@pytest.fixture
def ledger(ram_folder: Path, clock: Any) -> Iterator[Ledger]:
    made = Ledger.open(ram_folder / "ledger.sqlite", clock)
    yield made
    made.close()


@pytest.fixture
def ask(ledger: Ledger) -> Post:
    """``ask("repeat", whose)``: what a caller is answered; without an action, how it stands."""
    routes = Routes(ledger, IDENTITY)

    def call(action: str = "", whose: Whose = MINE, instances: int = 10) -> Answer:
        path = f"/series/{SERIES}" + (f"/{action}" if action else "")
        query = {"instances": (str(instances),)} if action == "expect" else {}
        return routes.answer("POST" if action else "GET", path, query, whose)

    return call


def receive(ledger: Ledger, *numbers: int, association: int = 1) -> None:
    """Instances of the series, of the patient P1 and the study 1.2, and the association's end."""
    key = IDENTITY.of("P1")
    arrivals = [
        arrival_of(number, association, patient_key=key, digest=f"d{number}") for number in numbers
    ]
    assert set(ledger.instances.enter(arrivals, NoShelf())) == {Fate.KEPT}
    end = AssociationEnd(association, AssociationOutcome.RELEASED, association)
    ledger.associations.end([end])


def submit(ledger: Ledger, revision: int, source: str = "pacs", study: str = "1.2") -> int:
    priority = Priority.ROUTINE if source == "spool" else Priority.ARCHIVE
    request = JobRequest(SERIES, revision, "all", "tiny", ("archive",), priority, source, study)
    return ledger.jobs.submit(request)


def end(ledger: Ledger, state: State) -> None:
    """Let the job that waits end in a state."""
    claim = ledger.jobs.claim("w", 60)
    assert claim is not None
    if state is State.DEAD:
        ledger.jobs.park(claim, Reason.MODEL_ERROR, "not finite")
    elif state is State.SKIPPED:
        ledger.jobs.skip(claim, Reason.EMPTY_RESULT, "nothing")
    else:
        uid = f"2.25.{claim.job_id}"
        result = ResultFile(0, "binary", "r.dcm", "1.2", uid, f"{uid}.1", "1.2", "00", 1)
        ledger.jobs.complete(claim, [result], [])
        delivery = ledger.outbox.claim("s", 60)
        assert delivery is not None
        ledger.outbox.sent(delivery, result)


# --- whose it is ---


@pytest.mark.parametrize("action", ["", "retry", "repeat", "force"])
@pytest.mark.parametrize(
    ("study", "whose"),
    [("1.2", Whose("9.9", "P1")), ("1.2", Whose(None, "P1")), ("", MINE), ("", Whose("", ""))],
    ids=["another study", "only a patient", "not known", "nameless"],
)
def test_what_an_archive_run_made_is_told_to_its_own_study_only(
    ledger: Ledger, ask: Post, action: str, study: str, whose: Whose
) -> None:
    job = submit(ledger, 1, study=study)
    end(ledger, State.DEAD)

    answer = ask(action, whose)

    assert (answer.status, answer.body["reason"]) == (409, CallFault.OTHER_PATIENT)
    assert ledger.view.job(job).state is State.DEAD


@pytest.mark.parametrize("whose", [MINE, NOBODY, Whose("1.2", None)])
def test_who_means_the_study_of_an_archive_run_or_does_not_say_steers_it(
    ledger: Ledger, ask: Post, whose: Whose
) -> None:
    submit(ledger, 1)
    end(ledger, State.DEAD)
    assert ask("", whose).body["state"] == State.DEAD
    assert ask("retry", whose).body["state"] == State.READY


def test_beside_a_received_series_an_archive_run_for_another_study_is_not_told(
    ledger: Ledger, ask: Post
) -> None:
    archived = submit(ledger, 1, study="9.9")
    end(ledger, State.DEAD)
    receive(ledger, 1)

    facts = ask().body
    assert (facts["state"], facts["revision"]) == (State.RECEIVING, 2)
    assert [one["job_id"] for one in facts["revisions"]] == [None]
    answer = ask("retry")
    assert (answer.status, answer.body["reason"]) == (409, CallFault.NOTHING_TO_RETRY)
    assert ledger.view.job(archived).state is State.DEAD


# --- how many instances it has ---


@pytest.fixture
def collector(ledger: Ledger, clock: Any, ram_folder: Path) -> Callable[[Priority], Collector]:
    """A collector whose only route has a priority."""

    def make(priority: Priority = Priority.ROUTINE) -> Collector:
        log = JsonLog.open(ram_folder / "log.jsonl", IDENTITY)
        route = RouteConfig(name="all", model="tiny", destinations=("archive",), priority=priority)
        return Collector(ledger, CollectorConfig(quiet_period_s=QUIET_S), [route], clock, log)

    return make


def look(collector: Collector, clock: Any) -> None:
    for _ in range(3):
        collector.look()
        clock.pass_s(QUIET_S)


@pytest.mark.parametrize("known", ["nothing", "an archive run", "a refusal"])
def test_what_is_said_before_anything_has_come_holds_the_part_that_comes(
    ledger: Ledger, ask: Post, clock: Any, collector: Any, known: str
) -> None:
    if known == "an archive run":
        submit(ledger, 1)
        end(ledger, State.SENT)
    elif known == "a refusal":
        ledger.refusals.note([RefusedInstance(SERIES, f"{SERIES}.1", "A700", "CT1")])

    assert ask("expect", instances=100).status == 200
    receive(ledger, *range(60))

    look(collector(), clock)
    facts = ask().body
    assert (facts["state"], facts["detail"]) == (State.INCOMPLETE, "60 of 100 instances here")


def test_what_is_only_said_of_a_series_does_not_make_it_known(ledger: Ledger, ask: Post) -> None:
    answer = ask("expect")
    assert (answer.status, answer.body["state"]) == (200, None)
    for action in ("", "retry", "repeat", "force"):
        assert (ask(action).status, ask(action).body["reason"]) == (404, CallFault.UNKNOWN_SERIES)


def test_what_is_said_of_a_series_whose_first_image_comes_just_then_is_not_put_on_anothers(
    ledger: Ledger,
) -> None:
    class Meanwhile:
        """A listener has the last word before an announcement is noted."""

        def of(self, patient_id: str) -> str:
            if ledger.view.identity(SERIES) is None:
                receive(ledger, 1)
            return IDENTITY.of(patient_id)

    query = {"instances": ("100",)}
    routes = Routes(ledger, Meanwhile())  # type: ignore[arg-type]
    answer = routes.answer("POST", f"/series/{SERIES}/expect", query, Whose("1.2", "another"))

    assert (answer.status, answer.body["reason"]) == (409, CallFault.OTHER_PATIENT)
    assert ledger.series.open_revisions()[0].expected_instances is None


def test_to_a_stranger_it_is_said_what_is_here_and_not_what_an_archive_run_made(
    ledger: Ledger, ask: Post
) -> None:
    submit(ledger, 1, study="9.9")
    answer = ask("expect")
    assert (answer.status, answer.body["state"]) == (200, None)


@pytest.mark.parametrize(
    ("route", "said", "job"),
    [
        (Priority.STAT, "archive", Priority.ARCHIVE),
        (Priority.ROUTINE, "archive", Priority.ARCHIVE),
        (Priority.ARCHIVE, "stat", Priority.ARCHIVE),
        (Priority.STAT, None, Priority.STAT),
    ],
)
@pytest.mark.parametrize("is_early", [True, False])
def test_a_job_is_no_more_urgent_than_was_said_of_its_series(
    ledger: Ledger, clock: Any, collector: Any, route: Any, said: Any, job: Any, is_early: bool
) -> None:
    routes = Routes(ledger, IDENTITY)
    query = {"instances": ("3",)} | ({} if said is None else {"priority": (said,)})
    if not is_early:
        receive(ledger, 1, 2, 3)
    assert routes.answer("POST", f"/series/{SERIES}/expect", query, MINE).status == 200
    if is_early:
        receive(ledger, 1, 2, 3)

    look(collector(route), clock)

    claim = ledger.jobs.claim("w", 60)
    assert claim is not None
    assert (claim.request.priority, claim.request.source) == (job, "spool")


# --- which job ---


def test_a_dead_clinical_job_is_reached_behind_a_later_archive_run(
    ledger: Ledger, ask: Post
) -> None:
    clinical = submit(ledger, 1, source="spool")
    end(ledger, State.DEAD)
    archived = submit(ledger, 2)
    end(ledger, State.SKIPPED)
    facts = ask().body
    assert (facts["state"], facts["revision"]) == (State.DEAD, 1)
    assert len(facts["revisions"]) == 2

    assert ask("retry").body["state"] == State.READY

    assert ledger.view.job(clinical).state is State.READY
    assert ledger.view.job(archived).state is State.SKIPPED


def test_a_result_that_waits_to_be_sent_keeps_no_retry_from_an_archive_run(
    ledger: Ledger, ask: Post
) -> None:
    submit(ledger, 1, source="spool")
    claim = ledger.jobs.claim("w", 60)
    ledger.jobs.complete(
        claim, [ResultFile(0, "binary", "r.dcm", "1.2", "2.1", "2.2", "1.2", "00", 1)], []
    )
    archived = submit(ledger, 2)
    end(ledger, State.DEAD)

    ask("retry")

    assert ledger.view.job(archived).state is State.READY


def test_of_archive_runs_alone_the_latest_is_meant(ledger: Ledger, ask: Post) -> None:
    jobs = []
    for revision in (1, 2):
        jobs.append(submit(ledger, revision))
        end(ledger, State.DEAD)
    assert ask().body["revision"] == 2

    ask("retry")

    states = [ledger.view.job(job).state for job in jobs]
    assert states == [State.DEAD, State.READY]


def test_results_that_can_neither_be_sent_nor_made_again_are_said_to_be_gone(
    ledger: Ledger, ask: Post
) -> None:
    job = submit(ledger, 1, source="spool")
    end(ledger, State.SENT)
    deliveries = ledger.view.deliveries(job)

    answer = ask("repeat")

    assert (answer.status, answer.body["reason"]) == (409, CallFault.SOURCES_DELETED)
    assert ledger.view.job(job).state is State.SENT
    assert ledger.view.deliveries(job) == deliveries
