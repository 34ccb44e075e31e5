"""Progress of long work on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from pacs_bridge.stopwatch import ProgressReport, Stage

#: Told bytes done, and bytes in all where known.
DownloadReport = Callable[[int, int | None], None]

_LINE_STEP = 0.25  # of a stage, between two plain lines


@contextmanager
def series_progress(quiet: bool = False) -> Iterator[ProgressReport]:
    """Show the stages of one series while the body runs."""
    if quiet:
        yield lambda _stage, _fraction: None
    elif sys.stderr.isatty():
        with _bars() as report:
            yield report
    else:
        yield _lines()


def _lines() -> ProgressReport:
    told: dict[Stage, float] = {}

    def report(stage: Stage, fraction: float) -> None:
        last = told.get(stage, -1.0)
        if fraction == last or 0 < fraction < min(1.0, last + _LINE_STEP):
            return
        told[stage] = min(fraction, 1.0)
        click.echo(f"{stage.value} {told[stage]:.0%}", err=True)

    return report


@contextmanager
def _bars() -> Iterator[ProgressReport]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:8}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks = {}

        def report(stage: Stage, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage.value, total=1.0)
            progress.update(tasks[stage], completed=min(fraction, 1.0))

        yield report


@contextmanager
def download_progress(name: str, quiet: bool = False) -> Iterator[DownloadReport]:
    """Show a download while the body runs."""
    if quiet or not sys.stderr.isatty():
        yield _download_lines(name, quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _download_lines(name: str, quiet: bool) -> DownloadReport:
    told = -1

    def report(done: int, total: int | None) -> None:
        nonlocal told
        tenth = 10 * done // total if total else done // (100 << 20)
        if tenth != told and not quiet:
            told = tenth
            click.echo(f"{name}: {done / 1e6:.0f} MB", err=True)

    return report


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Tell steps that are done, one a line; on a terminal, a clock runs below them."""
    if not sys.stderr.isatty():
        yield lambda text: click.echo(text, err=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task("at work")
        yield progress.console.print
