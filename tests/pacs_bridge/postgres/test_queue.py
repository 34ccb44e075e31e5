"""What is PostgreSQL's own about its queue: outages, strangers, folders that are away."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_bench import LEASE_S, OWNER, POLICY, QUEUE_NAME, PostgresBench, request_of, result_of

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.postgres.handed_over import HandedOver
from pacs_bridge.postgres.payload import UnknownFormatError, job_payload, parsed_payload
from pacs_bridge.postgres.queue import PostgresQueue
from pacs_bridge.postgres.server import Server, connection_string, has_password
from pacs_bridge.postgres.tables import prepare
from pacs_bridge.queue import LeaseLostError, OutcomeInDoubtError, State


@pytest.fixture
def bench(postgres):
    made = PostgresBench(postgres.new_database())
    yield made
    made.close()


class LostAnswers(Server):
    """A server whose answers to the next commit are lost on the way."""

    lose = False

    def transaction(self):
        outer = super().transaction()
        if not self.lose:
            return outer
        self.lose = False
        return _Losing(outer)


class _Losing:
    def __init__(self, outer):
        self._outer = outer

    def __enter__(self):
        return self._outer.__enter__()

    def __exit__(self, *error):
        self._outer.__exit__(*error)
        if error == (None, None, None):
            raise TransientError(Reason.QUEUE_UNAVAILABLE, "connection lost")


@pytest.mark.parametrize(
    ("report", "state"),
    [
        (lambda queue, claim: queue.complete(claim, [result_of()], []), State.SENDING),
        (lambda queue, claim: queue.park(claim, Reason.TIMEOUT, ""), State.DEAD),
        (lambda queue, claim: queue.skip(claim, Reason.LOCALIZER, ""), State.SKIPPED),
        (lambda queue, claim: queue.retry(claim, Reason.OOM_GPU, "", POLICY), State.RETRY),
        (lambda queue, claim: queue.release(claim), State.READY),
    ],
)
def test_a_report_whose_answer_was_lost_can_be_repeated(bench, report, state):
    server = LostAnswers(bench.url)
    queue = PostgresQueue(server, QUEUE_NAME, lambda: OWNER)
    job_id = queue.submit(request_of())
    claim = queue.claim("w", LEASE_S)

    server.lose = True
    with pytest.raises(TransientError):
        report(queue, claim)
    report(queue, claim)

    assert queue.state(job_id) is state
    with pytest.raises(LeaseLostError):
        report(queue, claim)
    queue.close()


def test_a_completion_whose_answer_was_lost_and_whose_job_is_gone_is_in_doubt(bench):
    server = LostAnswers(bench.url)
    queue = PostgresQueue(server, QUEUE_NAME, lambda: OWNER)
    job_id = queue.submit(request_of())
    claim = queue.claim("w", LEASE_S)
    server.lose = True
    with pytest.raises(TransientError):
        queue.complete(claim, [result_of()], [])
    HandedOver(bench.server, QUEUE_NAME).withdraw([job_id])  # its outcome was entered meanwhile

    with pytest.raises(OutcomeInDoubtError):
        queue.complete(claim, [result_of()], [])
    queue.close()


def test_a_lease_is_of_its_worker_and_of_no_other_of_the_same_fence(bench):
    bench.queue.submit(request_of())
    claim = bench.queue.claim("w", LEASE_S)
    stranger = replace(claim, worker="w2")

    with pytest.raises(LeaseLostError):
        bench.queue.heartbeat(stranger, LEASE_S)
    with pytest.raises(LeaseLostError) as error:
        bench.queue.complete(stranger, [result_of()], [])
    assert not isinstance(error.value, OutcomeInDoubtError)
    bench.queue.complete(claim, [result_of()], [])


def test_a_report_that_never_arrived_is_not_taken_for_one_whose_answer_was_lost(bench, postgres):
    job_id = bench.queue.submit(request_of())
    claim = bench.queue.claim("w", LEASE_S)
    postgres.stop()
    try:
        with pytest.raises(TransientError) as error:
            bench.queue.complete(claim, [result_of()], [])
    finally:
        postgres.start()
    assert error.value.reason is Reason.QUEUE_UNAVAILABLE
    second = bench.reopen().queue
    other = second.submit(request_of("1.2.4"))
    bench.clock.pass_s(LEASE_S + 1)
    assert {second.claim("w2", LEASE_S).job_id for _ in range(2)} == {job_id, other}

    with pytest.raises(LeaseLostError):
        bench.queue.complete(claim, [result_of()], [])


def test_a_time_in_which_nobody_reached_the_server_ends_no_lease(bench, postgres):
    job_id = bench.queue.submit(request_of())
    claim = bench.queue.claim("w", LEASE_S)
    bench.queue.look()
    postgres.stop()
    bench.clock.steady += 100 * LEASE_S
    postgres.start()
    with pytest.raises(TransientError):
        bench.queue.heartbeat(claim, LEASE_S)  # on a connection of before

    assert bench.queue.claim("w2", LEASE_S) is None
    bench.queue.heartbeat(claim, LEASE_S)
    bench.queue.complete(claim, [result_of()], [])
    assert bench.state(job_id) is State.SENDING


@pytest.fixture
def stepped(postgres):
    """A queue, and what steps the clock of its server: ``now()`` is one of ours there."""
    url = postgres.new_database()

    def step(seconds: float) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE step SET seconds = seconds + %s", (seconds,))

    with psycopg.connect(url) as connection:
        name = connection.info.dbname
        connection.execute(
            "CREATE TABLE step AS SELECT 0.0::double precision AS seconds;"
            "CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql STABLE AS"
            " 'SELECT pg_catalog.now() + make_interval(secs => (SELECT seconds FROM public.step))';"
            f"ALTER DATABASE {name} SET search_path = public, pg_catalog"
        )
    bench = PostgresBench(url)
    yield bench, step
    bench.close()


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_steps_of_the_servers_clock_take_nothing_from_a_worker_that_is_alive(stepped, seconds):
    bench, step = stepped
    job_id = bench.queue.submit(request_of())
    claim = bench.queue.claim("w", LEASE_S)
    for _ in range(4):
        step(seconds)
        assert bench.queue.claim("w2", LEASE_S) is None
        bench.queue.heartbeat(claim, LEASE_S)
    bench.queue.complete(claim, [result_of()], [])

    assert bench.state(job_id) is State.SENDING


def test_a_step_back_of_the_servers_clock_keeps_no_job_with_a_dead_worker(stepped):
    bench, step = stepped
    job_id = bench.queue.submit(request_of())
    bench.queue.claim("w", LEASE_S)
    step(-3600)
    bench.clock.pass_s(LEASE_S + 1)

    assert bench.queue.claim("w2", LEASE_S).job_id == job_id


def test_a_step_back_of_the_servers_clock_keeps_no_job_from_its_next_attempt(stepped):
    bench, step = stepped
    step(1e6)
    job_id = bench.queue.submit(request_of())
    bench.queue.release(bench.queue.claim("w", LEASE_S))
    step(-1e6)

    assert bench.queue.claim("w", LEASE_S).job_id == job_id
    bench.clock.pass_s(LEASE_S + 1)
    step(-1e6)
    assert bench.queue.claim("w", LEASE_S).job_id == job_id


def test_a_worker_that_has_just_begun_to_look_takes_nothing_from_anybody(bench):
    job_id = bench.queue.submit(request_of())
    bench.queue.claim("w", LEASE_S)
    bench.clock.pass_s(LEASE_S + 1)
    newcomer = bench.reopen()

    assert newcomer.queue.claim("w2", LEASE_S) is None
    newcomer.clock.pass_s(LEASE_S + 1)
    assert newcomer.queue.claim("w2", LEASE_S).job_id == job_id


def test_a_worker_whose_data_folder_is_away_claims_nothing(bench):
    def away() -> str:
        raise TransientError(Reason.QUEUE_UNAVAILABLE, "queue.id")

    bench.queue.submit(request_of())
    worker = PostgresQueue(bench.server, QUEUE_NAME, away)

    with pytest.raises(TransientError):
        worker.claim("w", LEASE_S)
    assert bench.queue.claim("w", LEASE_S).attempt == 1


def test_the_queue_of_another_bridge_is_left_alone(bench):
    bench.queue.submit(request_of())
    stranger = PostgresQueue(bench.server, QUEUE_NAME, lambda: "another")

    with pytest.raises(PermanentError) as error:
        stranger.claim("w", LEASE_S)
    assert error.value.reason is Reason.WRONG_QUEUE
    with pytest.raises(PermanentError):
        prepare(bench.server, QUEUE_NAME, "another")
    prepare(bench.server, "its-own", "another")


def test_two_queues_of_a_database_know_nothing_of_each_other(bench):
    prepare(bench.server, "second", "another")
    second = PostgresQueue(bench.server, "second", lambda: "another")
    bench.queue.submit(request_of())

    assert second.claim("w", LEASE_S) is None
    second.submit(request_of("1.5"))
    assert bench.queue.claim("w", LEASE_S).request == request_of()
    assert second.claim("w", LEASE_S).request == request_of("1.5")


def test_a_worker_waits_for_the_bridge_to_make_the_queue(postgres):
    server = Server(postgres.new_database())
    worker = PostgresQueue(server, QUEUE_NAME, lambda: OWNER)

    with pytest.raises(TransientError) as error:
        worker.claim("w", LEASE_S)
    assert error.value.reason is Reason.QUEUE_UNAVAILABLE
    prepare(server, QUEUE_NAME, OWNER)
    assert worker.claim("w", LEASE_S) is None
    worker.close()


# --- what others write ---

GOOD = job_payload(1, request_of("1.2.3"), "2026-11-22T04:00:00+00:00")


@pytest.mark.parametrize(
    "change",
    [
        {"code": "import os"},
        {"format": "2"},
        {"format": 0},
        {"job": 10**30},
        {"revision": int("9" * 4000)},
        {"destinations": ["a"] * 100_000},
        {"job": "1"},
        {"series_instance_uid": "../../x"},
        {"series_instance_uid": "1.2\n"},
        {"study_instance_uid": "Doe^Jane"},
        {"revision": 0},
        {"model": "../../other"},
        {"model": "a/b"},
        {"route": ""},
        {"destinations": "archive"},
        {"destinations": ["/etc"]},
        {"source": "https://example.org"},
        {"priority": "urgent"},
        {"created": "yesterday"},
        {"created": "2026-11-22T04:00:00"},
    ],
)
def test_a_payload_with_anything_but_ids_ends_the_job_and_the_next_one_is_claimed(bench, change):
    job_id = bench.queue.submit(request_of("1.1"))
    other = bench.queue.submit(request_of("1.2"))
    with psycopg.connect(bench.url) as connection:
        connection.execute(
            "UPDATE procrastinate_jobs SET args = args || %s::jsonb"
            " WHERE id = (SELECT task_id FROM pacs_bridge_jobs WHERE id = %s)",
            (json.dumps(change), job_id),
        )

    assert bench.queue.claim("w", LEASE_S).job_id == other
    assert bench.state(job_id) is State.DEAD


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000], ids=["long", "deep"])
def test_json_that_python_cannot_hold_ends_its_job_and_no_worker(bench, value):
    job_id = bench.queue.submit(request_of("1.1"))
    other = bench.queue.submit(request_of("1.2"))
    with psycopg.connect(bench.url) as connection:
        connection.execute(
            "UPDATE procrastinate_jobs SET args = jsonb_set(args, '{revision}', %s::jsonb)"
            " WHERE id = (SELECT task_id FROM pacs_bridge_jobs WHERE id = %s)",
            (value, job_id),
        )

    assert bench.queue.claim("w", LEASE_S).job_id == other
    assert bench.state(job_id) is State.DEAD


def test_a_job_of_another_release_is_left_to_a_worker_that_understands_it(bench):
    job_id = bench.queue.submit(request_of("1.1"))
    with psycopg.connect(bench.url) as connection:
        connection.execute(
            'UPDATE procrastinate_jobs SET args = args || \'{"format": 2, "new": [1]}\''
        )

    with pytest.raises(TransientError) as error:
        bench.queue.claim("w", LEASE_S)
    assert error.value.reason is Reason.WRONG_RECIPE
    assert bench.state(job_id) is State.READY


def test_a_worker_that_means_something_else_leaves_the_job_and_pauses(bench):
    job_id = bench.queue.submit(request_of("1.1"))
    worker = PostgresQueue(bench.server, QUEUE_NAME, lambda: OWNER, 3, lambda _payload: "weights")
    with pytest.raises(TransientError) as error:
        worker.claim("w", LEASE_S)

    assert (error.value.reason, error.value.detail) == (
        Reason.WRONG_RECIPE,
        f"job {job_id}: weights",
    )
    assert worker.claim("w", LEASE_S) is None
    bench.clock.pass_s(11)
    assert bench.queue.claim("w2", LEASE_S).attempt == 1


@pytest.mark.parametrize("detail", ["a\0b", "a\udcffb"])
def test_a_detail_that_postgresql_cannot_hold_is_no_fault_of_the_worker(bench, detail):
    parked = bench.queue.submit(request_of("1.1"))
    done = bench.queue.submit(request_of("1.2"))
    claims = {claim.job_id: claim for claim in (bench.queue.claim("w", 60) for _ in range(2))}
    bench.queue.park(claims[parked], Reason.CORRUPT_PIXEL_DATA, detail)
    bench.queue.complete(claims[done], [result_of()], [Finding(Reason.GANTRY_TILT, detail)])

    assert bench.state(parked) is State.DEAD
    assert bench.state(done) is State.SENDING


def test_a_task_of_someone_else_in_our_queue_is_ended_and_not_run(bench):
    with psycopg.connect(bench.url) as connection:
        connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
            " VALUES (%s, 'os.system', '{\"command\": \"true\"}')",
            (QUEUE_NAME,),
        )
    job_id = bench.queue.submit(request_of())

    assert bench.queue.claim("w", LEASE_S).job_id == job_id
    assert bench.queue.claim("w", LEASE_S) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(key=st.sampled_from(sorted(GOOD)) | st.text(), value=JSON)
def test_whatever_stands_in_a_payload_it_is_parsed_or_refused(key, value):
    try:
        payload = parsed_payload(json.dumps(GOOD | {key: value}))
    except PermanentError as error:
        refused: Reason | None = error.reason
    except UnknownFormatError:
        assert key == "format"
        refused = None
    else:
        refused = None
        assert payload.request.series_instance_uid.strip("0123456789.") == ""
    assert refused in (None, Reason.BAD_PAYLOAD)


# --- connection strings ---


def test_every_wait_for_the_network_has_a_limit_that_the_url_may_set_itself():
    plain = connection_string("postgresql://bridge@db/x")
    given = connection_string("postgresql://bridge@db/x?connect_timeout=60&sslmode=verify-full")

    assert "connect_timeout=5" in plain
    assert "tcp_user_timeout=10000" in plain
    assert "statement_timeout" in plain
    assert "connect_timeout=60" in given
    assert "sslmode=verify-full" in given


def test_a_password_in_a_url_is_seen():
    assert has_password("postgresql://bridge:secret@db/x")
    assert has_password("host=db password=secret")
    assert not has_password("postgresql://bridge@db/x?passfile=/etc/pgpass")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bridge:TopSec%ret@db/x",
        "postgresql://bridge:TopSec/ret@db:5432/x",
        "postgresql://bridge:12/TopSecret@db:5432/x",
        "postgresql://bridge:TopSec@ret@db/x",
        "postgresql://bridge@db/x?PASSWORD=TopSecret",
        "host=db password=ge TopSecret",
    ],
)
def test_no_fault_of_a_connection_string_repeats_any_of_it(url):
    with pytest.raises(PermanentError) as error:
        Server(url)
    assert "TopSec" not in f"{error.value} {error.value.__cause__}"


def test_what_is_no_connection_string_is_a_fault_of_the_configuration():
    with pytest.raises(PermanentError) as error:
        Server("postgresql://db/x?no_such_parameter=1")
    assert error.value.reason is Reason.WRONG_QUEUE


def test_a_claim_waits_for_no_job_that_somebody_else_is_about(bench):
    """Who has the row of a job may want its task, which a claim has locked: a deadlock."""
    held, free = (bench.queue.submit(request_of(f"1.{n}")) for n in range(2))
    other = psycopg.connect(bench.url)
    other.execute("SELECT 1 FROM pacs_bridge_jobs WHERE id = %s FOR UPDATE", (held,))

    assert bench.queue.claim("w", LEASE_S).job_id == free
    assert bench.queue.claim("w", LEASE_S) is None

    other.close()
    assert bench.queue.claim("w", LEASE_S).job_id == held


def test_withdrawing_what_others_claim_ends_in_no_deadlock(bench):
    over = HandedOver(bench.server, QUEUE_NAME)
    faults: list[Exception] = []

    def claim_and_give_back(queue: PostgresQueue) -> None:
        try:
            while not is_over.is_set():
                if (claim := queue.claim("w", LEASE_S)) is not None:
                    with suppress(LeaseLostError):
                        queue.release(claim)
        except Exception as error:
            faults.append(error)

    is_over = threading.Event()
    queues = [bench.reopen().queue for _ in range(2)]
    threads = [threading.Thread(target=claim_and_give_back, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(25):
            jobs = [bench.queue.submit(request_of(f"1.{round_}.{n}")) for n in range(4)]
            over.withdraw_waiting(jobs)
            over.withdraw(jobs)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert faults == []
