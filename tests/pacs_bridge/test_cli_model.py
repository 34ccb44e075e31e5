"""``pacs-bridge model``: the store from the command line."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from inference.network import PUBLISHED_NETWORK, NetworkSpec, build_network
from pacs_bridge.cli.main import main


@pytest.fixture
def model(tmp_path: Path, tiny_models: Path) -> Callable[..., Result]:
    """Run ``model`` on a store of its own that has ``tiny``."""
    shutil.copytree(tiny_models, tmp_path / "models")

    def run(command: str, *arguments: object) -> Result:
        words = ["model", command, *map(str, arguments), "--models", str(tmp_path / "models")]
        return CliRunner().invoke(main, words)

    return run


class _Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (self.canary,))


def test_list_names_the_models_of_the_store_and_their_use(model: Callable[..., Result]) -> None:
    assert "tiny  1  6 mm  for demonstration" in model("list").stdout
    (tiny,) = [
        line for line in json.loads(model("list", "--json").stdout) if line["name"] == "tiny"
    ]
    assert tiny["spacing_mm"] == 6.0
    assert len(tiny["sha256"]) == 64


def test_verify_tells_good_weights_from_changed_ones(
    model: Callable[..., Result], tmp_path: Path
) -> None:
    assert model("verify", "tiny").exit_code == 0
    weights = tmp_path / "models" / "tiny" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    result = model("verify", "tiny", "--json")
    assert result.exit_code == 1
    assert "model-checksum" in json.loads(result.stdout)["tiny"]


def test_verify_of_a_model_that_is_nowhere_is_a_wrong_call(model: Callable[..., Result]) -> None:
    result = model("verify", "tiny", "no-such-model", "--json")
    assert result.exit_code == 2
    assert "no-such-model: unknown-model; models here: " in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path.write_bytes(b"not a model"), "model-not-state-dict"),
        (
            lambda path: path.write_bytes(pickle.dumps(_Evil(path.with_name("was-here")))),
            "model-not-state-dict",
        ),
        (lambda path: torch.save([1, 2, 3], path), "model-checksum"),
        (
            lambda path: torch.save(build_network(NetworkSpec(init_filters=8)).state_dict(), path),
            "model-checksum",
        ),
    ],
    ids=["noise", "code", "a list", "unpublished weights"],
)
def test_a_file_that_is_no_published_model_is_refused_by_name(
    model: Callable[..., Result], tmp_path: Path, make: Callable[[Path], None], code: str
) -> None:
    path = tmp_path / "model.pt"
    make(path)
    result = model("import", path)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"refuse: {code}: {path}")
    assert not (tmp_path / "was-here").exists()


def test_weights_with_another_class_count_are_refused_even_if_they_are_allowed(
    model: Callable[..., Result], tmp_path: Path
) -> None:
    state = build_network(PUBLISHED_NETWORK).state_dict()
    state["conv_final.2.conv.weight"] = state["conv_final.2.conv.weight"][:-1].clone()
    state["conv_final.2.conv.bias"] = state["conv_final.2.conv.bias"][:-1].clone()
    torch.save(state, tmp_path / "mine.pt")
    result = model("import", tmp_path / "mine.pt", "--allow-unknown", "--spacing-mm", "3.0")
    assert result.exit_code == 1
    assert "model-class-count" in result.stdout


def test_weights_of_ones_own_are_imported_where_that_is_asked_for(
    model: Callable[..., Result], tmp_path: Path
) -> None:
    torch.save(build_network(PUBLISHED_NETWORK).state_dict(), tmp_path / "mine.pt")
    result = model(
        "import", tmp_path / "mine.pt", "--allow-unknown", "--spacing-mm", "3.0", "--json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["name"] == "mine"
    assert model("verify", "mine").exit_code == 0


def test_weights_of_ones_own_without_a_spacing_are_a_wrong_call(
    model: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "mine.pt").write_bytes(b"whatever it is")
    result = model("import", tmp_path / "mine.pt", "--allow-unknown")
    assert result.exit_code == 2
    assert "--spacing-mm" in result.stderr


@pytest.mark.parametrize("spacing", ["0", "-3", "wide"])
def test_a_spacing_is_a_length(model: Callable[..., Result], tmp_path: Path, spacing: str) -> None:
    (tmp_path / "mine.pt").write_bytes(b"whatever it is")
    result = model("import", tmp_path / "mine.pt", "--allow-unknown", "--spacing-mm", spacing)
    assert result.exit_code == 2


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A server of the folder ``mirror``."""
    (tmp_path / "mirror").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path / "mirror"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetch_refuses_a_mirror_with_other_weights_and_keeps_nothing(
    model: Callable[..., Result], mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "mirror" / "model_lowres.pt").write_bytes(b"other weights")
    result = model("fetch", "wholebody-3mm", "--mirror", mirror)
    assert result.exit_code == 1
    assert result.stdout.startswith("refuse: model-checksum")
    assert not list((tmp_path / "models" / ".downloads").iterdir())


def test_fetch_says_that_a_mirror_lacks_the_file(
    model: Callable[..., Result], mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    result = model("fetch", "wholebody-3mm", "--mirror", mirror, "--json")
    assert result.exit_code == 1
    ending = json.loads(result.stdout)["ending"]
    assert ending["reason"] == "fetch-failed"
    assert "HTTP 404" in ending["detail"]


def test_fetch_knows_only_published_models(model: Callable[..., Result]) -> None:
    result = model("fetch", "tiny")
    assert result.exit_code == 2
    assert "wholebody-3mm" in result.stderr


@pytest.mark.parametrize(
    "address", ["foo", "ftp://mirror/", "http://[::1", "http://", "http://a:b/"]
)
def test_a_mirror_that_is_no_http_address_is_a_wrong_call(
    model: Callable[..., Result], address: str
) -> None:
    result = model("fetch", "wholebody-3mm", "--mirror", address)
    assert result.exit_code == 2
    assert "no http or https address" in result.stderr


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://proxy", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_said(
    model: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("all_proxy", proxy)
    result = model("fetch", "wholebody-3mm", "--mirror", "http://127.0.0.1:9/")
    assert result.exit_code == 1
    assert result.stdout.startswith("refuse: fetch-failed: the proxy that the environment names")
