"""From a checkpoint to a model that the clinic runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from inference.manifest import ModelManifest
from inference.model_store import ModelStore
from training.augmentation.settings import Augmentation
from training.checkpoint import Checkpoint, read_checkpoint
from training.history import ValidationRow
from training.plan import Plan


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What a model says of itself that no checkpoint knows."""

    name: str
    source: str
    licence: str  #: of the weights and of what they were trained on
    intended_use: str
    version: str = "1"
    demonstration: bool = False
    data: str = ""  #: what the cases are
    remarks: tuple[tuple[str, str], ...] = ()  #: more of how the weights were made


def export_model(
    checkpoint: Path, details: ModelDetails, store: ModelStore, *, replace: bool = False
) -> ModelManifest:
    """Put the averaged weights into ``store``, in half precision.

    Returns
    -------
    ModelManifest
        Complete: data, split, recipe, metrics, versions, SHA-256.

    Raises
    ------
    TrainingError
        ``checkpoint`` if the file is none.
    ModelError
        ``model-manifest`` if a detail is missing or the name is taken.
    """
    saved = read_checkpoint(checkpoint)
    record = saved.record
    weights = {key: value.half() for key, value in saved.arrays["average"].items()}
    manifest = ModelManifest(
        name=details.name,
        version=details.version,
        spacing_mm=record.recipe.spacing_mm,
        intensity=record.recipe.intensity,
        network=record.network,
        source=details.source,
        licence=details.licence,
        intended_use=details.intended_use,
        demonstration=details.demonstration,
        training=(*details.remarks, *_provenance(saved, details.data)),
    )
    return store.add(manifest, weights, replace=replace)


def _provenance(saved: Checkpoint, data: str) -> tuple[tuple[str, str], ...]:
    record = saved.record
    rows = [
        ("data", data or "not said"),
        ("split, training", _names(record.training)),
        ("split, validation", _names(record.validation)),
        ("seed", str(record.seed)),
        ("steps", f"{saved.step} of {record.plan.steps}"),
        ("recipe", changed(record.plan) or "the defaults"),
        ("augmentation", changed(record.augmentation) or "none"),
        ("precision", str(record.precision)),
        *record.versions,
    ]
    if saved.judged is not None and saved.best is not None:
        rows.append(("metrics", _metrics(saved.step, saved.judged, saved.best)))
    return tuple(rows)


def _metrics(step: int, judged: ValidationRow, best: ValidationRow) -> str:
    """The last validation; a Dice of other weights is said to be of others."""
    whose = "these weights" if judged.step == step else f"step {judged.step}, not these weights"
    text = f"validation {judged.measure}: {judged.score:.4f}, of {whose}"
    if best.step != judged.step:
        text += f"; best of the run: {best.score:.4f}, of step {best.step}, not these weights"
    return text


def changed(settings: Plan | Augmentation) -> str:
    """All settings that are not the defaults, in words."""
    return ", ".join(
        f"{field.name} {getattr(settings, field.name)}"
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
    )


def _names(names: tuple[str, ...]) -> str:
    """All names where they are few, else the first and last, and how many."""
    if len(names) <= 10:
        return ", ".join(names) or "none"
    return f"{len(names)} cases, {names[0]} to {names[-1]}"
