"""``[queue]``, and the commands that go with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from queue_bench import PostgresBench, request_of

from pacs_bridge.checkup import Health, _queue
from pacs_bridge.cli.main import main
from pacs_bridge.config.load import ConfigError
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import DISPATCHER, State
from pacs_bridge.startup import child_specs, keep_handed_over

URL = '{ url = "postgresql://bridge@db/x" }'


def names(config) -> list[str]:
    return [spec.name for spec in child_specs(config, Path("bridge.toml"))]


def test_a_bridge_that_hands_over_segments_here_only_if_told_to(make_config):
    local = '{ url = "postgresql://bridge@db/x", local_workers = true }'

    assert names(make_config()) == ["listener", "worker0", "sender"]
    assert names(make_config(queue=URL)) == ["listener", "dispatcher", "sender"]
    assert names(make_config(queue=local)) == ["listener", "worker0", "dispatcher", "sender"]


@pytest.mark.parametrize(
    ("queue", "problem"),
    [
        ('{ url = "postgresql://bridge:secret@db/x" }', "password file"),
        ('{ url = "postgresql://bridge@db/x?password=secret" }', "password file"),
        ('{ url = "postgresql://bridge:s3cr#t/x@db/x" }', "password file"),
        ('{ url = "postgresql://bridge:s3/t@db/x" }', "password file"),
        ('{ url = "postgresql://db/x?sslpassword=hunter2" }', "password file"),
        ('{ url = "redis://db" }', "postgresql://"),
        ('{ url = "postgresql://db/x", name = "a b" }', "queue.name"),
        ('{ url = "postgresql://db/x", waiting_jobs = 0 }', "queue.waiting_jobs"),
    ],
)
def test_what_is_wrong_with_a_queue_is_said(make_config, queue, problem):
    with pytest.raises(ConfigError, match=problem):
        make_config(queue=queue)


def test_what_was_handed_over_comes_back_when_no_queue_is_configured_any_more(make_config):
    config = make_config(queue=URL)
    config.data_folder.mkdir()
    ledger = Ledger.open(config.ledger_path)
    job_id = ledger.jobs.submit(request_of())
    ledger.jobs.claim(DISPATCHER, 60.0)

    keep_handed_over(ledger, config)
    assert ledger.view.job(job_id).state is State.CLAIMED
    keep_handed_over(ledger, make_config())
    assert ledger.view.job(job_id).state is State.READY
    assert ledger.jobs.claim("local", 60.0).attempt == 1
    ledger.close()


def test_doctor_says_how_the_queue_stands(make_config, postgres):
    url = postgres.new_database()
    config = make_config(queue=f'{{ url = "{url}" }}')
    assert _queue(config.queue).detail == "none yet"
    bench = PostgresBench(url)
    bench.queue.submit(request_of("1.1"))

    nobody = _queue(config.queue)
    assert (nobody.health, nobody.detail) == (
        Health.DOUBT,
        "1 waiting, 0 claimed, 0 settled, 0 workers",
    )
    bench.queue.claim("w", 60.0)
    at_work = _queue(config.queue)
    assert (at_work.health, at_work.detail) == (
        Health.GOOD,
        "0 waiting, 1 claimed, 0 settled, 1 workers",
    )
    bench.close()
    away = _queue(make_config(queue='{ url = "postgresql://127.0.0.1:1/x" }').queue)
    assert away.health is Health.BAD


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dispatch"], "queue: missing"),
        (["work", "--queue", "postgresql://db/x?no_such=1"], "not a connection string"),
    ],
)
def test_a_wrong_call_ends_with_status_2(make_config, tmp_path, arguments, said):
    make_config(tmp_path)
    done = CliRunner().invoke(main, [*arguments, "--config", str(tmp_path / "bridge.toml")])

    assert done.exit_code == 2
    assert said in done.output
