"""A model is judged as the clinic runs it."""

from __future__ import annotations

from inference.model_store import embedded_store
from pacs_bridge.models import SegmenterChoice, open_segmenter
from training.clinic_segmenter import AUTO, clinic_segmenter
from training.embedded import MODEL_NAME


def test_what_is_judged_runs_with_the_parameters_of_the_clinic():
    store = embedded_store()

    judged = clinic_segmenter(store.root, MODEL_NAME, "cpu", AUTO, whole_volume=False)

    clinic = open_segmenter(MODEL_NAME, [store], SegmenterChoice("cpu"))
    assert judged.identity.parameters == clinic.identity.parameters
    assert dict(judged.identity.parameters)["computed"] == "body"


def test_the_air_can_be_judged_too():
    store = embedded_store()

    judged = clinic_segmenter(store.root, MODEL_NAME, "cpu", "fp32", whole_volume=True)

    said = dict(judged.identity.parameters)
    assert (said["computed"], said["precision"]) == ("all", "fp32")
