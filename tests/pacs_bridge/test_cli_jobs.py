"""``pacs-bridge retry`` on what has no job."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pacs_bridge.cli.main import main
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import State


@pytest.fixture
def given_up(make_config, start_listener, send, make_ct, wait_for):
    """A series without a job that is dead; its UID."""
    config = make_config()
    listener = start_listener(config)
    series = str(make_ct().SeriesInstanceUID)
    send(listener.port, [make_ct()], abort=True)
    ledger = Ledger.open(config.ledger_path)
    wait_for(lambda: [view.state for view in ledger.view.series(series)] == [State.INCOMPLETE])
    listener.stop()
    assert ledger.series.give_up_incomplete(-1.0) == (series,)
    return series


def test_a_dead_series_without_a_job_is_named_and_can_be_gone_on_with(
    given_up, make_config, ram_folder
):
    config = ["--config", str(ram_folder / "bridge.toml")]
    told = CliRunner().invoke(main, ["retry", "--dead", *config])
    assert told.exit_code == 1
    assert told.output == f"series {given_up}: dead without a job; go on with it by --series\n"

    forced = CliRunner().invoke(main, ["retry", "--series", given_up, *config])
    assert (forced.exit_code, forced.output) == (0, "series: goes on as it is\n")
    (view,) = Ledger.open(make_config().ledger_path).view.series(given_up)
    assert view.state is State.QUIET
    assert CliRunner().invoke(main, ["retry", "--dead", *config]).exit_code == 0
