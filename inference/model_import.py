"""The published weights into the model store, without running anything that came with them.

Only the state dict of a bundle is taken. The file is read once: checksum, check and import are
of the same bytes. Before they are unpickled their opcodes are read for the names that they would
import, then ``torch.load(weights_only=True)`` reads them: a pickle that wants anything but
tensors is refused twice.
"""

from __future__ import annotations

import hashlib
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from inference.errors import ModelError
from inference.intensity import ROBUST_INTENSITY
from inference.manifest import ModelManifest
from inference.model_store import ModelStore
from inference.network import PUBLISHED_NETWORK
from inference.reasons import Reason

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A weights file of the published bundle."""

    file_name: str
    md5: str
    model_name: str  #: in the store, unless another is given
    spacing_mm: float


BUNDLE = "MONAI model zoo, wholeBody_ct_segmentation"
BUNDLE_VERSION = "0.2.5"
PUBLISHED_WEIGHTS: tuple[PublishedWeights, ...] = (
    PublishedWeights("model.pt", "aded45dea52f9c00b37922bcd0a98502", "wholebody-1.5mm", 1.5),
    PublishedWeights("model_lowres.pt", "dbdebeae650f4fb5ea7f4ad01e0d2431", "wholebody-3mm", 3.0),
)
LICENCE = "Apache-2.0; trained on TotalSegmentator v1, CC BY 4.0 (doi:10.5281/zenodo.6802614)"
INTENDED_USE = "Segmentation of 104 structures in CT, for research; not for diagnosis"

#: The published files have 75 MB.
MAX_FILE_BYTES = 1024**3
#: A file of the format before archives is so many pickles, and then bytes of tensors: magic
#: number, version, machine, state dict, names of storages.
_LEGACY_PICKLES = 5
#: What a plain state dict names: an ordered dict, tensors, and the storages they lie in.
_PLAIN = re.compile(
    r"collections\.OrderedDict"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)"
    r"|torch(\.storage)?\.\w+Storage"
)


def import_published(
    path: Path,
    store: ModelStore,
    *,
    name: str | None = None,
    spacing_mm: float | None = None,
    allow_unknown: bool = False,
) -> ModelManifest:
    """Import ``model.pt`` or ``model_lowres.pt`` of the published bundle.

    Parameters
    ----------
    path
        The PyTorch state dict.
    store
        Where it goes.
    name
        Its name in the store; by default from the published list, or from the file's name.
    spacing_mm
        Of the network's grid, for a file that is not on the published list.
    allow_unknown
        Accept such a file, for example weights of one's own with the published network.

    Raises
    ------
    ModelError
        ``model-not-state-dict`` if it is not a plain state dict of the network,
        ``model-checksum`` if it is one that is not on the published list,
        ``model-class-count`` if its classes are not 105.
    """
    data = _read(path)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    published = next((known for known in PUBLISHED_WEIGHTS if known.md5 == md5), None)
    _refuse_code(data, path)
    if published is None and not (allow_unknown and spacing_mm is not None):
        known = ", ".join(f"{weights.file_name} {weights.md5}" for weights in PUBLISHED_WEIGHTS)
        raise ModelError(
            Reason.MODEL_CHECKSUM,
            f"{path}: md5 {md5} is none of: {known}; weights of one's own are accepted with"
            " --allow-unknown and --spacing-mm",
        )
    state_dict = _load_state_dict(data, path)
    if published is not None:
        manifest = _manifest(name or published.model_name, published.spacing_mm, md5)
    else:
        assert spacing_mm is not None
        slug = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or "model"
        manifest = _manifest(name or slug, spacing_mm, md5, f"file {path.name}, origin unknown")
    return store.add(manifest, state_dict)


def read_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a PyTorch state dict, read without running anything.

    Raises
    ------
    ModelError
        ``model-not-state-dict`` if the file is missing or holds anything but tensors.
    """
    data = _read(path)
    _refuse_code(data, path)
    return _load_state_dict(data, path)


def published_manifest(path: Path) -> ModelManifest | None:
    """What is known of a weights file of the published bundle; None for any other file."""
    md5 = hashlib.md5(_read(path), usedforsecurity=False).hexdigest()
    for known in PUBLISHED_WEIGHTS:
        if known.md5 == md5:
            return _manifest(known.model_name, known.spacing_mm, md5)
    return None


def _refuse_code(data: bytes, path: Path) -> None:
    foreign = sorted(set(_named_globals(data, path)))
    if foreign:
        raise ModelError(
            Reason.MODEL_NOT_STATE_DICT, f"{path}: a pickle that calls for {', '.join(foreign)}"
        )


def _manifest(
    name: str, spacing_mm: float, md5: str, origin: str = f"{BUNDLE} {BUNDLE_VERSION}"
) -> ModelManifest:
    published = origin.startswith(BUNDLE)
    return ModelManifest(
        name=name,
        version=BUNDLE_VERSION if published else md5[:12],
        spacing_mm=spacing_mm,
        intensity=ROBUST_INTENSITY,
        network=PUBLISHED_NETWORK,
        source=f"{origin} (md5 {md5})",
        licence=LICENCE if published else "unknown",
        intended_use=INTENDED_USE,
        demonstration=False,
        training=(("data", "TotalSegmentator v1"), ("recipe", BUNDLE)) if published else (),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelError(Reason.MODEL_NOT_STATE_DICT, f"{path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        detail = f"{path}: more than {MAX_FILE_BYTES} bytes"
        raise ModelError(Reason.MODEL_NOT_STATE_DICT, detail)
    return data


def _named_globals(data: bytes, path: Path) -> Iterator[str]:
    """Names that unpickling would import beyond those of tensors; nothing is executed."""
    try:
        if not zipfile.is_zipfile(BytesIO(data)):
            yield from _foreign_names_of_all(BytesIO(data))
            return
        with zipfile.ZipFile(BytesIO(data)) as archive:
            pickles = [n for n in archive.namelist() if n.endswith(".pkl")]
            if not any(n.rsplit("/", 1)[-1] == "data.pkl" for n in pickles):
                yield "no pickle of tensors at all"
            for member in pickles:
                with archive.open(member) as file:
                    yield from _foreign_names(file)  # type: ignore[arg-type]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(Reason.MODEL_NOT_STATE_DICT, f"{path}: {error}") from error


def _foreign_names_of_all(file: BinaryIO) -> Iterator[str]:
    """Of a file without archive: pickle after pickle, up to the bytes of the tensors."""
    for number in range(_LEGACY_PICKLES):
        try:
            yield from list(_foreign_names(file))
        except ValueError:
            if number == 0:
                raise
            return  # no further pickle


def _foreign_names(file: BinaryIO) -> Iterator[str]:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in {"GLOBAL", "INST"}:
            named = str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":  # module and name are the strings pushed last
            named = ".".join(strings[-2:])
        else:
            if isinstance(argument, str):
                strings.append(argument)
            continue
        if not _PLAIN.fullmatch(named):
            yield named


def _load_state_dict(data: bytes, path: Path) -> Mapping[str, torch.Tensor]:
    import torch

    try:
        loaded = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever the bytes provoke inside torch means the same here
        # torch's own words advise to load the file with its code: they go no further.
        summary = f"the reader of tensors refuses it ({type(error).__name__})"
        raise ModelError(Reason.MODEL_NOT_STATE_DICT, f"{path}: {summary}") from error
    if not isinstance(loaded, Mapping):
        raise ModelError(
            Reason.MODEL_NOT_STATE_DICT, f"{path}: holds {type(loaded).__name__}, not a state dict"
        )
    odd = [key for key, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise ModelError(
            Reason.MODEL_NOT_STATE_DICT, f"{path}: {odd[0]!r} holds no tensor: not a state dict"
        )
    return loaded
