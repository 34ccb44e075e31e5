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


@main.command()
@click.option(
    "--store",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Model store.",
)
@click.option("--model", default="synthetic-3mm", show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="CSV to write."
)
def score(store: Path, model: str, seeds: int, out: Path) -> None:
    """Judge a model on synthetic patients that no training saw, by the clinic's own path."""
    from inference.model_store import ModelStore
    from inference.segmenter import SegResNetSegmenter
    from training.synthetic_evaluation import (
        HELD_OUT_SEEDS,
        mean_dice,
        score_seeds,
        swap_count,
        write_scores,
    )

    segmenter = SegResNetSegmenter(ModelStore(store).load(model))
    scores = score_seeds(segmenter, HELD_OUT_SEEDS[:seeds])
    write_scores(scores, out)
    click.echo(f"mean Dice {mean_dice(scores):.4f}, left/right swaps {swap_count(scores)}")


if __name__ == "__main__":
    main(prog_name="python -m training")
