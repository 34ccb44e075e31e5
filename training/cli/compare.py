"""``python -m training compare``: how far two segmentations of one scan agree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from training.compare.run import Values

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SIDE = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("a", type=_SIDE)
@click.argument("b", type=_SIDE)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option(
    "--labels-a",
    default="auto",
    show_default=True,
    help="Values of a NIfTI file: auto (the table within the file, else v1), v1, v2 "
    "(TotalSegmentator), or a CSV file with value and name.",
)
@click.option("--labels-b", default="auto", show_default=True, help="The same for B.")
@click.option("--resample", is_flag=True, help="Bring another grid to that of A, nearest.")
@click.option(
    "--tolerance-mm",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Of the surface Dice.",
)
@click.option("--tolerances", type=_FILE, help="CSV with structure and tolerance_mm.")
def compare(
    a: Path,
    b: Path,
    out: Path,
    labels_a: str,
    labels_b: str,
    resample: bool,
    tolerance_mm: float,
    tolerances: Path | None,
) -> None:
    """Compare segmentations A and B: NIfTI or DICOM SEG files, or folders of them.

    Files of two folders belong together if their names are the same but for the suffix. Writes
    CSV files and comparison.html to the folder OUT; differences are B less A. Exits with 1 if
    a pair could not be compared.
    """
    from inference.errors import InferenceError
    from training.compare.run import CompareOptions
    from training.compare.run import compare as compare_files
    from training.evaluation.summary import headline
    from training.evaluation.tolerances import Tolerances, read_tolerances

    try:
        limits = Tolerances(tolerance_mm)
        if tolerances is not None:
            limits = read_tolerances(tolerances, tolerance_mm)
        values = (_values(labels_a), _values(labels_b))
        options = CompareOptions(values, resample, limits, lambda line: click.echo(line, err=True))
        outcome = compare_files(a, b, out, options)
    except InferenceError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(headline(outcome.cases))
    if outcome.failures:
        sys.exit(1)


def _values(choice: str) -> Values:
    from training.compare.label_values import Numbering, read_values

    if choice in list(Numbering):
        return Numbering(choice)
    path = Path(choice)
    if not path.is_file():
        raise click.BadParameter(f"{choice}: neither auto, v1, v2 nor a file")
    return read_values(path)
