"""Published weights are taken, and nothing that comes with them is run."""

from __future__ import annotations

import hashlib
import os
import pickle
import pickletools
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inference.errors import ModelError
from inference.intensity import ROBUST_INTENSITY
from inference.model_import import PUBLISHED_WEIGHTS, import_published
from inference.model_store import ModelStore
from inference.network import PUBLISHED_NETWORK, NetworkSpec
from inference.reasons import Reason

Weights = dict[str, torch.Tensor]


class Malicious:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (str(self.canary), "w"))


@pytest.fixture(scope="module")
def published_format(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zeros in the published shapes, saved as the published files are."""
    from inference.network import build_network

    path = tmp_path_factory.mktemp("published") / "model_lowres.pt"
    torch.save({k: torch.zeros_like(t) for k, t in build_network().state_dict().items()}, path)
    return path


def refused(path: Path, store: ModelStore, *, allow: bool = True) -> tuple[Reason, str]:
    with pytest.raises(ModelError) as error:
        import_published(path, store, spacing_mm=3.0, allow_unknown=allow)
    assert store.names() == ()
    return error.value.reason, error.value.detail


def test_unknown_weights_are_imported_when_that_is_asked_for(
    published_format: Path, tmp_path: Path
) -> None:
    store = ModelStore(tmp_path / "models")

    manifest = import_published(
        published_format, store, name="mine", spacing_mm=3.0, allow_unknown=True
    )

    assert store.verify("mine") == manifest
    assert manifest.spacing_mm == 3.0
    assert manifest.network == PUBLISHED_NETWORK
    assert manifest.intensity == ROBUST_INTENSITY
    assert manifest.licence == "unknown"
    assert hashlib.md5(published_format.read_bytes()).hexdigest() in manifest.source
    assert not manifest.demonstration


@pytest.mark.parametrize(("spacing_mm", "allow"), [(None, False), (3.0, False), (None, True)])
def test_a_checksum_that_is_not_published_is_refused(
    published_format: Path, tmp_path: Path, spacing_mm: float | None, allow: bool
) -> None:
    store = ModelStore(tmp_path / "models")

    with pytest.raises(ModelError) as error:
        import_published(published_format, store, spacing_mm=spacing_mm, allow_unknown=allow)

    assert error.value.reason is Reason.MODEL_CHECKSUM
    assert str(published_format) in error.value.detail
    assert all(known.md5 in error.value.detail for known in PUBLISHED_WEIGHTS)
    assert "--allow-unknown and --spacing-mm" in error.value.detail
    assert store.names() == ()


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
@pytest.mark.parametrize("allow", [True, False])
def test_a_pickle_that_calls_code_is_refused_by_name_and_its_code_does_not_run(
    tmp_path: Path, save: Callable[[object, Path], None], allow: bool
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "evil.pt"
    save({"convInit.conv.weight": Malicious(canary)}, path)
    pickle.loads(pickle.dumps(Malicious(canary))).close()
    assert canary.exists()  # the trap works
    canary.unlink()

    reason, detail = refused(path, ModelStore(tmp_path / "models"), allow=allow)

    assert reason is Reason.MODEL_NOT_STATE_DICT
    assert str(path) in detail
    assert "open" in detail
    assert not canary.exists()


def test_a_second_pickle_in_the_archive_is_looked_at_too(
    published_format: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(published_format.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model_lowres/constants.pkl", pickle.dumps(Malicious(tmp_path / "c")))

    assert refused(path, ModelStore(tmp_path / "models"))[0] is Reason.MODEL_NOT_STATE_DICT


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(3)],
        {"state_dict": {"convInit.conv.weight": torch.zeros(3)}},
        {"convInit.conv.weight": 3.0},
        {"convInit.conv.weight": torch.zeros(3)},
    ],
)
def test_what_is_not_the_networks_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(content, path)

    reason, detail = refused(path, ModelStore(tmp_path / "models"))

    assert reason is Reason.MODEL_NOT_STATE_DICT
    assert str(path) in detail or "model" in detail


@pytest.mark.parametrize("data", [b"", b"no pickle", b"PK\x03\x04 cut", bytes(range(256))])
def test_bytes_that_are_no_pickle_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(data)

    assert refused(path, ModelStore(tmp_path / "models"))[0] is Reason.MODEL_NOT_STATE_DICT


def test_a_truncated_file_is_refused(published_format: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(published_format.read_bytes()[:5_000_000])

    assert refused(path, ModelStore(tmp_path / "models"))[0] is Reason.MODEL_NOT_STATE_DICT


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    reason, detail = refused(tmp_path / "nowhere.pt", ModelStore(tmp_path / "models"))

    assert reason is Reason.MODEL_NOT_STATE_DICT
    assert "nowhere.pt" in detail


def test_another_class_count_is_refused_by_its_own_code(
    tmp_path: Path, seeded_weights: Callable[[NetworkSpec], Weights]
) -> None:
    weights = seeded_weights(PUBLISHED_NETWORK)
    weights["conv_final.2.conv.weight"] = torch.zeros(118, 32, 1, 1, 1)
    weights["conv_final.2.conv.bias"] = torch.zeros(118)
    torch.save(weights, tmp_path / "v2.pt")

    reason, detail = refused(tmp_path / "v2.pt", ModelStore(tmp_path / "models"))

    assert reason is Reason.MODEL_CLASS_COUNT
    assert "118" in detail


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_every_pickle_of_a_file_in_the_format_before_archives_is_looked_at(
    tmp_path: Path, place: int
) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    pickles, tensors = [], b""
    with (tmp_path / "old.pt").open("rb") as file:
        for _ in range(5):
            start = file.tell()
            for _opcode in pickletools.genops(file):
                pass
            end = file.tell()
            file.seek(start)
            pickles.append(file.read(end - start))
        tensors = file.read()
    pickles[place] = pickle.dumps(Malicious(tmp_path / "canary"))
    (tmp_path / "evil.pt").write_bytes(b"".join(pickles) + tensors)

    reason, detail = refused(tmp_path / "evil.pt", ModelStore(tmp_path / "models"))

    assert reason is Reason.MODEL_NOT_STATE_DICT
    assert "a pickle that calls for io.open" in detail
    assert not (tmp_path / "canary").exists()


def test_weights_in_the_format_before_archives_are_imported(
    published_format: Path, tmp_path: Path
) -> None:
    weights = torch.load(published_format, weights_only=True)
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    store = ModelStore(tmp_path / "models")

    import_published(tmp_path / "old.pt", store, spacing_mm=3.0, allow_unknown=True)

    assert store.verify("old").spacing_mm == 3.0


def test_a_file_is_read_once_so_that_its_checksum_is_of_what_is_imported(
    published_format: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "model.pt"
    os.mkfifo(pipe)  # gives its bytes once
    writer = threading.Thread(target=pipe.write_bytes, args=(published_format.read_bytes(),))
    writer.start()

    manifest = import_published(
        pipe, ModelStore(tmp_path / "models"), spacing_mm=3.0, allow_unknown=True
    )

    writer.join()
    assert hashlib.md5(published_format.read_bytes()).hexdigest() in manifest.source
