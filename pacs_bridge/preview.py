"""Pictures of a label map over its CT, for people: axial, coronal and sagittal.

A picture is sampled in patient millimetres through ``Geometry``, so its aspect is true and its
orientation anatomical however the series was acquired: the patient's right is on the left
(axial, coronal), the head is up (coronal, sagittal), the front is up (axial) or left
(sagittal).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from inference.geometry import FloatArray, Geometry
from inference.label_map import BACKGROUND, LabelMap
from inference.structures import STRUCTURES, structure
from inference.volume import Volume

_PIXEL_MM = 1.0
_WINDOW_HU = (-200.0, 300.0)
_OPACITY = 0.55
_SCALE_BAR_MM = 100
_TEXT_PIXELS = 13
_MARGIN = 8
_LEGEND_TEXT_PIXELS = 11
_LEGEND_COLUMN = 166
_LINE = _LEGEND_TEXT_PIXELS + 5
_PAPER = (18, 18, 20)
_INK = (235, 235, 235)


class View(StrEnum):
    """The three planes of the body."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"

    @property
    def axes(self) -> tuple[int, int, int]:
        """LPS axes of the picture: across it, down it (or up, see ``head_up``), and through it."""
        return {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}[self.value]

    @property
    def head_up(self) -> bool:
        """True if the vertical axis of the picture is z."""
        return self is not View.AXIAL

    @property
    def marks(self) -> tuple[str, str, str, str]:
        """Letters at left, right, top and bottom (PS3.3 C.7.6.1.1.1)."""
        return {
            "axial": ("R", "L", "A", "P"),
            "coronal": ("R", "L", "H", "F"),
            "sagittal": ("A", "P", "H", "F"),
        }[self.value]


@dataclass(frozen=True, slots=True, eq=False)
class _Plane:
    """Nearest voxels on a regular grid of millimetres."""

    grey: FloatArray  #: 0..1
    ids: npt.NDArray[np.uint8]


def best_position_mm(labels: LabelMap, view: View) -> float:
    """LPS coordinate of the plane that cuts the most structures; the middle if there are none."""
    through = view.axes[2]
    low, high = _bounds_mm(labels.geometry)
    positions = np.linspace(low[through], high[through], 41)[1:-1]
    cut = [np.unique(_ids_at(labels, view, float(p), step_mm=4.0)).size for p in positions]
    best = np.flatnonzero(np.array(cut) == max(cut))
    return float(positions[best[best.size // 2]])


def render_overlay(
    volume: Volume, labels: LabelMap, view: View, position_mm: float | None = None
) -> Image.Image:
    """One plane: CT in grey, structures in their colours with an outline, no text but marks.

    Parameters
    ----------
    volume, labels
        On the same planes.
    view
        Which plane of the body.
    position_mm
        LPS coordinate of the plane; None for the plane with the most structures.
    """
    if position_mm is None:
        position_mm = best_position_mm(labels, view)
    picture = _paint(_sample(volume, labels, view, position_mm))
    _mark(picture, view)
    return picture


def render_sheet(volume: Volume, labels: LabelMap, title: str) -> Image.Image:
    """All three planes side by side with a legend of the structures that they show."""
    planes = [_sample(volume, labels, view, best_position_mm(labels, view)) for view in View]
    pictures = []
    for view, plane in zip(View, planes, strict=True):
        picture = _paint(plane)
        _mark(picture, view)
        pictures.append(picture)
    shown = np.bincount(np.concatenate([plane.ids.ravel() for plane in planes]), minlength=256)
    ids = [s.id for s in STRUCTURES if shown[s.id]]
    return _sheet(pictures, ids, title)


def _bounds_mm(geometry: Geometry) -> tuple[FloatArray, FloatArray]:
    z, y, x = geometry.shape
    corners = [(k, j, i) for k in (0, z - 1) for j in (0, y - 1) for i in (0, x - 1)]
    points = geometry.lps_mm(np.array(corners))
    return points.min(axis=0), points.max(axis=0)


def _grid(geometry: Geometry, view: View, position_mm: float, step_mm: float) -> FloatArray:
    """``(rows, columns, 3)`` LPS mm of the picture's pixels, top left first."""
    across, down, through = view.axes
    low, high = _bounds_mm(geometry)
    columns = np.arange(low[across], high[across] + step_mm / 2, step_mm)
    rows = np.arange(low[down], high[down] + step_mm / 2, step_mm)
    if view.head_up:
        rows = rows[::-1]
    points = np.empty((rows.size, columns.size, 3))
    points[..., across] = columns[None, :]
    points[..., down] = rows[:, None]
    points[..., through] = position_mm
    return points


def _nearest(
    geometry: Geometry, points: FloatArray
) -> tuple[tuple[npt.NDArray[np.intp], ...], npt.NDArray[np.bool_]]:
    index = np.rint(geometry.index_of(points)).astype(np.intp)
    top = np.array(geometry.shape) - 1
    inside = np.all((index >= 0) & (index <= top), axis=-1)
    return tuple(np.moveaxis(np.clip(index, 0, top), -1, 0)), np.asarray(inside)


def _ids_at(
    labels: LabelMap, view: View, position_mm: float, step_mm: float
) -> npt.NDArray[np.uint8]:
    index, inside = _nearest(labels.geometry, _grid(labels.geometry, view, position_mm, step_mm))
    return np.where(inside, labels.labels[index], BACKGROUND).astype(np.uint8)


def _sample(volume: Volume, labels: LabelMap, view: View, position_mm: float) -> _Plane:
    index, inside = _nearest(volume.geometry, _grid(volume.geometry, view, position_mm, _PIXEL_MM))
    low, high = _WINDOW_HU
    hu = np.where(inside, volume.hu[index], low)
    ids = np.where(inside, labels.labels[index], BACKGROUND).astype(np.uint8)
    return _Plane(np.clip((hu - low) / (high - low), 0.0, 1.0), ids)


def _paint(plane: _Plane) -> Image.Image:
    colours = np.zeros((256, 3))
    for each in STRUCTURES:
        colours[each.id] = each.rgb
    grey = np.repeat(plane.grey[..., None] * 255.0, 3, axis=-1)
    labelled = plane.ids != BACKGROUND
    edge = np.zeros_like(labelled)
    edge[:, 1:] |= plane.ids[:, 1:] != plane.ids[:, :-1]
    edge[1:, :] |= plane.ids[1:, :] != plane.ids[:-1, :]
    weight = np.where(labelled, np.where(edge, 0.95, _OPACITY), 0.0)[..., None]
    pixels = grey * (1 - weight) + colours[plane.ids] * weight
    return Image.fromarray(pixels.round().astype(np.uint8), mode="RGB")


def _font(pixels: int = _TEXT_PIXELS) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(pixels)


def _mark(picture: Image.Image, view: View) -> None:
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    left, right, top, bottom = view.marks
    for letter, place, anchor in (
        (left, (4, height // 2), "lm"),
        (right, (width - 4, height // 2), "rm"),
        (top, (width // 2, 4), "mt"),
        (bottom, (width // 2, height - 4), "mb"),
    ):
        draw.text(place, letter, fill=_INK, font=_font(), anchor=anchor)
    bar = round(_SCALE_BAR_MM / _PIXEL_MM)
    if bar + 2 * _MARGIN < width:
        y = height - _MARGIN
        draw.line([(_MARGIN, y), (_MARGIN + bar, y)], fill=_INK, width=2)
        draw.text(
            (_MARGIN, y - 4), f"{_SCALE_BAR_MM // 10} cm", fill=_INK, font=_font(), anchor="lb"
        )


def _sheet(pictures: Sequence[Image.Image], ids: Sequence[int], title: str) -> Image.Image:
    """Pictures in a row; the legend under the first one where it fits, else under all."""
    header = _TEXT_PIXELS + 2 * _MARGIN
    tallest = max(picture.height for picture in pictures)
    across = sum(picture.width for picture in pictures) + _MARGIN * (len(pictures) + 1)
    first = pictures[0]
    free = tallest - first.height - _MARGIN
    if _legend_lines(len(ids), first.width) * _LINE <= free:
        legend_at, legend_width, below = header + first.height + _MARGIN, first.width, 0
        tops = [header for _ in pictures]
    else:
        legend_at, legend_width = header + tallest + _MARGIN, across - _MARGIN
        below = _legend_lines(len(ids), legend_width) * _LINE + _MARGIN
        tops = [header + (tallest - picture.height) // 2 for picture in pictures]
    sheet = Image.new("RGB", (across, header + tallest + _MARGIN + below), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=_font())
    x = _MARGIN
    for picture, top in zip(pictures, tops, strict=True):
        sheet.paste(picture, (x, top))
        x += picture.width + _MARGIN
    _draw_legend(draw, ids, (_MARGIN, legend_at), legend_width)
    return sheet


def _legend_lines(entries: int, width: int) -> int:
    return -(-entries // max(1, width // _LEGEND_COLUMN))


def _draw_legend(
    draw: ImageDraw.ImageDraw, ids: Sequence[int], origin: tuple[int, int], width: int
) -> None:
    lines = max(1, _legend_lines(len(ids), width))
    for position, structure_id in enumerate(ids):
        column, row = divmod(position, lines)
        x, y = origin[0] + column * _LEGEND_COLUMN, origin[1] + row * _LINE
        each = structure(structure_id)
        draw.rectangle([x, y + 1, x + 10, y + 11], fill=each.rgb)
        name = each.name.replace("_", " ")
        draw.text((x + 15, y), name, fill=_INK, font=_font(_LEGEND_TEXT_PIXELS))
