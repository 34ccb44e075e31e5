"""``python -m training export``: a checkpoint becomes a model that the clinic runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Model store to put it into.",
)
@click.option("--name", required=True, help="Of the model: lower case, digits, . _ -")
@click.option("--version", default="1", show_default=True)
@click.option("--source", required=True, help="Who made the weights.")
@click.option("--licence", required=True, help="Of the weights and of what they were trained on.")
@click.option("--data", required=True, help="What they were trained on.")
@click.option(
    "--intended-use",
    default="Research only; not validated for patients.",
    show_default=True,
)
@click.option("--demonstration", is_flag=True, help="Every object made with it will say so.")
@click.option("--replace", is_flag=True, help="Take the place of a model of that name.")
@click.option(
    "--card", type=click.Path(dir_okay=False, path_type=Path), help="Model card to write as well."
)
def export(
    checkpoint: Path,
    store: Path,
    name: str,
    version: str,
    source: str,
    licence: str,
    data: str,
    intended_use: str,
    demonstration: bool,
    replace: bool,
    card: Path | None,
) -> None:
    """Put the averaged weights of CHECKPOINT into a model store."""
    from inference.errors import InferenceError
    from inference.model_store import ModelStore
    from training.export import ModelDetails, export_model
    from training.model_card import short_card

    details = ModelDetails(
        name=name,
        version=version,
        source=source,
        licence=licence,
        intended_use=intended_use,
        demonstration=demonstration,
        data=data,
    )
    try:
        manifest = export_model(checkpoint, details, ModelStore(store), replace=replace)
    except InferenceError as error:
        raise click.ClickException(str(error)) from error
    if card is not None:
        card.write_text(short_card(manifest), encoding="utf-8")
    click.echo(f"{store / name} {manifest.weights_sha256}")
