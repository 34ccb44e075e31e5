"""``python -m training prepare``: the raw dataset in the layout that training reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from training.prepare.outcome import Outcome


@click.command()
@click.argument("raw", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the dataset; what an interrupted run made there is kept.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="processors",
    help="Cases at the same time.",
)
@click.option(
    "--remap-v2", is_flag=True, help="Take masks with names of TotalSegmentator v2 for v1's."
)
@click.option("--copy-images", is_flag=True, help="Copy scans where a hard link would do.")
def prepare(raw: Path, out: Path, workers: int, remap_v2: bool, copy_images: bool) -> None:
    """Make scans with one label file each of a raw TotalSegmentator v1 dataset.

    RAW holds a folder a case with ct.nii.gz and segmentations/, and meta.csv with the split.
    OUT gets imagesTr, labelsTr, imagesTs, labelsTs and prepare_report.csv. Exit 1 if a case
    was refused: the report says which, and why; all others are ready.
    """
    from training.dataset import DatasetError
    from training.prepare.outcome import Rules
    from training.prepare.report import REPORT
    from training.prepare.run import Preparation, prepare_dataset

    try:
        with _progress() as progress:
            preparation = Preparation(raw, out, workers, Rules(remap_v2, copy_images))
            outcomes = prepare_dataset(preparation, progress)
    except DatasetError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write the dataset: {error}") from error
    ready = sum(outcome.prepared for outcome in outcomes)
    click.echo(f"{ready} of {len(outcomes)} cases ready; {out / REPORT}")
    if ready < len(outcomes):
        sys.exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[Outcome, int, int], None]]:
    """A bar on a terminal, a line a case elsewhere; on stderr."""
    if not sys.stderr.isatty():
        yield lambda outcome, done, total: click.echo(_line(outcome, done, total), err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("cases", total=None)

        def show(outcome: Outcome, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not outcome.prepared:
                bar.console.print(_line(outcome, done, total), markup=False, highlight=False)

        yield show


def _line(outcome: Outcome, done: int, total: int) -> str:
    refusals = sorted({str(remark.reason) for remark in outcome.remarks if remark.refuses})
    what = "ready" if outcome.prepared else f"refused: {', '.join(refusals)}"
    return f"{done}/{total} {outcome.case} {what}"
