"""``python -m training``: offline work on weights."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def main() -> None:
    """Make and judge weights, offline."""


@main.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Of weights and windows.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for cases, checkpoint and model; an interrupted run goes on from it.",
)
@click.option("--steps", type=click.IntRange(1), default=1_000_000, help="Training steps.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=float("inf"),
    help="End by then; the learning rate falls accordingly.",
)
@click.option("--workers", type=click.IntRange(1), default=2, help="Processes that make cases.")
def embedded(seed: int, out: Path, steps: int, minutes: float, workers: int) -> None:
    """Train the small demonstration model on synthetic patients."""
    from training.embedded import EmbeddedRun, run_embedded

    run = EmbeddedRun(seed=seed, folder=out, steps=steps, minutes=minutes, workers=workers)
    manifest = run_embedded(run, lambda line: click.echo(line, err=True))
    click.echo(f"{out / 'models' / manifest.name} {manifest.weights_sha256}")


if __name__ == "__main__":
    main(prog_name="python -m training")
