"""A model run as the clinic runs it, and the options of commands that do so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from inference.segmenter import Segmenter

AUTO = "auto"

precision_option = click.option(
    "--precision",
    type=click.Choice([AUTO, "fp32", "bf16"]),
    default=AUTO,
    show_default=True,
    help="Auto, as in the clinic: what the device does fast.",
)
whole_volume_option = click.option(
    "--whole-volume",
    is_flag=True,
    help="Windows over the air around the patient, too; in the clinic they are laid over the body.",
)


def clinic_segmenter(
    store: Path, model: str, device: str, precision: str, whole_volume: bool
) -> Segmenter:
    """The segmenter that ``pacs-bridge segment`` would run.

    Parameters
    ----------
    store, model
        Folder of the model store, and a name in it.
    device
        As torch names it.
    precision
        ``auto``, ``fp32`` or ``bf16``.
    whole_volume
        Whether the air around the patient is computed as well.

    Raises
    ------
    ModelError
        ``unknown-model``, ``model-checksum`` and their like.
    """
    from inference.engine.arithmetic import fast_windows
    from inference.model_store import ModelStore
    from inference.segmenter import SegmenterOptions, SegResNetSegmenter
    from inference.windows import Precision

    windows = fast_windows(device, None if precision == AUTO else Precision(precision))
    options = SegmenterOptions(device, windows, body_only=not whole_volume)
    return SegResNetSegmenter(ModelStore(store).load(model), options)
