"""How the outcomes and the account of a plan are told: as text, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

    from pacs_bridge.archive.accounts import Account, OutcomeCount
    from pacs_bridge.archive.cost import MachineCost


def known_counts(run_folder: Path) -> tuple[OutcomeCount, ...]:
    """How many series of a plan have which outcome. Raises as ``PlanFile`` does."""
    from pacs_bridge.archive.accounts import outcome_counts
    from pacs_bridge.archive.plan_file import PlanFile

    with PlanFile(run_folder) as known:
        return outcome_counts(known)


def counted(counts: Iterable[OutcomeCount]) -> dict[str, Any]:
    """The same as values for JSON."""
    rows = [asdict(count) for count in counts]
    return {"series": sum(row["series"] for row in rows), "outcomes": rows}


def print_counts(counts: Iterable[OutcomeCount]) -> None:
    """The same as text, a line an outcome."""
    total = 0
    for count in counts:
        total += count.series
        what = f"{count.state}: {count.reason}" if count.reason else count.state
        click.echo(f"{count.series:9} {what}")
    click.echo(f"{total:9} series in all")


def plain(account: Account, cost: MachineCost | None) -> dict[str, Any]:
    """A whole account as values for JSON; with a cost, what the stages cost as well."""
    derived: dict[str, Any] = {
        "open": account.open,
        "is_finished": account.is_finished,
        "run_seconds": account.run_seconds,
        "segment_share": account.segment_share,
    }
    if cost is not None:
        derived["cost"] = {
            "an_hour": cost.an_hour,
            "stages": cost.by_stage(account.seconds),
            "machine": cost.of_known(account.own_run_seconds),
        }
    return asdict(account) | derived


def print_account(account: Account, cost: MachineCost | None) -> None:
    """The same as text."""
    print_counts(account.outcomes)
    if account.open:
        click.echo(f"unfinished: {account.open} series are open")
    if account.stale:
        click.echo(f"{account.stale} results are stale: their files, model or settings changed")
    for stage, seconds in account.seconds.items():
        of_stage = "" if cost is None else f", cost {cost.of(seconds):.2f}"
        click.echo(f"{seconds:11.1f} s {stage}{of_stage}")
    if cost is not None:
        of_all = cost.by_stage(account.seconds)["all"]
        click.echo(f"all stages, one after the other: cost {of_all:.2f}")
    click.echo(f"{account.outputs} results, {account.output_bytes / 1e6:.1f} MB")
    if account.run_seconds:
        of_machine = account.own_run_seconds
        said = "" if cost is None or of_machine is None else f", cost {cost.of(of_machine):.2f}"
        click.echo(f"{account.run_seconds:.0f} s of runs{said}")
    if (share := account.segment_share) is not None:
        click.echo(f"a series was in the segment stage for {share:.0%} of them")
