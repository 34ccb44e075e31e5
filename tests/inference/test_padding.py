"""Labels and what was not measured."""

from __future__ import annotations

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.padding import clear_padding, cut_by_field
from inference.volume import PADDING_HU, Volume

SHAPE = (6, 40, 40)
GEOMETRY = Geometry.from_affine([[0, 0, 1, 0], [0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]], SHAPE)
Y, X = np.mgrid[:40, :40]
ROUND = np.hypot(Y - 19.5, X - 19.5) > 18


def scan(beside_hu: int = PADDING_HU) -> Volume:
    """Soft tissue in a round field of 36 mm."""
    hu = np.full(SHAPE, 40, dtype=np.int16)
    hu[:, ROUND] = beside_hu
    return Volume(hu, GEOMETRY)


def labelled(**boxes: tuple[int, int, int]) -> LabelMap:
    """Labels ``s1``, ``s2``, ... of single voxels."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for name, where in boxes.items():
        labels[where] = int(name[1:])
    return LabelMap(labels, GEOMETRY)


def test_labels_in_padding_become_background_and_no_other() -> None:
    label_map = LabelMap(np.full(SHAPE, 7, dtype=np.uint8), GEOMETRY)

    clear_padding(label_map, scan())

    np.testing.assert_array_equal(label_map.labels == 0, np.broadcast_to(ROUND, SHAPE))


@pytest.mark.parametrize("beside_hu", [PADDING_HU, -3024, -2048, -2000])
def test_a_structure_that_ends_at_a_round_field_is_cut(beside_hu: int) -> None:
    # field ends at column 37 of row 20; structure 3 ends 3 mm before it, structure 4 6 mm
    label_map = labelled(
        s1=(2, 20, 37), s2=(2, 7, 7), s3=(2, 20, 35), s4=(2, 20, 31), s5=(2, 20, 20)
    )

    assert cut_by_field(label_map, scan(beside_hu)) == (1, 2, 3)


def test_air_beside_the_patient_cuts_nothing() -> None:
    label_map = labelled(s1=(2, 20, 37))

    assert cut_by_field(label_map, scan(-1024)) == ()


def test_padding_amid_the_patient_cuts_nothing() -> None:
    volume = scan(40)
    volume.hu[:, 18:22, 18:22] = PADDING_HU

    assert cut_by_field(labelled(s1=(2, 20, 22)), volume) == ()


@pytest.mark.parametrize("z", [2, 4])
def test_a_plane_that_was_not_measured_cuts_those_next_to_it(z: int) -> None:
    volume = scan(40)
    volume.hu[3] = PADDING_HU

    label_map = labelled(s1=(z, 20, 20), s2=(0, 20, 20), s3=(5, 20, 20))

    assert cut_by_field(label_map, volume) == (1,)


def test_a_field_that_changes_from_plane_to_plane_is_followed() -> None:
    volume = scan(40)
    for z in range(SHAPE[0]):
        volume.hu[z, :, : 3 * z] = PADDING_HU

    assert cut_by_field(labelled(s1=(1, 5, 4), s2=(1, 5, 12), s3=(4, 5, 13)), volume) == (1, 3)
