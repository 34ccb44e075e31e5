"""The bundle's preprocessing is the clinic's, of scans and of labels."""

from __future__ import annotations

import numpy as np
import pytest

from inference.intensity import PUBLISHED_INTENSITY, ROBUST_INTENSITY, IntensitySpec, Scaling
from inference.nifti import read_label_nifti, read_nifti
from inference.preprocessing import labels_to_network, to_network
from training.bundle.preprocessing import ToNetwork, intensity_of


@pytest.mark.parametrize(
    ("value", "spec"),
    [("as-trained", ROBUST_INTENSITY), ("robust", ROBUST_INTENSITY),
     ("published", PUBLISHED_INTENSITY)],
)  # fmt: skip
def test_arrays_are_those_of_the_clinic(dataset, value, spec):
    paths = {key: dataset / f"{key}sTr" / "p0001.nii.gz" for key in ("image", "label")}
    seen = to_network(read_nifti(paths["image"]), 14.0, spec)
    labels = labels_to_network(read_label_nifti(paths["label"]), seen.grid)

    item = ToNetwork((14.0,) * 3, value, label_key="label")(paths)

    np.testing.assert_array_equal(item["image"][0], seen.array)
    np.testing.assert_array_equal(item["label"][0], labels)
    np.testing.assert_allclose(item["image"].affine, seen.grid.affine_ras)


def test_an_intensity_can_be_given_in_numbers():
    value = {"clamp_hu": [-512, 1024], "scaling": "clamp-range"}
    assert intensity_of(value) == IntensitySpec((-512, 1024), Scaling.CLAMP_RANGE)
    assert intensity_of("as-trained") is None
    with pytest.raises(ValueError, match="clamp_hu and scaling"):
        intensity_of({"clamp": [-512, 1024]})
