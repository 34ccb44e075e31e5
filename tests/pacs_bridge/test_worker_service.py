"""A worker at its start, as a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.model_store import ModelStore
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.queue import JobRequest

#: ``pacs-bridge work`` on a machine where no model can be loaded, for the reason that is named.
SCRIPT = """
import sys
from inference.errors import ModelError
from inference.reasons import Reason
from pacs_bridge import models

def fail(*_):
    raise ModelError(Reason(sys.argv[2]), "as the test wants it")

models.open_segmenter = fail
from pacs_bridge.cli.main import main
main(["work", "--config", sys.argv[1], "--device", "cpu"])
"""


@pytest.fixture
def start(
    make_config: Callable[..., Any], ram_folder: Path, tiny_models: Path
) -> Callable[[str], subprocess.Popen[str]]:
    make_config(
        models=f"{{ folder = {json.dumps(str(tiny_models))} }}",
        routes='[{ name = "all", model = "tiny", destinations = ["archive"] }]',
    )

    Ledger.open(ram_folder / "data" / "ledger.sqlite").close()  # the service has run here

    def make(reason: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(ram_folder / "bridge.toml"), reason],
            stderr=subprocess.PIPE,
            text=True,
        )

    return make


@pytest.mark.parametrize("reason", ["oom-gpu", "oom-cpu"])
def test_a_machine_whose_memory_is_full_at_the_start_waits_for_it_and_claims_nothing(
    start: Callable[[str], subprocess.Popen[str]], ram_folder: Path, reason: str
) -> None:
    ledger = Ledger.open(ram_folder / "data" / "ledger.sqlite")
    job = ledger.jobs.submit(JobRequest("1.2.3", 1, "all", "tiny", ("archive",)))
    worker = start(reason)
    assert worker.stderr is not None
    told = []
    for line in worker.stderr:
        told.append(json.loads(line))
        if told[-1]["event"] == "machine-unfit":
            worker.send_signal(signal.SIGTERM)
            break
    worker.communicate()

    assert worker.returncode == 0
    assert [(each["event"], each.get("reason")) for each in told] == [
        ("model-not-loaded", reason),
        ("machine-unfit", reason),
    ]
    view = ledger.view.job(job)
    assert view is not None
    assert view.attempts == 0
    ledger.close()


def test_a_model_that_no_wait_will_mend_ends_the_worker_as_wrong_configuration(
    start: Callable[[str], subprocess.Popen[str]],
) -> None:
    worker = start("model-checksum")

    assert "model-checksum" in worker.communicate()[1]
    assert worker.returncode == 2


def test_a_damaged_model_is_told_of_and_one_that_finds_structures_has_to_be_whole(
    start: Callable[[str], subprocess.Popen[str]],
    make_config: Callable[..., Any],
    tiny_models: Path,
    tmp_path: Path,
) -> None:
    tiny, store = ModelStore(tiny_models).load("tiny"), ModelStore(tmp_path)
    for name, spacing_mm in (("fine", 1.5), ("coarse", 3.0)):
        manifest = replace(tiny.manifest, name=name, spacing_mm=spacing_mm)
        store.add(manifest, dict(tiny.state_dict))
    (tmp_path / "coarse" / "weights.safetensors").write_bytes(b"damaged")
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "manifest.json").write_text("{")
    make_config(
        models=f"{{ folder = {json.dumps(str(tmp_path))} }}",
        routes='[{ name = "all", model = "fine", destinations = ["archive"],'
        ' structures = ["liver"] }]',
    )

    worker = start("oom-cpu")
    told, *said = worker.communicate()[1].splitlines()

    assert worker.returncode == 2
    warning = json.loads(told)
    assert (warning["event"], warning["model"]) == ("model-damaged", "another")
    assert warning["reason"] == "model-manifest"
    assert "model-checksum" in "".join(said)
    assert "coarse" in "".join(said)
