"""``python -m training evaluate``: a model, or label files, judged against the truth."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from training.clinic_segmenter import (
    clinic_segmenter,
    precision_option,
    whole_volume_option,
)

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--dataset-dir", type=_FOLDER, required=True, help="With imagesTs and labelsTs.")
@click.option(
    "--split",
    type=click.Choice(["test", "training"]),
    default="test",
    show_default=True,
    help="Test: imagesTs and labelsTs; training: imagesTr and labelsTr.",
)
@click.option("--store", type=_FOLDER, help="Model store.")
@click.option("--model", help="Name in the store.")
@click.option("--predictions", type=_FOLDER, help="Label files to judge in place of a model.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:0.")
@precision_option
@whole_volume_option
@click.option(
    "--tolerance-mm",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Of the surface Dice.",
)
@click.option(
    "--tolerances",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV with structure and tolerance_mm, for structures that have their own.",
)
@click.option("--rank", type=click.IntRange(0), default=0, envvar="RANK", help="Of this process.")
@click.option(
    "--world-size",
    type=click.IntRange(1),
    default=1,
    envvar="WORLD_SIZE",
    help="Processes that share the cases.",
)
def evaluate(
    dataset_dir: Path,
    split: str,
    store: Path | None,
    model: str | None,
    predictions: Path | None,
    out: Path,
    device: str,
    precision: str,
    whole_volume: bool,
    tolerance_mm: float,
    tolerances: Path | None,
    rank: int,
    world_size: int,
) -> None:
    """Dice, surface Dice, HD95 and volume by structure, by case and in all.

    Writes CSV files and evaluation.html to the folder OUT. Exits with 1 if a case could not
    be judged.
    """
    from inference.errors import InferenceError
    from training.dataset import DatasetFolder
    from training.evaluation.run import EvaluationOptions, evaluate_cases
    from training.evaluation.sources import LabelSource, ModelLabels, StoredLabels
    from training.evaluation.summary import headline
    from training.evaluation.tolerances import Tolerances, read_tolerances

    if (predictions is None) == (store is None or model is None):
        raise click.UsageError("name either --predictions, or --store and --model")
    if rank >= world_size:
        raise click.UsageError(f"--rank {rank} of --world-size {world_size}")
    try:
        folder = DatasetFolder(dataset_dir)
        pairs = folder.test_pairs() if split == "test" else folder.training_pairs()
        limits = Tolerances(tolerance_mm)
        if tolerances is not None:
            limits = read_tolerances(tolerances, tolerance_mm)
        source: LabelSource
        if predictions is not None:
            source = StoredLabels(predictions)
        else:
            assert store is not None
            assert model is not None
            source = ModelLabels(clinic_segmenter(store, model, device, precision, whole_volume))
        options = EvaluationOptions(limits, lambda line: click.echo(line, err=True))
        outcome = evaluate_cases(source, pairs, out, rank, world_size, options)
    except InferenceError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    if outcome is None:
        click.echo("share done; the process that comes last writes the report")
        return
    click.echo(headline(outcome.cases))
    if outcome.failures:
        sys.exit(1)
