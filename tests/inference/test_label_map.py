"""Label maps and volumes."""

from __future__ import annotations

import numpy as np
import pytest

from inference.errors import InvalidGeometryError
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.volume import Volume


def uneven(shape: tuple[int, int, int]) -> Geometry:
    z_mm = np.array([0.0, 2.0, 7.0, 9.0])[: shape[0]]
    return Geometry(
        shape=shape,
        origins_mm=np.stack([np.zeros_like(z_mm), np.zeros_like(z_mm), z_mm], axis=1),
        row_step_mm=np.array([0.0, 0.5, 0.0]),
        column_step_mm=np.array([0.5, 0.0, 0.0]),
    )


def test_counts_are_by_plane_and_id(rng: np.random.Generator) -> None:
    labels = rng.integers(0, 105, (4, 30, 20), dtype=np.uint8)
    counts = LabelMap(labels, uneven((4, 30, 20))).slice_counts()

    for z in range(4):
        for structure_id in (0, 1, 57, 104):
            assert counts[z, structure_id] == (labels[z] == structure_id).sum()
    assert counts.sum() == labels.size


def test_volume_follows_the_true_distance_of_planes() -> None:
    labels = np.zeros((4, 10, 10), dtype=np.uint8)
    labels[1, :4, :5] = 7

    volumes = LabelMap(labels, uneven((4, 10, 10))).volumes_ml()

    assert volumes == pytest.approx({7: 20 * 0.25 * 3.5 / 1000})


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 3, 5), (4, 8, 8), (4, 17, 31), (2, 1, 9)])
def test_an_id_is_present_where_it_is_counted(rng: np.random.Generator, shape) -> None:
    runs = np.repeat(rng.integers(0, 255, np.prod(shape)), rng.integers(1, 20, np.prod(shape)))
    labels = runs[: np.prod(shape)].astype(np.uint8).reshape(shape)
    for array in (labels, labels[:, ::-1, ::-1]):
        label_map = LabelMap(array, uneven(shape))

        np.testing.assert_array_equal(label_map.slice_presence(), label_map.slice_counts() > 0)


def test_background_is_never_present() -> None:
    labels = np.zeros((2, 3, 3), dtype=np.uint8)
    label_map = LabelMap(labels, uneven((2, 3, 3)))
    assert label_map.present() == ()
    labels[0, 0, 0] = 104
    assert label_map.present() == (104,)


def test_arrays_must_fit_their_geometry_and_type() -> None:
    geometry = uneven((2, 3, 3))
    with pytest.raises(InvalidGeometryError):
        LabelMap(np.zeros((3, 3, 2), dtype=np.uint8), geometry)
    with pytest.raises(TypeError, match="uint8"):
        LabelMap(np.zeros((2, 3, 3), dtype=np.int64), geometry)  # type: ignore[arg-type]
    with pytest.raises(InvalidGeometryError):
        Volume(np.zeros((3, 3, 2), dtype=np.int16), geometry)
    with pytest.raises(TypeError, match="int16"):
        Volume(np.zeros((2, 3, 3), dtype=np.float32), geometry)  # type: ignore[arg-type]


def test_boxes_hold_each_structure_tightly(rng: np.random.Generator) -> None:
    labels = np.zeros((4, 30, 20), dtype=np.uint8)
    labels[1:3, 4:9, 2] = 7
    labels[2, 5:29, 10:20] = 104
    labels[0, 0, 0] = 1

    assert LabelMap(labels, uneven((4, 30, 20))).boxes() == {
        1: (slice(0, 1), slice(0, 1), slice(0, 1)),
        7: (slice(1, 3), slice(4, 9), slice(2, 3)),
        104: (slice(2, 3), slice(5, 29), slice(10, 20)),
    }


def test_centroids_weigh_planes_by_what_they_stand_for() -> None:
    labels = np.zeros((4, 30, 20), dtype=np.uint8)
    labels[1, 10, 5:8] = labels[2, 10, 5:8] = 7  # planes at 2 and 7 mm, each for 3.5 mm
    labels[0, 4, 4] = labels[3, 8, 4] = 9  # planes at 0 and 9 mm, each for 2 mm

    centroids = LabelMap(labels, uneven((4, 30, 20))).centroids_mm()

    assert list(centroids) == [7, 9]
    np.testing.assert_allclose(centroids[7], [3.0, 5.0, 4.5])
    np.testing.assert_allclose(centroids[9], [2.0, 3.0, 4.5])
