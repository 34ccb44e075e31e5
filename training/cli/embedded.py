"""``python -m training embedded``: the model that the package carries."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Of weights and windows.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for cases, checkpoint and model; an interrupted run goes on from it.",
)
@click.option(
    "--steps", type=click.IntRange(1), default=2800, show_default=True, help="Training steps."
)
@click.option("--workers", type=click.IntRange(1), default=2, help="Processes that make cases.")
def embedded(seed: int, out: Path, steps: int, workers: int) -> None:
    """Train the small demonstration model on synthetic patients."""
    from training.embedded import EmbeddedRun, run_embedded

    run = EmbeddedRun(seed=seed, folder=out, steps=steps, workers=workers)
    manifest = run_embedded(run, lambda line: click.echo(line, err=True))
    click.echo(f"{out / 'models' / manifest.name} {manifest.weights_sha256}")
