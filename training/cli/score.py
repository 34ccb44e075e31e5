"""``python -m training score``: a model judged on held-out synthetic patients."""

from __future__ import annotations

from pathlib import Path

import click

from training.clinic_segmenter import (
    AUTO,
    clinic_segmenter,
    precision_option,
    whole_volume_option,
)


@click.command()
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
@precision_option
@whole_volume_option
def score(
    store: Path,
    model: str,
    seeds: int,
    out: Path,
    card: Path | None,
    precision: str,
    whole_volume: bool,
) -> None:
    """Judge a model on synthetic patients that no training saw, by the clinic's own path."""
    from inference.model_store import ModelStore
    from training.model_card import model_card
    from training.synthetic_evaluation import (
        HELD_OUT_SEEDS,
        mean_dice,
        score_seeds,
        swap_count,
        write_scores,
    )

    segmenter = clinic_segmenter(store, model, "cpu", precision, whole_volume)
    scores = []
    for seed in HELD_OUT_SEEDS[:seeds]:
        scores += score_seeds(segmenter, [seed])
        line = f"patient {seed}: mean Dice so far {mean_dice(scores):.4f}"
        click.echo(line, err=True)
    write_scores(scores, out)
    if card is not None:
        chosen = (
            dict(segmenter.identity.parameters)["precision"] if precision == AUTO else precision
        )
        command = (
            f"python -m training score --model {model} --seeds {seeds} --precision {chosen}"
            f"{' --whole-volume' if whole_volume else ''} --store {store} --out {out.name}"
        )
        card.write_text(
            model_card(ModelStore(store).manifest(model), scores, command), encoding="utf-8"
        )
    click.echo(f"mean Dice {mean_dice(scores):.4f}, left/right swaps {swap_count(scores)}")
