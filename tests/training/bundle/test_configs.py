"""The shipped configs: what MONAI's tools ask of them, and one truth with the presets."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow, verify_net_in_out
from monai.bundle.config_parser import ConfigParser

from inference.intensity import IntensitySpec, Scaling
from inference.network import PUBLISHED_NETWORK
from inference.nifti import read_label_nifti
from inference.structures import STRUCTURES
from training.bundle.weights import spec_of
from training.preset import load_preset

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file")

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
TRAIN, EVALUATE, INFERENCE = (f"configs/{name}.json" for name in ("train", "evaluate", "inference"))


@pytest.fixture
def in_root(bundle_root, monkeypatch) -> Path:
    """The folder that the documented commands are typed in."""
    monkeypatch.chdir(bundle_root)
    return bundle_root


def _workflow(files: str | list[str], kind: str, **override: object) -> ConfigWorkflow:
    workflow = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **override)
    workflow.initialize()
    return workflow


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (TRAIN, "train"),
        ([TRAIN, "configs/multi_gpu_train.json"], "train"),
        ([TRAIN, EVALUATE], "train"),
        ([TRAIN, EVALUATE, "configs/multi_gpu_evaluate.json"], "train"),
        (INFERENCE, "infer"),
    ],
)
def test_a_workflow_has_all_that_monai_asks_of_it(in_root, files, kind):
    workflow = _workflow(files, kind, **({"val_cases": 1} if kind == "train" else {}))
    assert workflow.check_properties() == []
    assert workflow.version == workflow.parser["_meta_"]["version"]
    assert spec_of(workflow.network_def) == PUBLISHED_NETWORK


def test_a_tool_can_chain_the_parts_of_inference_itself(
    in_root, tmp_path, small_weights, small_network
):
    torch.save(small_weights(1), tmp_path / "mine.pt")
    workflow = create_workflow(
        config_file=INFERENCE,
        workflow_type="infer",
        logging_file=False,
        ckpt_dir=str(tmp_path),
        modelname="mine.pt",
        output_dir=str(tmp_path / "whole"),
        pixdim=[16.0] * 3,
        **{
            "inferer#roi_size": [32] * 3,
            "network_def#init_filters": small_network.init_filters,
            "network_def#blocks_down": list(small_network.blocks_down),
            "network_def#blocks_up": list(small_network.blocks_up),
            "network_def#dropout_prob": small_network.dropout_prob,
        },
    )
    (first, *_) = workflow.evaluator.run()

    item = workflow.dataset[0]
    image = item["image"]
    assert image.shape[0] == 1
    assert image.affine.diagonal()[:3].tolist() == pytest.approx([16.0] * 3)
    item["pred"] = workflow.inferer(image[None], workflow.network_def)[0]
    labels = workflow.postprocessing(item)["pred"]

    np.testing.assert_array_equal(labels, read_label_nifti(first).labels)
    assert len(np.unique(labels)) > 3


def test_the_network_takes_and_gives_what_the_metadata_say(in_root):
    verify_net_in_out(
        "network_def", meta_file="configs/metadata.json", config_file=INFERENCE, device="cpu", n=2
    )


def test_metadata_name_the_classes_and_the_versions_that_are_installed():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    expected = {"0": "background"} | {str(s.id): s.name for s in STRUCTURES}
    assert channels == expected
    versions = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
        **metadata["required_packages_version"],
    }
    for name, version in versions.items():
        assert importlib.metadata.version(name).split("+")[0] == version, name


@pytest.mark.parametrize("highres", [True, False])
def test_spacing_and_network_of_train_json_are_those_of_its_preset(in_root, highres):
    workflow = _workflow(TRAIN, "train", **{"displayable_configs#highres": highres})
    parser: ConfigParser = workflow.parser
    preset = parser.get_parsed_content("recipe")
    assert parser.get_parsed_content("pixdim") == [preset.case.spacing_mm] * 3
    assert spec_of(workflow.network_def) == preset.network
    assert preset == load_preset(CONFIGS / f"train_{'1.5' if highres else '3.0'}mm.toml")


def test_what_the_preset_or_its_overrides_say_is_trained_unless_an_id_says_otherwise(in_root):
    asked = ["network.init_filters=8", "case.spacing_mm=2.0"]
    one = _workflow(TRAIN, "train", preset="configs/train_one_case.toml").trainer
    changed = _workflow(TRAIN, "train", val_cases=1, preset_overrides=asked).trainer
    by_id = _workflow(TRAIN, "train", val_cases=1, **{"network_def#init_filters": 8}).trainer

    assert spec_of(one.network) == load_preset(CONFIGS / "train_one_case.toml").network
    assert one.preprocessing.spacing_mm == 3.0
    assert (changed.network.init_filters, changed.preprocessing.spacing_mm) == (8, 2.0)
    assert (by_id.network.init_filters, by_id.preprocessing.spacing_mm) == (8, 1.5)


def test_the_number_of_cases_that_judge_leaves_the_rest_of_the_split_as_the_preset_has_it(in_root):
    trainer = _workflow(TRAIN, "train", preset="configs/train_one_case.toml", val_cases=2).trainer

    assert len(trainer.validation.data) == 2
    assert list(trainer.dataset.data[-2:]) == list(trainer.validation.data)


def test_highres_chooses_file_and_spacing_wherever_it_is_set(in_root):
    for key in ("highres", "displayable_configs#highres"):
        for file, kind in ((TRAIN, "train"), (INFERENCE, "infer")):
            parser = _workflow(file, kind, **{key: False}).parser
            assert parser.get_parsed_content("modelname") == "model_lowres.pt"
            assert parser.get_parsed_content("pixdim") == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            {"dataset_dri": "/x"},
            "--dataset_dri has no effect, no config knows it: dataset_dir?",
        ),
        ({"displayable_configs#hires": False}, "--displayable_configs#hires has no effect"),
        ({"loss": "$1"}, "--loss has no effect"),
        ({"highres": "false"}, "--highres false: type False"),
        ({"network_def#dropout_prob": "null"}, "--network_def#dropout_prob null: type None"),
    ],
)
@pytest.mark.parametrize("file", [TRAIN, INFERENCE])
def test_an_override_that_would_not_do_what_it_says_is_refused(in_root, file, override, complaint):
    workflow = ConfigWorkflow(file, logging_file=False, **override)
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    assert complaint in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("files", "override"),
    [
        ([TRAIN, EVALUATE], {"datalist": ["x.nii.gz"]}),
        ([TRAIN, EVALUATE], {"displayable_configs#sw_overlap": 0.6}),
        (TRAIN, {"output_postfix": "mine"}),
        (INFERENCE, {"val_cases": 3}),
        (INFERENCE, {"batch_size": 2}),
    ],
)
def test_an_id_of_a_config_that_is_not_being_run_is_refused(in_root, files, override):
    workflow = ConfigWorkflow(files, workflow_type="infer", logging_file=False, **override)
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    assert f"--{next(iter(override))} has no effect" in str(caught.value.__cause__)


def test_what_the_published_bundle_has_and_this_one_has_not_is_refused(in_root):
    for file, override in ((TRAIN, {"train#handlers": []}), (INFERENCE, {"output_dtype": "$int"})):
        with pytest.raises(RuntimeError) as caught:
            ConfigWorkflow(file, logging_file=False, **override).initialize()
        assert f"--{next(iter(override))} has no effect" in str(caught.value.__cause__)


def test_values_that_are_groups_themselves_are_welcome(in_root):
    intensity = {"clamp_hu": [-512, 1024], "scaling": "clamp-range"}
    chosen = _workflow(INFERENCE, "infer", intensity=intensity).preprocessing.chosen_intensity
    assert chosen == IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE)
    pairs = [{"image": "a.nii.gz", "label": "b.nii.gz"}]
    workflow = _workflow(TRAIN, "train", val_cases=1, **{"train#dataset#data": pairs})
    assert workflow.trainer.dataset.data == pairs


def test_an_id_of_ones_own_is_welcome_where_something_refers_to_it(in_root):
    workflow = _workflow(INFERENCE, "infer", mine={"folder": "D"}, dataset_dir="@mine#folder")
    assert workflow.dataset_dir == "D"


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ({"inferer#mode": "constant"}, "inferer"),
        ({"inferer#roi_size": [96, 96, 64]}, "inferer"),
        ({"displayable_configs#sw_batch_size": 4}, "inferer"),
        ({"displayable_configs#sw_overlap": 1.0}, "inferer"),
        ({"pixdim": [1.5, 1.5, 3.0]}, "preprocessing"),
        ({"intensity": "window"}, "preprocessing"),
        ({"output_ext": ".nrrd"}, "postprocessing"),
        ({"inferer#batch": 4}, "inferer"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused(in_root, override, part):
    workflow = _workflow(INFERENCE, "infer", **override)
    with pytest.raises(RuntimeError):
        workflow.parser.get_parsed_content(part)
