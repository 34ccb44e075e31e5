"""Money for seconds, and where it is told."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from pacs_bridge.archive.accounts import account_of, series_lines
from pacs_bridge.archive.cost import MachineCost
from pacs_bridge.archive.recipe import Recipe
from pacs_bridge.archive.report_page import PageText, page
from pacs_bridge.archive.report_table import write_csv, write_parquet
from pacs_bridge.archive.run_log import RunClock

COST = MachineCost(7200.0)  # two a second
SECONDS = {"read": 1.0, "segment": 3.0}


@pytest.fixture
def plan(tree, plan_of):
    """One series that is done, by workers of a service or not, and one that is not."""
    tree.add("run", "a")
    tree.add("run", "b")
    plan = plan_of(tree.root).plan
    with plan.write() as connection:
        connection.execute(
            "UPDATE series SET state = 'done', made = ? WHERE number = 1",
            (json.dumps({"seconds": SECONDS, "outputs": 1, "precision": "bf16"}),),
        )
    return plan


@pytest.fixture
def run(plan, clock):
    """Note a run of two seconds."""

    def note(is_own: bool) -> None:
        run = RunClock(plan, Recipe("m", "d", "r"), clock, is_own)
        clock.pass_s(2)
        run.tick(is_working=True, is_last=True)

    return note


def test_tables_tell_the_cost_of_each_stage_where_it_is_asked_for(plan, ram_folder):
    write_csv(series_lines(plan), ram_folder / "account.csv", COST)
    write_parquet(series_lines(plan), ram_folder / "account.parquet", COST)
    done, planned = csv.DictReader((ram_folder / "account.csv").read_text().splitlines())
    assert (done["read_cost"], done["segment_cost"], done["all_cost"]) == ("2.0", "6.0", "8.0")
    assert (planned["segment_cost"], planned["all_cost"], done["fetch_cost"]) == ("", "", "")
    assert done["precision"] == "bf16"
    table = pq.read_table(ram_folder / "account.parquet")
    assert table.column("all_cost").to_pylist() == [8.0, None]
    write_csv(series_lines(plan), ram_folder / "account.csv")
    assert "cost" not in (ram_folder / "account.csv").read_text()


def test_the_page_tells_the_cost_of_the_machine_and_of_each_stage(plan, run):
    run(is_own=True)
    text = page(account_of(plan), PageText("", datetime(2026, 1, 1, tzinfo=UTC), COST))
    assert "<b>4.00</b><span class='quiet'>cost of the machine" in text
    assert "<td>segment</td><td class='n'>3</td><td class='n'>6.00</td>" in text
    assert "One after the other</td><td class='n'>4</td><td class='n'>8.00</td>" in text


def test_a_run_by_a_service_tells_no_share_and_no_cost_of_a_machine(plan, run):
    run(is_own=True)
    assert account_of(plan).segment_share == 1.5  # not held down: it tells of a fault
    run(is_own=False)
    account = account_of(plan)
    assert account.run_seconds == 4
    assert (account.own_run_seconds, account.segment_share) == (None, None)
    text = page(account, PageText("", datetime(2026, 1, 1, tzinfo=UTC), COST))
    assert "cost of the machine" not in text
    assert "<b>8.00</b><span class='quiet'>cost of all stages" in text


def test_runs_of_an_earlier_version_are_not_taken_for_ones_of_their_own(plan, run):
    run(is_own=True)
    with plan.write() as connection:
        connection.execute("UPDATE runs SET is_own = NULL")
    assert account_of(plan).segment_share is None
