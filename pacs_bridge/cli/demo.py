"""``pacs-bridge demo``: everything at once, on a synthetic patient."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pacs_bridge.cli.outcome import FAILED, coded_failures
from pacs_bridge.cli.progress import steps

if TYPE_CHECKING:
    from pacs_bridge.demo import DemoResult
    from pacs_bridge.demo_score import Score

DEFAULT_SEED = 5
DEFAULT_MODEL = "synthetic-3mm"


@click.command()
@click.option(
    "--out",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Folder for everything that the demo makes; an earlier demo there is replaced.",
)
@click.option("--seed", type=click.IntRange(min=0), default=DEFAULT_SEED, show_default=True)
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="Name in the model store.")
@click.option(
    "--models",
    "models_folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the model store.",
)
@click.option("--open", "open_picture", is_flag=True, help="Show the picture in a viewer.")
def demo(
    folder: Path, seed: int, model: str, models_folder: Path | None, open_picture: bool
) -> None:
    """Send a synthetic patient through the service and compare the result with the truth.

    Listener, worker, sender and an archive run as processes of their own; the CT goes in and
    the Segmentation comes out over real associations on loopback. Exits with 1 if the mean
    Dice over structures of 5 mL and more is below 0.80 or a left and right are swapped.
    """
    from pacs_bridge.demo import DemoSettings, run_demo

    settings = DemoSettings(folder, seed, model, models_folder and models_folder.resolve())
    with coded_failures(False), steps() as tell:
        result = run_demo(settings, tell)
    _print_table(result.score)
    _print_verdict(result)
    if open_picture:
        click.launch(str(result.pictures[0]))
    if not result.score.is_good:
        raise click.exceptions.Exit(FAILED)


def _print_table(score: Score) -> None:
    from rich.console import Console
    from rich.table import Table

    from inference.structures import structure

    table = Table("structure", box=None, pad_edge=False)
    for heading in ("truth mL", "found mL", "Dice"):
        table.add_column(heading, justify="right")
    for each in score.structures:
        table.add_row(
            structure(each.structure_id).name,
            f"{each.truth_ml:.1f}",
            f"{each.found_ml:.1f}",
            f"{each.dice:.3f}",
            style=None if each in score.counted else "dim",
        )
    Console(file=sys.stdout).print(table)


def _print_verdict(result: DemoResult) -> None:
    score = result.score
    click.echo(
        f"mean Dice {score.mean_dice:.3f} over {len(score.counted)} structures of 5 mL and more"
        f" ({len(score.structures)} in the field of view)"
    )
    click.echo(f"left and right swapped: {', '.join(score.swapped) or 'none'}")
    click.echo(f"Segmentation: {result.segmentation}")
    for picture in result.pictures:
        click.echo(f"picture: {picture}")


@click.command("demo-archive", hidden=True)
@click.option("--folder", required=True, type=click.Path(file_okay=False, path_type=Path))
def demo_archive(folder: Path) -> None:
    """Run the demo's archive alone."""
    from pacs_bridge.child import leave_on_signals
    from pacs_bridge.demo_archive import run_archive
    from pacs_bridge.library_settings import apply_library_settings

    apply_library_settings()
    run_archive(folder, lambda port: click.echo(str(port)), leave_on_signals())
