"""Between the ledger of a site and the queue: nothing lost, nothing blamed, nothing twice."""

from __future__ import annotations

import psycopg
import pytest
from queue_bench import LEASE_S, OWNER, POLICY, QUEUE_NAME, request_of, result_of

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.errors import TransientError
from pacs_bridge.postgres.handed_over import HandedOver
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.recipe import Recipe
from pacs_bridge.postgres.ticket import TicketBook
from pacs_bridge.queue import DISPATCHER, LeaseLostError, Priority, State
from pacs_bridge.retry_policy import RetryPolicy


def in_queue(site) -> set[int]:
    return {each.job_id for each in site.handed.all()}


def test_what_became_of_a_job_elsewhere_stands_in_the_ledger_and_the_queue_is_empty(site):
    requests = [request_of(f"1.{n}", source="pacs", study_instance_uid="1.9") for n in range(3)]
    done, skipped, dead = (site.ledger.jobs.submit(request) for request in requests)
    assert site.dispatcher.step()
    claims = {claim.job_id: claim for claim in (site.bench.queue.claim("w", 60) for _ in range(3))}
    assert claims[done].request == requests[0]
    result = site.result(claims[done])
    site.bench.queue.complete(claims[done], [result], [Finding(Reason.GANTRY_TILT, "12 degrees")])
    site.bench.queue.skip(claims[skipped], Reason.TOO_FEW_SLICES, "3 slices")
    site.bench.queue.park(claims[dead], Reason.CORRUPT_PIXEL_DATA, "2.25.1")

    assert site.dispatcher.step()

    assert site.job(done).state is State.SENDING
    assert site.ledger.outbox.claim("s", 60).candidates == (result,)
    assert (site.job(skipped).state, site.job(skipped).reason) == (
        State.SKIPPED,
        Reason.TOO_FEW_SLICES,
    )
    assert (site.job(dead).state, site.job(dead).detail) == (State.DEAD, "2.25.1")
    assert in_queue(site) == set()
    assert site.tickets() == []
    assert not site.dispatcher.step()


def test_results_of_a_job_never_share_a_folder_with_those_of_another_lease(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    first = site.bench.queue.claim("w", LEASE_S)
    site.bench.clock.pass_s(LEASE_S + 1)
    second = site.bench.queue.claim("w", LEASE_S)
    here = site.ledger.jobs.held_by(DISPATCHER)[0]

    assert {first.job_id, second.job_id, here.job_id} == {job_id}
    assert len({first.fence, second.fence, here.fence}) == 3


def test_a_new_process_takes_up_where_the_last_one_was(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", 60)

    site.clock.pass_s(1e5)
    site.new_dispatcher().step()
    site.complete(claim)
    site.new_dispatcher().step()

    assert site.job(job_id).state is State.SENDING
    assert site.deaths(job_id) == 0
    assert site.job(job_id).attempts == 1


def test_an_outcome_that_was_entered_before_the_process_died_is_entered_once(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", 60)
    site.complete(claim)
    held = site.ledger.jobs.held_by(DISPATCHER)[0]
    site.ledger.jobs.complete(held, [site.result(held)], [])  # and then it dies

    site.new_dispatcher().step()

    assert in_queue(site) == set()
    assert site.job(job_id).state is State.SENDING


def test_a_failure_that_was_entered_already_ends_no_later_attempt(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    site.bench.queue.park(site.bench.queue.claim("w", 60), Reason.TIMEOUT, "")
    site.ledger.jobs.park(site.ledger.jobs.held_by(DISPATCHER)[0], Reason.TIMEOUT, "")
    site.ledger.steering.retry_job(job_id)  # it had died before it could withdraw the job

    site.new_dispatcher().step()

    assert site.job(job_id).state is State.CLAIMED
    assert site.bench.queue.claim("w", 60).job_id == job_id


@pytest.mark.parametrize("has_local_workers", [False, True])
def test_a_boot_of_the_site_takes_no_work_from_those_elsewhere(site, has_local_workers):
    running = site.ledger.jobs.submit(request_of("1.1"))
    finished = site.ledger.jobs.submit(request_of("1.2"))
    site.dispatcher.step()
    claims = {claim.job_id: claim for claim in (site.bench.queue.claim("w", 60) for _ in range(2))}
    site.complete(claims[finished])

    site.ledger.close()
    site.clock.boot, site.clock.steady = "second boot", 5000.0
    site.ledger = type(site.ledger).open(site.folder / "ledger.sqlite", site.clock)
    site.clock.pass_s(60)  # until the queue is back
    assert site.ledger.jobs.claim("local", 60) is None
    site.new_dispatcher(has_local_workers=has_local_workers).step()

    assert site.job(finished).state is State.SENDING
    assert site.job(running).state is State.CLAIMED
    site.complete(claims[running])
    site.dispatcher.step()
    assert site.job(running).state is State.SENDING
    assert site.deaths(running) == 0


def test_a_job_that_the_ledger_has_taken_back_is_withdrawn_and_the_late_result_refused(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    late = site.bench.queue.claim("w", 60)
    site.ledger.jobs.give_back(DISPATCHER)
    local = site.ledger.jobs.claim("local", 60)

    site.clock.pass_s(20)
    site.dispatcher.step()

    assert in_queue(site) == set()
    with pytest.raises(LeaseLostError):
        site.bench.queue.complete(late, [result_of()], [])
    site.ledger.jobs.complete(local, [site.result(local)], [])
    assert site.job(job_id).state is State.SENDING


def test_a_queue_that_lost_everything_is_filled_again(site):
    jobs = {site.ledger.jobs.submit(request_of(f"1.{n}")) for n in range(3)}
    site.dispatcher.step()
    site.handed.withdraw(sorted(jobs))

    site.new_dispatcher().step()

    assert in_queue(site) == jobs
    assert len(site.tickets()) == 3
    assert {site.bench.queue.claim("w", 60).job_id for _ in jobs} == jobs


def test_a_queue_that_lost_everything_knows_no_lease_that_it_gave_before(site):
    site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    before = site.bench.queue.claim("same name", 60)
    site.handed.withdraw([before.job_id])
    site.new_dispatcher().step()
    after = site.bench.queue.claim("same name", 60)

    assert after.fence != before.fence
    with pytest.raises(LeaseLostError):
        site.bench.queue.heartbeat(before, 60)
    with pytest.raises(LeaseLostError):
        site.complete(before)


def wipe(site, *copies: str) -> None:
    """Empty the queue as a lost database is, or as its backup is."""
    with psycopg.connect(site.bench.url) as connection:
        connection.execute("TRUNCATE pacs_bridge_jobs; TRUNCATE procrastinate_jobs CASCADE")
        for table in copies:
            connection.execute(f"INSERT INTO {table} SELECT * FROM copy_{table}")


def another_dispatcher(site):
    """A second process of the same site, whose sessions are its own."""
    first, handed = site.dispatcher, site.handed
    site.handed = HandedOver(site.bench.reopen().server, QUEUE_NAME)
    second = site.new_dispatcher()
    site.dispatcher, site.handed = first, handed
    return second


def test_of_two_dispatchers_one_waits_and_no_outcome_is_lost(site):
    second = another_dispatcher(site)
    assert not site.dispatcher.step()
    assert not second.step()
    job_id = site.ledger.jobs.submit(request_of())
    assert site.dispatcher.step()
    site.work_one()

    assert not second.step()
    assert len(site.tickets()) == 1
    site.dispatcher._handed.turn.end()  # as its process does
    assert second.step()

    assert site.job(job_id).state is State.SENDING
    second._handed.turn.end()


def test_an_outcome_of_a_job_that_another_process_handed_over_is_entered(site):
    site.dispatcher.step()
    other = another_dispatcher(site)
    other._handed.turn = site.dispatcher._handed.turn  # both believe that it is theirs
    other.step()
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    site.work_one()

    other.step()

    assert site.job(job_id).state is State.SENDING


def test_a_database_that_was_emptied_while_the_dispatcher_runs_is_filled_again(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    wipe(site)
    site.clock.pass_s(61)
    site.dispatcher.step()

    assert site.bench.queue.claim("w", 60).job_id == job_id


def test_a_restored_database_does_not_end_a_job_for_its_ticket_of_before(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    tables = ("procrastinate_jobs", "pacs_bridge_jobs")
    with psycopg.connect(site.bench.url) as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE copy_{table} AS SELECT * FROM {table}")
    site.bench.queue.park(site.bench.queue.claim("w", 60), Reason.TIMEOUT, "")
    site.dispatcher.step()
    site.ledger.steering.retry_job(job_id)
    site.dispatcher.step()
    wipe(site, *tables)
    site.new_dispatcher().step()

    claim = site.bench.queue.claim("w", 60)
    assert TicketBook(site.folder).read(claim).job == job_id


def test_a_restored_ledger_takes_no_result_of_another_series_of_the_same_id(site):
    def ask(series: str) -> int:
        return site.ledger.jobs.submit(request_of(series, source="pacs", study_instance_uid="1.9"))

    for series in ("1.1", "1.2"):
        ask(series)
    site.dispatcher.step()
    stale = [site.bench.queue.claim("w", 60) for _ in range(2)]
    site.complete(stale[0])
    site.ledger.close()
    for path in site.folder.glob("ledger.sqlite*"):
        path.unlink()
    site.ledger = type(site.ledger).open(site.folder / "ledger.sqlite", site.clock)
    jobs = {ask(series) for series in ("1.7", "1.1", "1.2")}
    site.new_dispatcher().step()
    site.dispatcher.step()

    assert {site.job(each).state for each in jobs} == {State.CLAIMED}
    with pytest.raises(LeaseLostError):
        site.complete(stale[1])
    claims = {site.bench.queue.claim("w", 60) for _ in jobs}
    assert {(one.job_id, one.request.series_instance_uid) for one in claims} == {
        (1, "1.7"), (2, "1.1"), (3, "1.2"),
    }  # fmt: skip


def test_a_row_of_the_same_request_under_another_id_gives_way(site):
    site.bench.queue.submit(request_of())  # 1, not of this ledger
    site.dispatcher.step()
    site.bench.queue.submit(request_of("1.5"))  # 2, while the dispatcher runs
    site.ledger.jobs.submit(request_of("1.4"))
    job_id = site.ledger.jobs.submit(request_of("1.6"))
    other = site.ledger.jobs.submit(request_of("1.5"))
    site.dispatcher.step()

    assert in_queue(site) == {1, job_id, other}


def test_jobs_that_wait_for_their_time_take_no_room(site):
    site.new_dispatcher(waiting_jobs=2)
    jobs = [site.ledger.jobs.submit(request_of(f"1.{n}")) for n in range(4)]
    site.dispatcher.step()
    for _ in range(2):
        site.bench.queue.retry(
            site.bench.queue.claim("w", 60), Reason.DISK_FULL, "", RetryPolicy(3600, 3600, 1e6)
        )
    site.dispatcher.step()

    assert in_queue(site) == set(jobs[2:])
    assert site.bench.queue.claim("w", 60) is not None


def test_a_share_that_hangs_makes_no_deaths_of_its_dispatcher(site, monkeypatch):
    jobs = [site.ledger.jobs.submit(request_of(f"1.{n}")) for n in range(3)]
    site.dispatcher.step()
    site.work_one()
    monkeypatch.setattr(site.dispatcher, "_problem", lambda _outcome: site.clock.pass_s(61) or "")
    site.dispatcher.step()
    site.dispatcher.step()

    assert [site.deaths(each) for each in jobs] == [0, 0, 0]
    assert [site.job(each).state for each in jobs] == [State.SENDING, State.CLAIMED, State.CLAIMED]


def test_leases_are_kept_while_postgresql_is_away(site, postgres):
    site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    postgres.stop()
    try:
        for _ in range(5):
            site.clock.pass_s(20)
            site.dispatcher.keep_leases()
            with pytest.raises(TransientError):
                site.dispatcher.step()
    finally:
        postgres.start()

    assert site.ledger.jobs.claim("local", 60) is None


def test_local_workers_have_all_jobs_while_there_are_none_elsewhere(site):
    site.new_dispatcher(has_local_workers=True)
    jobs = [site.ledger.jobs.submit(request_of(f"1.{n}")) for n in range(3)]
    site.dispatcher.step()
    assert in_queue(site) == set()
    assert site.bench.queue.claim("w", LEASE_S) is None  # but one is there now
    site.clock.pass_s(16)
    site.dispatcher.step()
    assert in_queue(site) == {jobs[0]}
    begun = site.bench.queue.claim("w", LEASE_S)
    site.dispatcher.step()
    assert in_queue(site) == {jobs[0], jobs[1]}
    for _ in range(5):  # and gone
        site.clock.pass_s(15)
        site.dispatcher.step()

    assert in_queue(site) == {begun.job_id}
    waiting = [each for each in jobs if each != begun.job_id]
    assert [(site.job(each).state, site.job(each).attempts) for each in waiting] == [
        (State.READY, 0)
    ] * 2
    assert site.ledger.jobs.claim("local", 60).job_id in waiting


def test_a_job_of_a_dead_worker_comes_back_though_there_is_no_other(site):
    site.new_dispatcher(has_local_workers=True)
    site.bench.queue.claim("w", LEASE_S)
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    assert site.bench.queue.claim("w", LEASE_S).job_id == job_id
    for _ in range(6):
        site.bench.clock.pass_s(16)
        site.clock.pass_s(16)
        site.dispatcher.step()

    assert in_queue(site) == set()
    assert (site.job(job_id).state, site.deaths(job_id)) == (State.READY, 1)


def test_a_dead_worker_s_job_comes_back_though_no_worker_lives_as_long_as_a_lease(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    assert site.bench.queue.claim("dead", LEASE_S).job_id == job_id
    site.bench.clock.observers.clear()  # the bridge alone goes on looking
    claim, passed_s = None, 0.0
    while claim is None and passed_s < 3 * LEASE_S:
        site.clock.pass_s(LEASE_S / 4)
        passed_s += LEASE_S / 4
        site.dispatcher.step()
        passing = PostgresQueue(
            site.bench.server, QUEUE_NAME, lambda: OWNER, steady_s=site.clock.steady_s
        )
        claim = passing.claim("short-lived", LEASE_S)

    assert claim is not None
    assert (claim.job_id, claim.failures) == (job_id, 1)
    assert passed_s <= 1.5 * LEASE_S
    site.bench.clock.observers.append(site.bench.queue)


def test_no_more_is_handed_over_than_is_wanted_but_what_is_more_urgent_goes_at_once(site):
    site.new_dispatcher(waiting_jobs=2)
    for n in range(5):
        site.ledger.jobs.submit(request_of(f"1.{n}", priority=Priority.ARCHIVE))
    site.dispatcher.step()
    assert len(in_queue(site)) == 2
    assert not site.dispatcher.step()

    stat = site.ledger.jobs.submit(request_of("1.9", priority=Priority.STAT))
    site.dispatcher.step()

    assert site.bench.queue.claim("w", 60).job_id == stat
    assert not site.dispatcher.step()
    assert site.bench.queue.claim("w", 60) is not None
    assert site.dispatcher.step()


def test_a_result_that_is_not_in_the_shared_folder_is_made_again(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", 60)
    lost = site.result(claim)
    (site.folder / lost.path).unlink()
    site.bench.queue.complete(claim, [lost], [])

    site.dispatcher.step()

    view = site.job(job_id)
    assert (view.state, view.reason) == (State.RETRY, Reason.QUEUE_UNAVAILABLE)
    assert "is missing" in view.detail
    site.clock.pass_s(11)
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", 60)
    assert (claim.job_id, claim.attempt) == (job_id, 2)


def test_where_no_ticket_can_be_written_jobs_wait_untouched_until_one_can(site):
    in_the_way = site.folder / "tickets"
    in_the_way.write_text("")
    jobs = {site.ledger.jobs.submit(request_of(f"1.{n}")) for n in range(4)}
    for _ in range(3):
        site.dispatcher.step()
        site.dispatcher.step()
        assert {(site.job(each).state, site.job(each).attempts) for each in jobs} == {
            (State.READY, 0)
        }
        site.clock.pass_s(31)
    assert in_queue(site) == set()
    in_the_way.unlink()
    while site.dispatcher.step():
        pass

    assert in_queue(site) == jobs
    with site.ledger.database.read() as connection:
        changes = connection.execute("SELECT count(*) FROM history").fetchone()[0]
    assert changes < 24  # only one of them was tried each time


def open_revision(site, series: str, revision: int) -> None:
    """Have a revision of a series be received."""
    now = site.ledger.database.now_text()
    with site.ledger.database.write() as connection:
        connection.execute(
            "INSERT INTO series (series_instance_uid, study_instance_uid, patient_key, revision)"
            " VALUES (?, '1.9', 'key', ?)",
            (series, revision),
        )
        connection.execute(
            "INSERT INTO revisions (series_instance_uid, revision, state, activity, first_at,"
            " last_at, state_at) VALUES (?, ?, 'receiving', 0, ?, ?, ?)",
            (series, revision, now, now, now),
        )


def test_what_nobody_has_begun_waits_here_while_a_later_revision_comes(site):
    job_id = site.ledger.jobs.submit(request_of("1.1"))
    other = site.ledger.jobs.submit(request_of("1.2"))
    site.dispatcher.step()
    open_revision(site, "1.1", 2)
    site.dispatcher.step()

    assert in_queue(site) == {other}
    assert len(site.tickets()) == 1
    assert (site.job(job_id).state, site.job(job_id).attempts) == (State.READY, 0)
    with site.ledger.database.write() as connection:
        connection.execute("UPDATE revisions SET state = 'skipped'")
    site.dispatcher.step()
    assert in_queue(site) == {job_id, other}


def test_an_old_revision_is_done_by_nobody_once_the_new_one_has_a_result(site):
    old = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    open_revision(site, "1.2.3", 2)
    new = site.ledger.jobs.submit(request_of(revision=2))
    with site.ledger.database.write() as connection:
        connection.execute("UPDATE revisions SET state = 'ready'")
    site.dispatcher.step()
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", 60)
    assert claim.job_id == new
    assert site.bench.queue.claim("w", 60) is None
    site.complete(claim)
    site.dispatcher.step()

    assert (site.job(old).state, site.job(new).state) == (State.SUPERSEDED, State.SENDING)


def test_what_somebody_has_begun_goes_on_while_a_later_revision_comes(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", 60)
    open_revision(site, "1.2.3", 2)
    site.dispatcher.step()
    site.bench.queue.heartbeat(claim, 60)
    site.complete(claim)
    site.dispatcher.step()

    assert site.job(job_id).state is State.SENDING
    assert site.ledger.outbox.claim("s", 60) is None  # until the later one is decided


def test_what_the_queue_has_lost_is_not_handed_over_again_while_a_later_revision_comes(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    wipe(site)
    open_revision(site, "1.2.3", 2)
    site.new_dispatcher().step()

    assert in_queue(site) == set()
    assert site.job(job_id).state is State.READY


def test_a_dispatcher_that_dies_while_it_takes_a_job_back_leaves_it_to_the_next_one(
    site, monkeypatch
):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    open_revision(site, "1.2.3", 2)

    def killed(_claim):
        raise RuntimeError

    monkeypatch.setattr(site.ledger.jobs, "release", killed)
    with pytest.raises(RuntimeError):
        site.dispatcher.step()
    monkeypatch.undo()
    assert in_queue(site) == set()
    site.new_dispatcher().step()

    assert in_queue(site) == set()
    assert (site.job(job_id).state, site.job(job_id).attempts) == (State.READY, 0)


def test_failures_that_count_go_with_a_job_that_is_handed_over(site):
    job_id = site.ledger.jobs.submit(request_of())
    for _ in range(2):
        claim = site.ledger.jobs.claim("local", 60)
        site.ledger.jobs.retry(claim, Reason.OOM_CPU, "", POLICY)
        site.clock.pass_s(41)
    site.dispatcher.step()
    assert site.bench.queue.claim("w", LEASE_S).failures == 2
    site.bench.clock.pass_s(LEASE_S + 1)
    assert site.bench.queue.claim("w", LEASE_S) is None
    site.dispatcher.step()

    assert site.job(job_id).state is State.DEAD


def die_once(site) -> None:
    """Let a worker have a job and be heard of no more; the next one gives it back."""
    site.bench.queue.claim("w", LEASE_S)
    site.bench.clock.pass_s(LEASE_S + 1)
    site.bench.queue.release(site.bench.queue.claim("w2", LEASE_S))


def test_failures_that_count_come_back_with_a_job(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    die_once(site)
    site.clock.pass_s(61)
    site.dispatcher.step()
    assert site.deaths(job_id) == 1
    wipe(site)
    site.new_dispatcher().step()

    assert site.bench.queue.claim("w", LEASE_S).failures == 1


def test_failures_that_count_come_back_with_a_job_that_waits_for_a_later_revision(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    die_once(site)
    open_revision(site, "1.2.3", 2)
    site.dispatcher.step()

    assert (site.job(job_id).state, site.deaths(job_id)) == (State.READY, 1)


def test_a_request_that_is_not_made_of_ids_is_not_handed_over(site):
    job_id = site.ledger.jobs.submit(request_of("../../etc/passwd"))
    other = site.ledger.jobs.submit(request_of("1.2"))
    site.dispatcher.step()

    assert (site.job(job_id).state, site.job(job_id).reason) == (State.DEAD, Reason.BAD_PAYLOAD)
    assert in_queue(site) == {other}


@pytest.mark.parametrize(
    "change",
    [
        "state = 'sent-by-pigeon'",
        'outcome = \'{"results": [], "findings": [], "code": "import os"}\'',
        "outcome = jsonb_set(outcome, '{results,0,path}', '\"../../../etc/passwd\"')",
        "outcome = jsonb_set(outcome, '{results,0,path}', '\"/etc/passwd\"')",
        "outcome = '[1]'",
        "outcome = NULL",
        "state = 'ready'",
        "state = 'claimed'",
        "outcome = jsonb_set(outcome, '{results}', '[]')",
        "outcome = jsonb_set(outcome, '{results}', (outcome->'results') || (outcome->'results'))",
        "outcome = jsonb_set(outcome, '{results,0,stack}', '99999999999999999999')",
        "outcome = jsonb_set(outcome, '{results,0,stack}', repeat('9', 5000)::jsonb)",
        "outcome = jsonb_set(outcome, '{x}', (repeat('[', 5000) || repeat(']', 5000))::jsonb)",
    ],
)
def test_an_outcome_that_others_wrote_ends_the_job_and_nothing_of_it_is_used(site, change):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    site.work_one()
    with psycopg.connect(site.bench.url) as connection:
        connection.execute(f"UPDATE pacs_bridge_jobs SET {change}")

    site.dispatcher.step()

    assert (site.job(job_id).state, site.job(job_id).reason) == (State.DEAD, Reason.BAD_PAYLOAD)
    assert "passwd" not in site.job(job_id).detail
    assert site.ledger.outbox.claim("s", 60) is None


def test_an_outcome_that_the_ledger_refuses_keeps_no_other_from_being_entered(site, monkeypatch):
    jobs = [site.ledger.jobs.submit(request_of(f"1.{n}")) for n in range(3)]
    site.dispatcher.step()
    for _ in range(3):
        site.work_one()
    settle = site.ledger.jobs.settle

    def refusing(outcomes):
        if any(claim.job_id == jobs[1] and outcome.results for claim, outcome in outcomes):
            raise ValueError("a result that no check foresaw")
        return settle(outcomes)

    monkeypatch.setattr(site.ledger.jobs, "settle", refusing)
    site.dispatcher.step()

    assert [site.job(each).state for each in jobs] == [State.SENDING, State.DEAD, State.SENDING]


def test_what_waits_is_put_again_when_the_bridge_means_something_else(site):
    for n in range(2):
        site.ledger.jobs.submit(request_of(f"1.{n}"))
    site.handed.recipe = lambda _request: Recipe("a" * 64, "")
    site.dispatcher.step()
    running = site.bench.queue.claim("w", 60)
    site.handed.recipe = lambda _request: Recipe("b" * 64, "")
    site.new_dispatcher().step()

    with psycopg.connect(site.bench.url) as connection:
        rules = connection.execute("SELECT args->>'rules' FROM procrastinate_jobs").fetchall()
    assert sorted(rules) == [("a" * 64,), ("b" * 64,)]
    site.bench.queue.heartbeat(running, 60)


def test_what_other_leases_left_goes_when_the_ledger_has_taken_one(site):
    job_id = site.ledger.jobs.submit(request_of())
    site.dispatcher.step()
    claim = site.bench.queue.claim("w", 60)
    assert claim.is_handed_over  # so its worker deletes nothing but its own
    (site.folder / "results" / f"{job_id:08d}" / "left").mkdir(parents=True)
    taken = site.result(claim)
    site.bench.queue.complete(claim, [taken], [])

    site.dispatcher.step()

    (folder,) = (site.folder / "results" / f"{job_id:08d}").iterdir()
    assert folder.name == str(claim.fence)
    assert taken.problem(site.folder) == ""
