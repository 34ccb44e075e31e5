"""``pacs-bridge jobs`` and ``retry``: what the ledger knows, and an operator's hand on it."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pacs_bridge.cli.configuration import config_option, loaded
from pacs_bridge.cli.ledger import opened_ledger
from pacs_bridge.cli.outcome import FAILED, coded_failures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import DataclassInstance

    from pacs_bridge.ledger.ledger import Ledger
    from pacs_bridge.ledger.views import JobView

_STATES = (
    *("receiving", "quiet", "incomplete", "ready", "claimed", "segmented", "encoded"),
    *("sending", "sent", "committed", "retry", "dead", "skipped", "superseded"),
)


@click.command()
@click.argument("job_id", metavar="[JOB]", type=int, required=False)
@config_option
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these.")
@click.option("--series", "series_uid", metavar="UID", help="Only this series.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def jobs(
    job_id: int | None,
    config_path: Path,
    states: tuple[str, ...],
    series_uid: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List series and jobs, the latest change first; with JOB, all that is known of one."""
    from pacs_bridge.queue import State

    with coded_failures(as_json), opened_ledger(loaded(config_path), config_path) as ledger:
        if job_id is not None:
            _inspect(ledger, job_id, as_json)
            return
        wanted = [State(state) for state in states] or None
        if series_uid is None:
            rows = ledger.view.jobs(wanted, limit)
        else:
            of_series = ledger.view.series(series_uid)
            rows = tuple(row for row in of_series if not wanted or row.state in wanted)[-limit:]
        if as_json:
            click.echo(json.dumps([_plain(row) for row in rows], indent=2))
            return
        _list(rows)
        counts = ledger.view.state_counts()
        summary = ", ".join(f"{number} {state}" for state, number in counts.items())
        click.echo(f"in all: {summary or 'nothing'}")


@click.command()
@click.argument("job_ids", metavar="[JOB]...", type=int, nargs=-1)
@config_option
@click.option("--dead", is_flag=True, help="All jobs that are dead.")
@click.option("--series", "series_uid", metavar="UID", help="Go on with a series that has no job.")
def retry(job_ids: tuple[int, ...], config_path: Path, dead: bool, series_uid: str | None) -> None:
    """Try jobs again at once: dead, skipped or waiting ones.

    A job that has results keeps them; only its deliveries are tried again. With --series an
    incomplete series is taken as it is, and so is one that was given up; for one that was
    skipped before it had a job the routes are looked at again.
    """
    from pacs_bridge.ledger.series import ForceOutcome
    from pacs_bridge.queue import State

    if not (job_ids or dead or series_uid):
        raise click.UsageError("name jobs, or --dead, or --series UID")
    failed = False
    with coded_failures(False), opened_ledger(loaded(config_path), config_path) as ledger:
        wanted = [*job_ids]
        if dead:
            views = ledger.view.jobs([State.DEAD], limit=1_000_000)
            wanted += [view.job_id for view in views if view.job_id is not None]
            for series in dict.fromkeys(
                view.series_instance_uid for view in views if view.job_id is None
            ):
                failed = True
                click.echo(f"series {series}: dead without a job; go on with it by --series")
        for job_id in dict.fromkeys(wanted):
            done = ledger.steering.retry_job(job_id) or ledger.steering.send_now(job_id) > 0
            failed |= not done
            click.echo(f"job {job_id}: {'tried again' if done else 'nothing to try again'}")
        if series_uid is not None:
            outcome = ledger.series.force(series_uid)
            failed |= outcome is not ForceOutcome.FORCED
            click.echo(f"series: {outcome}")
    if failed:
        raise click.exceptions.Exit(FAILED)


def _list(rows: Sequence[JobView]) -> None:
    for row in rows:
        job = f"job {row.job_id}" if row.job_id is not None else "no job"
        why = f"  {row.reason}: {row.detail}" if row.reason else ""
        owed = f", {row.owed_count} refused and owed" if row.owed_count else ""
        again = f"  again at {row.due_at:%Y-%m-%d %H:%M:%S}" if row.due_at else ""
        click.echo(
            f"{row.state_at:%Y-%m-%d %H:%M:%S}  {row.state:11}  {job:8}"
            f"  {row.instance_count} instances{owed}  {row.series_instance_uid}"
            f"  revision {row.revision}  {row.route}{why}{again}"
        )


def _inspect(ledger: Ledger, job_id: int, as_json: bool) -> None:
    view = ledger.view.job(job_id)
    if view is None:
        click.echo(f"no job {job_id}")
        raise click.exceptions.Exit(FAILED)
    deliveries = ledger.view.deliveries(job_id)
    history = ledger.view.history(view.series_instance_uid)
    if as_json:
        facts = {
            "job": _plain(view),
            "deliveries": [_plain(each) for each in deliveries],
            "history": [_plain(each) for each in history],
        }
        click.echo(json.dumps(facts, indent=2))
        return
    _list([view])
    for delivery in deliveries:
        why = f"  {delivery.reason}: {delivery.detail}" if delivery.reason else ""
        click.echo(
            f"  to {delivery.destination}: {delivery.state}, attempt {delivery.attempts}{why}"
        )
    for change in history:
        why = f"  {change.reason}: {change.detail}" if change.reason else f"  {change.detail}"
        click.echo(f"  {change.at:%Y-%m-%d %H:%M:%S}  {change.state}{why.rstrip()}")


def _plain(view: DataclassInstance) -> dict[str, Any]:
    """A view as JSON holds it: UTC moments as ISO 8601."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(view).items()
    }
