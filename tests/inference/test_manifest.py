"""Manifests are read strictly and every fault is named."""

from __future__ import annotations

import dataclasses
import json

import pytest

from inference.errors import ModelError
from inference.intensity import IntensitySpec, Scaling
from inference.manifest import CLASS_NAMES, ModelManifest
from inference.reasons import Reason

SHA256 = "0123456789abcdef" * 4


def test_a_manifest_survives_its_file(small_manifest: ModelManifest) -> None:
    manifest = dataclasses.replace(
        small_manifest,
        intensity=IntensitySpec((-500, 900), Scaling.CLAMP_RANGE),
        weights_sha256=SHA256,
    )

    assert ModelManifest.from_json(manifest.to_json(), "here") == manifest


def test_classes_are_background_and_the_structures_in_v1_order() -> None:
    assert len(CLASS_NAMES) == 105
    assert CLASS_NAMES[:3] == ("background", "spleen", "kidney_right")
    assert CLASS_NAMES[104] == "urinary_bladder"


def test_all_faults_of_a_file_are_named_with_their_paths(small_manifest: ModelManifest) -> None:
    fields = json.loads(dataclasses.replace(small_manifest, weights_sha256=SHA256).to_json())
    fields["spacing_mm"] = "3"
    fields["network"]["init_filters"] = 8.5
    fields["intensity"]["window"] = 1
    del fields["licence"]
    fields["extra"] = True

    with pytest.raises(ModelError) as error:
        ModelManifest.from_json(json.dumps(fields), "models/small/manifest.json")

    assert error.value.reason is Reason.MODEL_MANIFEST
    for part in (
        "models/small/manifest.json",
        "spacing_mm",
        "network.init_filters",
        "intensity.window",
        "licence",
        "extra",
    ):
        assert part in error.value.detail


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../elsewhere"),
        ("name", "Upper"),
        ("version", " "),
        ("spacing_mm", 0.0),
        ("spacing_mm", float("nan")),
        ("licence", ""),
        ("weights_sha256", "abc"),
        ("format", "pacs-bridge-model/2"),
        ("network", {"init_filters": 9}),
        ("intensity", {"clamp_hu": [5, 5], "scaling": "per-volume"}),
        ("intensity", {"clamp_hu": None, "scaling": "clamp-range"}),
        ("intensity", {"clamp_hu": None, "scaling": "window"}),
    ],
)
def test_impossible_values_are_refused(
    small_manifest: ModelManifest, field: str, value: object
) -> None:
    fields = json.loads(dataclasses.replace(small_manifest, weights_sha256=SHA256).to_json())
    fields[field] = value

    with pytest.raises(ModelError) as error:
        ModelManifest.from_json(json.dumps(fields), "here")

    assert error.value.reason is Reason.MODEL_MANIFEST
    assert "here" in error.value.detail


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[]", b"{", b'{"format": "x"}'])
def test_what_is_no_manifest_at_all_is_refused(text: bytes) -> None:
    with pytest.raises(ModelError) as error:
        ModelManifest.from_json(text, "here")

    assert error.value.reason is Reason.MODEL_MANIFEST


@pytest.mark.parametrize(
    "classes",
    [
        CLASS_NAMES[:-1],
        (*CLASS_NAMES, "prostate"),
        (CLASS_NAMES[0], CLASS_NAMES[2], CLASS_NAMES[1], *CLASS_NAMES[3:]),
    ],
)
def test_other_classes_are_refused_by_their_own_code(
    small_manifest: ModelManifest, classes: tuple[str, ...]
) -> None:
    with pytest.raises(ModelError) as error:
        dataclasses.replace(small_manifest, classes=classes)

    assert error.value.reason is Reason.MODEL_CLASS_COUNT
    assert "small" in error.value.detail
