"""What a stored model says of itself; read strictly, every fault named.

The file beside the weights is JSON and only data: nothing in it names code. The network is
described by its four numbers, the classes by their names in the order of its channels.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inference.errors import ModelError
from inference.intensity import IntensitySpec, Scaling
from inference.network import NetworkSpec
from inference.reasons import Reason
from inference.structures import CLASS_COUNT, STRUCTURES

FORMAT = "pacs-bridge-model/1"
#: Names of the network's channels: background, then the structures in v1 order.
CLASS_NAMES: tuple[str, ...] = ("background", *(s.name for s in STRUCTURES))

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """Everything about a model but its weights.

    Raises
    ------
    ModelError
        ``model-class-count`` if the classes are not the 105 in v1 order, ``model-manifest``
        if another value is impossible.
    """

    name: str  #: folder in the store: lower case letters, digits, ``.``, ``_`` and ``-``
    version: str
    spacing_mm: float  #: isotropic, of the network's grid
    intensity: IntensitySpec
    network: NetworkSpec
    source: str  #: where the weights come from
    licence: str  #: of the weights and of what they were trained on
    intended_use: str
    demonstration: bool  #: True: trained on synthetic patients, for demonstration only
    training: tuple[tuple[str, str], ...] = ()  #: how the weights were made, as far as known
    classes: tuple[str, ...] = CLASS_NAMES  #: one a channel
    weights_sha256: str = ""  #: of the weights file, hexadecimal; empty until stored

    def __post_init__(self) -> None:
        _check_classes(self.name, self.classes)
        faults = [
            f"{field}: {value!r} is not {what}"
            for field, value, good, what in (
                ("name", self.name, bool(_NAME.fullmatch(self.name)), "a model name"),
                ("version", self.version, bool(self.version.strip()), "a version"),
                ("spacing_mm", self.spacing_mm, 0.1 <= self.spacing_mm <= 20, "0.1 to 20 mm"),
                ("source", self.source, bool(self.source.strip()), "a source"),
                ("licence", self.licence, bool(self.licence.strip()), "a licence"),
                ("intended_use", self.intended_use, bool(self.intended_use.strip()), "a use"),
                (
                    "weights_sha256",
                    self.weights_sha256,
                    not self.weights_sha256 or bool(_SHA256.fullmatch(self.weights_sha256)),
                    "a SHA-256 in lower case hexadecimal",
                ),
            )
            if not good
        ]
        if faults:
            raise ModelError(Reason.MODEL_MANIFEST, "; ".join(faults))

    def to_json(self) -> str:
        """The text of ``manifest.json``; equal manifests give equal text."""
        fields = dataclasses.asdict(self)
        fields["training"] = dict(self.training)
        return json.dumps({"format": FORMAT, **fields}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> ModelManifest:
        """Read ``manifest.json``; ``where`` names the file in errors.

        Raises
        ------
        ModelError
            ``model-manifest`` with all faults and their paths, or ``model-class-count``.
        """
        try:
            file = _ManifestFile.model_validate_json(text)
            intensity = IntensitySpec(file.intensity.clamp_hu, file.intensity.scaling)
            network = NetworkSpec(**dict(file.network))
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
            raise ModelError(Reason.MODEL_MANIFEST, f"{where}: {faults}") from error
        except ValueError as error:
            raise ModelError(Reason.MODEL_MANIFEST, f"{where}: {error}") from error
        fields = {name: getattr(file, name) for name in _ManifestFile.model_fields}
        del fields["format"]
        fields |= {
            "intensity": intensity,
            "network": network,
            "training": tuple(file.training.items()),
        }
        try:
            return cls(**fields)
        except ModelError as error:
            raise ModelError(error.reason, f"{where}: {error.detail}") from error


def _check_classes(name: str, classes: tuple[str, ...]) -> None:
    if len(classes) != CLASS_COUNT:
        raise ModelError(
            Reason.MODEL_CLASS_COUNT,
            f"{name}: {len(classes)} classes, not background and {CLASS_COUNT - 1} structures",
        )
    for channel, (found, expected) in enumerate(zip(classes, CLASS_NAMES, strict=True)):
        if found != expected:
            raise ModelError(
                Reason.MODEL_CLASS_COUNT,
                f"{name}: class {channel} is {found!r}, not {expected!r} (v1 order)",
            )


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _IntensityFile(_Strict):
    clamp_hu: tuple[int, int] | None
    scaling: Scaling


class _NetworkFile(_Strict):
    init_filters: int
    blocks_down: tuple[int, ...]
    blocks_up: tuple[int, ...]
    dropout_prob: float


class _ManifestFile(_Strict):
    format: Literal["pacs-bridge-model/1"]
    name: str
    version: str
    spacing_mm: float
    intensity: _IntensityFile
    network: _NetworkFile
    source: str
    licence: str
    intended_use: str
    demonstration: bool
    training: dict[str, str]
    classes: tuple[str, ...]
    weights_sha256: str = Field(pattern=_SHA256.pattern)
