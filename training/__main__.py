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
@click.option(
    "--steps", type=click.IntRange(1), default=2800, show_default=True, help="Training steps."
)
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
@click.option(
    "--card", type=click.Path(dir_okay=False, path_type=Path), help="Model card to write as well."
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="bf16", show_default=True)
def score(
    store: Path, model: str, seeds: int, out: Path, card: Path | None, precision: str
) -> None:
    """Judge a model on synthetic patients that no training saw, by the clinic's own path."""
    from inference.model_store import ModelStore
    from inference.segmenter import SegmenterOptions, SegResNetSegmenter
    from inference.windows import Precision, WindowSpec
    from training.model_card import model_card
    from training.synthetic_evaluation import (
        HELD_OUT_SEEDS,
        mean_dice,
        score_seeds,
        swap_count,
        write_scores,
    )

    windows = WindowSpec(precision=Precision(precision), channels_last=True)
    segmenter = SegResNetSegmenter(ModelStore(store).load(model), SegmenterOptions(windows=windows))
    scores = []
    for seed in HELD_OUT_SEEDS[:seeds]:
        scores += score_seeds(segmenter, [seed])
        line = f"patient {seed}: mean Dice so far {mean_dice(scores):.4f}"
        click.echo(line, err=True)
    write_scores(scores, out)
    if card is not None:
        command = (
            f"python -m training score --model {model} --seeds {seeds} --precision {precision}"
        )
        card.write_text(
            model_card(ModelStore(store).manifest(model), scores, command), encoding="utf-8"
        )
    click.echo(f"mean Dice {mean_dice(scores):.4f}, left/right swaps {swap_count(scores)}")


if __name__ == "__main__":
    main(prog_name="python -m training")
