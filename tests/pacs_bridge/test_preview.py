"""Pictures: what is where, however the series was acquired."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dicom_seg.synthetic.acquisition import PatientPosition, Plane, stack, tilted, turned
from inference.geometry import Geometry
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import Volume
from pacs_bridge.preview import View, best_position_mm, render_overlay, render_sheet

SHAPE = (40, 50, 60)
SPACING = (3.0, 2.0, 2.0)
AXIAL = stack(SHAPE, SPACING)
GEOMETRIES = {
    "head first": AXIAL,
    "feet first prone": stack(SHAPE, SPACING, position=PatientPosition("FFP")),
    "sagittal": stack((60, 40, 50), (2.0, 3.0, 2.0), plane=Plane.SAGITTAL),
    "tilted": tilted(AXIAL, 12.0),
    "oblique": turned(AXIAL, (0, 0, 1), 10.0),
}


def _ball(geometry: Geometry, centre_mm: tuple[float, float, float]) -> tuple[Volume, LabelMap]:
    """A liver of 12 mm radius around a point of the patient."""
    hu = np.full(geometry.shape, -1000, dtype=np.int16)
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    inside = np.linalg.norm(geometry.lps_mm(index) - centre_mm, axis=-1) < 12
    hu[inside] = 60
    labels[inside] = STRUCTURE_BY_NAME["liver"].id
    return Volume(hu, geometry), LabelMap(labels, geometry)


def _centre_of_colour(picture: Image.Image) -> tuple[float, float]:
    """Where the liver's green lies, as shares of width and height."""
    pixels = np.asarray(picture).astype(int)
    green = (pixels[..., 1] - pixels[..., 0] > 25) & (pixels[..., 1] - pixels[..., 2] > 25)
    y, x = np.nonzero(green)
    return float(x.mean() / pixels.shape[1]), float(y.mean() / pixels.shape[0])


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_right_is_left_in_the_picture_and_head_and_front_are_up(geometry: Geometry) -> None:
    volume, labels = _ball(geometry, (-25.0, -20.0, 30.0))  # right, front, head

    x, y = _centre_of_colour(render_overlay(volume, labels, View.AXIAL))
    assert x < 0.4
    assert y < 0.4
    x, y = _centre_of_colour(render_overlay(volume, labels, View.CORONAL))
    assert x < 0.4
    assert y < 0.4
    x, y = _centre_of_colour(render_overlay(volume, labels, View.SAGITTAL))
    assert x < 0.4
    assert y < 0.4


def test_a_pixel_is_a_millimetre_both_ways() -> None:
    volume, labels = _ball(AXIAL, (0.0, 0.0, 0.0))
    z, y, x = ((n - 1) * step for n, step in zip(SHAPE, SPACING, strict=True))
    assert render_overlay(volume, labels, View.AXIAL).size == (x + 1, y + 1)
    assert render_overlay(volume, labels, View.CORONAL).size == (x + 1, z + 1)
    assert render_overlay(volume, labels, View.SAGITTAL).size == (y + 1, z + 1)


def test_the_plane_that_is_shown_cuts_what_there_is() -> None:
    _, labels = _ball(AXIAL, (-25.0, -20.0, 30.0))
    assert best_position_mm(labels, View.AXIAL) == pytest.approx(30, abs=12)
    assert best_position_mm(labels, View.CORONAL) == pytest.approx(-20, abs=12)
    assert best_position_mm(labels, View.SAGITTAL) == pytest.approx(-25, abs=12)


@pytest.mark.parametrize("structures", [0, 104])
def test_a_sheet_has_room_for_every_name(structures: int) -> None:
    hu = np.zeros(SHAPE, dtype=np.int16)
    ids = np.arange(hu.size) % (structures + 1)
    labels = LabelMap(ids.astype(np.uint8).reshape(SHAPE), AXIAL)
    sheet = np.asarray(render_sheet(Volume(hu, AXIAL), labels, "title"))
    assert (sheet[-4:] == sheet[-1, -1]).all()  # the paper's edge: nothing is cut off
    assert (sheet[:, -4:] == sheet[-1, -1]).all()


def test_a_scan_without_any_label_has_a_picture() -> None:
    labels = LabelMap(np.zeros(SHAPE, dtype=np.uint8), AXIAL)
    volume = Volume(np.zeros(SHAPE, dtype=np.int16), AXIAL)
    for view in View:
        assert render_overlay(volume, labels, view).size[0] > 50
