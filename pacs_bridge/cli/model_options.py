"""Options that commands have alike: which model computes, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from pacs_bridge.cli.outcome import end_wrong_call

#: ``--model NAME``, as ``model_name``.
model_option: Final = click.option(
    "--model", "model_name", metavar="NAME", help="One of `pacs-bridge model list`."
)
#: ``--models DIR``, as ``models_folder``.
models_option: Final = click.option(
    "--models",
    "models_folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the model store.",
)
#: ``--kind``, as ``kinds``: empty stands for both.
kind_option: Final = click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["binary", "labelmap"]),
    help="Kind of Segmentation; give it twice for both, which is the default.",
)
#: ``--device``.
device_option: Final = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
#: ``--structures``, as text for ``asked_structures``.
structures_option: Final = click.option(
    "--structures",
    metavar="NAMES",
    help="Structures or groups of them, comma between; no other is written, and what is far "
    "from them is not computed.",
)
#: ``--precision``.
precision_option: Final = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the network; auto: what the device does fast.",
)


def asked_structures(text: str | None) -> tuple[str, ...]:
    """Names of the structures of ``--structures``, empty without it; else a wrong call."""
    from inference.wanted_labels import named_structures

    try:
        wanted = named_structures((text or "").replace(",", " ").split())
    except ValueError as error:
        end_wrong_call(f"--structures: {error}")
    if text is not None and not wanted:
        end_wrong_call("--structures: none is named")
    return wanted
