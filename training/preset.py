"""Presets of training: one TOML file, checked whole, with overrides by key."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from inference.network import NetworkSpec
from inference.reasons import Reason
from inference.windows import Precision
from training.augmentation.settings import Augmentation
from training.case import CaseRecipe
from training.dataset import ScanPair
from training.errors import TrainingError
from training.plan import Plan


@dataclass(frozen=True, slots=True)
class Split:
    """Which cases of a dataset are trained on and which judge."""

    validation_cases: int = 10  #: the last ones by name, as published; not trained on
    validate_on_training: bool = False  #: judge on the cases trained on: proves, not measures

    def __post_init__(self) -> None:
        if self.validation_cases < 0:
            raise ValueError(f"validation_cases must be 0 or more: {self.validation_cases}")

    def of(self, pairs: Sequence[ScanPair]) -> tuple[tuple[ScanPair, ...], tuple[ScanPair, ...]]:
        """Cases to train on and to judge on.

        Raises
        ------
        TrainingError
            ``training-preset`` if none is left to train on.
        """
        if self.validate_on_training:
            return tuple(pairs), tuple(pairs[max(len(pairs) - self.validation_cases, 0) :])
        kept = len(pairs) - self.validation_cases
        if kept < 1:
            raise TrainingError(
                Reason.TRAINING_PRESET,
                f"split.validation_cases: {self.validation_cases} of {len(pairs)} cases",
            )
        return tuple(pairs[:kept]), tuple(pairs[kept:])


@dataclass(frozen=True, slots=True)
class Preset:
    """Everything about a training but the data and where results go."""

    case: CaseRecipe
    plan: Plan
    network: NetworkSpec = field(default_factory=NetworkSpec)
    augmentation: Augmentation = field(default_factory=Augmentation)
    split: Split = field(default_factory=Split)
    seed: int = 1
    precision: Precision = Precision.BF16


_ADAPTER = TypeAdapter(Preset)


def load_preset(path: Path, overrides: Sequence[str] = ()) -> Preset:
    """Read a preset and change single keys.

    Parameters
    ----------
    path
        TOML.
    overrides
        ``plan.steps=100`` and the like; the value is TOML, a bare word is text.

    Raises
    ------
    TrainingError
        ``training-preset``, with all faults and the path of each key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(Reason.TRAINING_PRESET, f"{path}: {error}") from error
    for text in overrides:
        _override(table, text)
    faults = [f"{key}: no such key" for key in _unknown(table, Preset, "")]
    try:
        preset = _ADAPTER.validate_python(table)
    except ValidationError as error:
        faults += [
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        ]
    if faults:
        raise TrainingError(Reason.TRAINING_PRESET, f"{path}: {'; '.join(faults)}")
    return preset


def _override(table: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    *path, last = key.strip().split(".")
    if not equals or not last:
        raise TrainingError(Reason.TRAINING_PRESET, f"{text!r} is not key=value")
    try:
        parsed: object = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for name in path:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise TrainingError(Reason.TRAINING_PRESET, f"{key}: {name} has no keys")
    table[last] = parsed


def _unknown(table: Mapping[str, Any], of: type[Any], where: str) -> Iterator[str]:
    """Paths of the keys that the values of type ``of`` do not have."""
    hints = typing.get_type_hints(of)
    for key, value in table.items():
        if key not in hints:
            yield where + key
        elif isinstance(value, Mapping):
            kinds = typing.get_args(hints[key]) if _is_union(hints[key]) else (hints[key],)
            for kind in kinds:
                if dataclasses.is_dataclass(kind):
                    yield from _unknown(value, typing.cast("type[Any]", kind), f"{where}{key}.")


def _is_union(hint: object) -> bool:
    return isinstance(hint, types.UnionType)
