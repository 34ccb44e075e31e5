"""Where the jobs of ``pacs-bridge work`` come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pacs_bridge.cli.main import main
from pacs_bridge.cli.serve import _job_place, _jobs_here
from pacs_bridge.job_place import own_ledger
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.startup import child_specs

CONFIGURED = "postgresql://bridge@db/x"
QUEUE = f'{{ url = "{CONFIGURED}", name = "site", local_workers = true }}'


def asked(place) -> tuple[str, str]:
    return place.keywords["url"], place.keywords["name"]


def test_a_worker_takes_the_jobs_of_the_queue_that_is_named_or_configured(make_config):
    queued, alone = make_config(queue=QUEUE), make_config()

    assert asked(_job_place(queued, None, None)) == (CONFIGURED, "site")
    assert asked(_job_place(queued, "postgresql://b@c/d", "other")) == (
        "postgresql://b@c/d",
        "other",
    )
    assert asked(_job_place(alone, CONFIGURED, None)) == (CONFIGURED, "default")
    Ledger.open(alone.ledger_path).close()
    assert _job_place(alone, None, None) is own_ledger


def test_workers_of_serve_beside_a_queue_have_the_ledger(make_config):
    config = make_config(queue=QUEUE)
    (command,) = [spec.command for spec in child_specs(config, Path("b")) if spec.name == "worker0"]
    assert "--own-ledger" in command
    Ledger.open(config.ledger_path).close()
    assert _jobs_here(config) is own_ledger
    commands = [spec.command for spec in child_specs(make_config(), Path("b"))]
    assert not any("--own-ledger" in each for each in commands)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--own-ledger", "--queue", CONFIGURED], "--own-ledger"),
        (["--queue-name", "site"], "--queue-name"),
        (["--queue", ""], "no URL"),  # as a variable that is not set
        ([], "--queue URL"),  # a mount point before its mount, or a machine of its own
    ],
)
def test_a_call_that_leads_to_no_jobs_is_a_wrong_one_and_makes_nothing(
    make_config, ram_folder, options, said
):
    make_config()
    done = CliRunner().invoke(main, ["work", "--config", str(ram_folder / "bridge.toml"), *options])
    assert (done.exit_code, said in done.stderr) == (2, True)
    assert not (ram_folder / "data").exists()
