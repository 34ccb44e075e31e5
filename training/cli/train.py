"""``python -m training train``: weights from a dataset folder."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--preset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="TOML; configs/ holds those of the project.",
)
@click.option(
    "--dataset-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Holds imagesTr and labelsTr.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for checkpoints, curves and pictures.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of preprocessed cases; several runs may share it.  [default: OUT/cases]",
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT, if there is one.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the preset."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    help="Processes that preprocess and draw windows, for each training process.",
)
def train(
    preset: Path,
    dataset_dir: Path,
    out: Path,
    cache: Path | None,
    resume: bool,
    overrides: tuple[str, ...],
    device: str,
    workers: int,
) -> None:
    """Train a network on the scans of a dataset folder.

    Started by torchrun, its processes train together: torchrun --nproc_per_node=2 -m
    training train ...
    """
    import os

    from inference.errors import InferenceError
    from inference.reasons import Reason
    from training.case_cache import cache_pairs
    from training.dataset import DatasetFolder
    from training.preset import load_preset
    from training.trainer import TrainingRun, run_training

    first = os.environ.get("RANK", "0") == "0"

    def log(line: str) -> None:
        if first:
            click.echo(line, err=True)

    try:
        chosen = load_preset(preset, overrides)
        pairs = chosen.split.of(DatasetFolder(dataset_dir).training_pairs())
        where = cache or out / "cases"
        cases, validation = (
            tuple(cache_pairs(part, chosen.case, where, max(workers, 1), log)) for part in pairs
        )
        run = TrainingRun(
            cases=cases,
            validation=validation,
            recipe=chosen.case,
            network=chosen.network,
            plan=chosen.plan,
            folder=out,
            augmentation=chosen.augmentation,
            seed=chosen.seed,
            precision=chosen.precision,
            device=device,
            workers=workers,
            resume=resume,
        )
        result = run_training(run, log)
    except InferenceError as error:
        if error.reason is Reason.TRAINING_PRESET:
            raise click.UsageError(str(error)) from error
        raise click.ClickException(str(error)) from error
    if first:
        click.echo(result.checkpoint)
        if (row := result.validation) is not None:
            click.echo(f"{result.best} {row.measure}: {row.score:.4f}")
