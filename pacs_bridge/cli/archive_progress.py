"""Progress of a plan and of a run on standard error: a line on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pacs_bridge.archive.feeder import FeedState
    from pacs_bridge.archive.planner import PlanProgress
    from pacs_bridge.archive.running import RunProgress

_LINE_EVERY_S = 10.0
_SHOW_EVERY_S = 2.0


class _Teller:
    """Says how far something is, not too often."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._is_terminal = sys.stderr.isatty()
        self._told_s = float("-inf")
        self._width = 0

    def tell(self, event: str, facts: Callable[[], dict[str, object]], last: bool = False) -> None:
        every_s = _SHOW_EVERY_S if self._is_terminal else _LINE_EVERY_S
        if self._quiet or (not last and time.monotonic() - self._told_s < every_s):
            return
        self._told_s = time.monotonic()
        values = facts()
        if not self._is_terminal:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            click.echo(json.dumps({"time": now, "event": event, **values}), err=True)
            return
        text = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in values.items())
        click.echo(f"\r{text:{self._width}}", err=True, nl=False)
        self._width = len(text)

    def end(self) -> None:
        if self._width:
            click.echo("", err=True)


@contextmanager
def plan_progress(quiet: bool) -> Iterator[PlanProgress]:
    """Show how far a plan is while the body runs."""
    teller = _Teller(quiet)

    def report(met: int, read: int, examined: int) -> None:
        teller.tell(
            "plan",
            lambda: {"files_met": met, "files_read": read, "series_examined": examined},
        )

    yield report
    teller.end()


@contextmanager
def run_progress(run_folder: Path, quiet: bool) -> Iterator[RunProgress]:
    """Show how far a run is while the body runs."""
    from pacs_bridge.archive.accounts import outcome_counts, recent_an_hour
    from pacs_bridge.archive.plan_file import PlanFile

    teller = _Teller(quiet)

    def facts(state: FeedState) -> dict[str, object]:
        with PlanFile(run_folder) as plan:
            counts = outcome_counts(plan)
            speed = recent_an_hour(plan)
        by_state: dict[str, int] = {}
        for count in counts:
            by_state[count.state] = by_state.get(count.state, 0) + count.series
        told: dict[str, object] = {
            "done": by_state.pop("done", 0),
            "at_work": by_state.pop("waiting", 0),
            "left": by_state.pop("planned", 0),
        }
        told |= {name.replace("-", "_"): number for name, number in sorted(by_state.items())}
        if speed is not None:
            told["an_hour"] = speed
        if not state.is_window_open:
            told["window"] = "closed"
        return told

    def report(state: FeedState, _seconds: float) -> None:
        teller.tell("run", lambda: facts(state), last=state.is_over)

    yield report
    teller.end()
