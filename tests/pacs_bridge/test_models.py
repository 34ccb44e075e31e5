"""Which model is taken, on which device, with which clean-up."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread
from typing import Any

import pytest
import torch

from inference.engine.arithmetic import fast_windows
from inference.errors import ModelError
from inference.model_store import ModelStore
from inference.reasons import Reason
from inference.segmenter import Segmenter
from inference.windows import Precision
from pacs_bridge import models
from pacs_bridge.config.routes import PostprocessingConfig, RouteConfig
from pacs_bridge.models import (
    SegmenterChoice,
    UnknownDeviceError,
    WarmSegmenters,
    coarse_model,
    damaged_models,
    default_models_folder,
    device_computes,
    found_device,
    known_models,
    open_segmenter,
    postprocessing_spec,
    preferred_model,
    route_models,
)


def test_the_store_is_where_the_environment_says(tmp_path: Path) -> None:
    assert default_models_folder({"PACS_BRIDGE_MODELS": "/m"}) == Path("/m")
    assert default_models_folder({"XDG_DATA_HOME": "/d"}) == Path("/d/pacs-bridge/models")


def test_a_model_is_kept_warm_until_another_one_is_asked_for(tiny_models: Path) -> None:
    segmenters = WarmSegmenters([ModelStore(tiny_models)], "cpu")
    first = segmenters.get("tiny")
    assert segmenters.get("tiny") is first
    cleaned = segmenters.get("tiny", PostprocessingConfig(fill_holes=("liver",)))
    assert cleaned is not first
    assert cleaned.identity.parameters != first.identity.parameters
    smooth = segmenters.get("tiny", PostprocessingConfig(smooth_borders=True))
    added = set(smooth.identity.parameters) - set(first.identity.parameters)
    assert added == {("borders", "smooth")}
    some = segmenters.get("tiny", None, ("liver", "spleen"))
    added = set(some.identity.parameters) - set(first.identity.parameters)
    assert ("structures", "liver spleen") in added


def test_threads_that_ask_for_different_models_have_one_loaded_at_a_time(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenters = WarmSegmenters([ModelStore(tiny_models)], "cpu")
    both = Barrier(2, timeout=0.5)
    beside: list[bool] = []
    load = models.open_segmenter

    def watched(*asked: Any) -> Segmenter:
        with suppress(BrokenBarrierError):
            both.wait()
            beside.append(True)
        return load(*asked)

    monkeypatch.setattr(models, "open_segmenter", watched)
    given: dict[bool, Segmenter] = {}

    def ask(is_smooth: bool) -> None:
        cleanup = PostprocessingConfig(smooth_borders=is_smooth)
        given[is_smooth] = segmenters.get("tiny", cleanup)

    threads = [Thread(target=ask, args=(each,)) for each in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not beside
    for is_smooth, each in given.items():
        assert (("borders", "smooth") in each.identity.parameters) is is_smooth


def test_without_any_model_there_is_no_preferred_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        preferred_model([ModelStore(tmp_path)])
    assert refused.value.reason is Reason.UNKNOWN_MODEL


def test_the_only_model_is_the_preferred_one(tiny_models: Path) -> None:
    stores = [ModelStore(tiny_models)]
    assert known_models(stores) == ("tiny",)
    assert preferred_model(stores) == "tiny"


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cpu:1", "cuda:x"])
def test_a_device_that_is_not_there_is_said(device: str) -> None:
    with pytest.raises(UnknownDeviceError, match=device):
        found_device(device)


def test_a_clean_up_for_all_holds_for_those_that_are_named_too() -> None:
    spec = postprocessing_spec(
        PostprocessingConfig(
            largest_component=("all",),
            fill_holes=("liver",),
            min_volume_ml={"all": 1.0, "spleen": 5.0},
        )
    )
    assert (spec.default.largest_component, spec.default.minimum_ml) == (True, 1.0)
    named = dict(spec.by_structure)
    assert (named["liver"].largest_component, named["liver"].fill_holes) == (True, True)
    assert named["liver"].minimum_ml == 1.0
    assert named["spleen"].minimum_ml == 5.0


def test_a_device_that_is_in_order_computes() -> None:
    assert device_computes("cpu")


BROKEN = """
import torch
from pacs_bridge.models import device_computes
assert device_computes("cuda")
index = torch.tensor([10], device="cuda")
try:
    torch.zeros(4, device="cuda")[index].sum().item()
except RuntimeError:
    pass
raise SystemExit(3 if not device_computes("cuda") else 1)
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_device_whose_context_is_broken_computes_no_more() -> None:
    ended = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, timeout=300)
    assert ended.returncode == 3, ended.stderr


def test_a_model_runs_in_what_the_device_does_fast_and_over_the_body(tiny_models: Path) -> None:
    stores = [ModelStore(tiny_models)]

    usual = dict(open_segmenter("tiny", stores, SegmenterChoice("cpu")).identity.parameters)

    assert usual["precision"] == fast_windows("cpu").precision
    assert usual["computed"] == "body"
    chosen = SegmenterChoice("cpu", precision=Precision.BF16, whole_volume=True)
    other = dict(open_segmenter("tiny", stores, chosen).identity.parameters)
    assert (other["precision"], other["computed"]) == ("bf16", "all")


def test_parity_is_the_published_chain_in_every_respect(tiny_models: Path) -> None:
    choice = SegmenterChoice("cpu", parity=True, smooth_borders=True)

    found = dict(open_segmenter("tiny", [ModelStore(tiny_models)], choice).identity.parameters)

    assert found["precision"] == "fp32"
    assert found["channels_last"] == "false"
    assert found["computed"] == "all"
    assert found["clamp_hu"] == "none"
    assert "borders" not in found


@pytest.mark.parametrize("everything", [{"parity": True}, {"whole_volume": True}])
def test_where_everything_is_computed_nothing_is_looked_for_first(
    tiny_models: Path, tmp_path: Path, everything: dict[str, bool]
) -> None:
    tiny, store = ModelStore(tiny_models).load("tiny"), ModelStore(tmp_path)
    for name, spacing_mm in (("fine", 1.5), ("coarse", 3.0)):
        manifest = replace(tiny.manifest, name=name, spacing_mm=spacing_mm)
        store.add(manifest, dict(tiny.state_dict))
    restricted = SegmenterChoice("cpu", structures=("liver",))

    usual = dict(open_segmenter("fine", [store], restricted).identity.parameters)
    found = dict(
        open_segmenter("fine", [store], replace(restricted, **everything)).identity.parameters
    )

    assert "found_by" in usual
    assert "found_by" not in found
    assert (found["computed"], found["structures"]) == ("all", "liver")


def test_a_coarse_model_is_3_mm_and_as_fit_for_its_purpose_as_the_finer_one(
    tiny_models: Path, tmp_path: Path
) -> None:
    coarse = ModelStore(tiny_models).load("tiny")
    manifest = replace(coarse.manifest, name="coarse", spacing_mm=3.0)
    ModelStore(tmp_path).add(manifest, dict(coarse.state_dict))
    stores = [ModelStore(tmp_path)]
    fine = replace(manifest, name="fine", spacing_mm=1.5)

    assert coarse_model(fine, stores) == "coarse"
    assert coarse_model(replace(fine, demonstration=not fine.demonstration), stores) is None
    assert coarse_model(replace(fine, spacing_mm=3.0), stores) is None


@pytest.fixture
def damaged(tiny_models: Path, tmp_path: Path) -> ModelStore:
    """A fine model, a coarse one that finds for it, and one whose manifest is no manifest."""
    tiny, store = ModelStore(tiny_models).load("tiny"), ModelStore(tmp_path)
    for name, spacing_mm in (("fine", 1.5), ("coarse", 3.0)):
        manifest = replace(tiny.manifest, name=name, spacing_mm=spacing_mm)
        store.add(manifest, dict(tiny.state_dict))
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "manifest.json").write_text("{")
    return store


def test_a_damaged_model_keeps_no_other_from_finding(damaged: ModelStore) -> None:
    assert coarse_model(damaged.manifest("fine"), [damaged]) == "coarse"
    assert coarse_model(damaged.manifest("coarse"), [damaged]) is None
    ((name, damage),) = damaged_models([damaged])
    assert (name, damage.reason) == ("another", Reason.MODEL_MANIFEST)


def test_the_models_of_routes_are_their_own_and_those_that_find_for_them(
    damaged: ModelStore,
) -> None:
    def route(model: str, *structures: str) -> RouteConfig:
        return RouteConfig(name="r", model=model, destinations=("archive",), structures=structures)

    some = [route("fine"), route("coarse", "liver")]
    assert route_models(some[:1], [damaged]) == ("fine",)
    assert route_models(some[1:], [damaged]) == ("coarse",)
    assert route_models([route("fine", "liver"), *some], [damaged]) == ("fine", "coarse")
    with pytest.raises(ModelError, match="another"):
        route_models([route("another", "liver")], [damaged])
