"""Ribs, sternum, shoulder girdle and arms."""

from __future__ import annotations

import math

import numpy as np

from inference.synthetic.shapes import (
    Capsule,
    Ellipsoid,
    Loft,
    Point,
    Section,
    Shape,
    rotation,
    smooth_curve,
    tube,
)
from inference.synthetic.spine import Spine
from inference.synthetic.tissue import CARTILAGE, Part, Tissue, labelled, unlabelled
from inference.synthetic.traits import Arms, Traits, Variation

#: The planes of the ribs fall forward by this share of the way.
LEAN = 0.42
#: Half width and depth of the cage along the rib's middle line, ribs 1 to 12, mm.
_HALF_WIDTHS = (62, 84, 101, 112, 119, 124, 127, 129, 128, 124, 117, 106)
_HALF_DEPTHS = (46, 62, 74, 83, 90, 95, 98, 99, 98, 94, 88, 82)
#: How far a rib goes round, from the spine (0) to the breastbone (180), degrees.
_SPANS = (138, 142, 144, 146, 147, 146, 143, 134, 122, 108, 88, 62)

_COMPACT_HU = 430.0


def _back_y(spine: Spine, number: int) -> float:
    vertebra = spine[f"T{number}"]
    return vertebra.centre[1] + vertebra.half_depth_mm + 13


def _rib_point(spine: Spine, number: int, side: int, degrees: float) -> Point:
    """A point of the middle line of a rib, ``degrees`` from the spine."""
    x, _, z = spine[f"T{number}"].centre
    back = _back_y(spine, number)
    width, depth = _HALF_WIDTHS[number - 1], _HALF_DEPTHS[number - 1]
    angle = math.radians(degrees)
    y = back - depth * (1 - math.cos(angle))
    return (x + side * width * math.sin(angle), y, z + 6 - LEAN * (back - y))


def cage(spine: Spine, inset_mm: float) -> Loft:
    """The space within the ribs, ``inset_mm`` inside their middle lines."""
    sections = []
    for number in range(12, 0, -1):
        x, _, z = spine[f"T{number}"].centre
        back = _back_y(spine, number)
        width, depth = _HALF_WIDTHS[number - 1], _HALF_DEPTHS[number - 1]
        height = z + 6 - LEAN * (back - 70.0)
        sections.append(
            Section(height, x, back - depth, width - inset_mm, max(depth - inset_mm, 8))
        )
    top = sections[-1]
    sections.append(Section(top.z + 22, top.x, top.y, top.half_width * 0.62, top.half_depth * 0.62))
    low = sections[0]
    sections.insert(0, Section(low.z - 190, low.x, low.y, low.half_width, low.half_depth))
    return Loft(tuple(sections), squareness=0.12, lean=LEAN, lean_from=70.0)


def rib_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """24 ribs, each from its vertebra, and the cartilage in front."""
    parts: list[Part] = []
    sternum_top = _rib_point(spine, 1, 1, 165)
    for side, side_name in ((1, "left"), (-1, "right")):
        for number in range(12, 0, -1):
            span = _SPANS[number - 1] + vary.mm(2)
            start = math.degrees(math.asin(20 / _HALF_WIDTHS[number - 1]))
            degrees = np.linspace(start, span, 15 if number < 11 else 9)
            points = [_rib_point(spine, number, side, float(d)) for d in degrees]
            spongy = traits.bone_hu + 30 + 6.0 * (12 - number)
            bone = Tissue(spongy, shell_hu=spongy + 380, shell_mm=1.5)
            radius = (4.8 if number > 1 else 5.5) * vary.factor(0.03)
            parts += labelled(
                f"rib_{side_name}_{number}", bone, *tube(points, radius, flatten=1.45)
            )
            if number <= 10:
                meets = max(sternum_top[2] - 22.0 * min(number - 1, 6) - 6, points[-1][2])
                breast = (side * 13.0, _sternum_y(spine, meets), meets)
                tip = points[-1]
                middle = ((tip[0] + breast[0]) / 2, min(tip[1], breast[1]) - 2, tip[2] + 2)
                parts += unlabelled(CARTILAGE, *tube([tip, middle, breast], 5.0))
    return parts


def _sternum_y(spine: Spine, z: float) -> float:
    top, bottom = _rib_point(spine, 1, 1, 180), _rib_point(spine, 7, 1, 180)
    return float(np.interp(z, [bottom[2] + 40, top[2]], [bottom[1] + 4, top[1] - 4]))


def sternum_parts(spine: Spine, traits: Traits) -> list[Part]:
    """Manubrium and body; the class list has no sternum."""
    top = _rib_point(spine, 1, 1, 180)[2] + 4
    points = [(0.0, _sternum_y(spine, z), z) for z in (top, top - 35, top - 80, top - 150)]
    bone = Tissue(traits.bone_hu, shell_hu=traits.bone_hu + 250, shell_mm=1.5)
    plates: list[Shape] = [
        Ellipsoid(
            (0, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2),
            (wide, 6.5, 0.62 * (a[2] - b[2])),
            rotation(x_degrees=math.degrees(math.atan2(b[1] - a[1], a[2] - b[2]))),
        )
        for a, b, wide in zip(points[:-1], points[1:], (26, 17, 18), strict=True)
    ]
    return unlabelled(bone, *plates)


def shoulder_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """Clavicles, scapulae, humeri and, where the arm lies down, the forearms."""
    parts: list[Part] = []
    up = traits.arms is Arms.UP
    lift = 16.0 if up else 0.0
    top = _rib_point(spine, 1, 1, 180)
    bone = Tissue(traits.bone_hu + 10, shell_hu=traits.bone_hu + _COMPACT_HU, shell_mm=2.2)
    flat = Tissue(traits.bone_hu + 60, shell_hu=traits.bone_hu + 330, shell_mm=1.6)
    for side, name in ((1, "left"), (-1, "right")):
        joint = vary.near((side * 168.0, 20.0, 412.0 + lift), 2.5)
        x, y, z = joint
        clavicle = smooth_curve(
            [
                (side * 22.0, top[1] - 6, top[2] + 12),
                (side * 70.0, top[1] - 2, top[2] + 22 + lift / 3),
                (side * 112.0, top[1] + 22, top[2] + 32 + lift / 2),
                (x - side * 10, y - 2, z + 30),
            ]
        )
        radius = 7.2 * vary.factor(0.04)
        parts += labelled(f"clavicula_{name}", bone, *tube(clavicle, radius))
        blade = (x - side * 64, y + 48, z - 44)
        parts += labelled(
            f"scapula_{name}",
            flat,
            Ellipsoid(
                blade,
                vary.sized((50, 7.5, 68), 0.03),
                rotation(z_degrees=-side * 32, x_degrees=-8, y_degrees=side * 10),
            ),
            Capsule(
                (blade[0] - side * 25, blade[1] + 18, z - 22), (x - side * 8, y + 22, z + 16), 6, 8
            ),
            Capsule((x - side * 8, y + 22, z + 16), (x, y, z + 28), 8, 7),
            Ellipsoid((x - side * 27, y + 6, z), (11, 13, 20)),
        )
        if up:
            elbow = vary.near((side * 190.0, -30.0, 690.0), 8)
            wrist: Point = (side * 110.0, -60.0, 780.0)
        else:
            elbow = vary.near((side * 218.0, 38.0, 128.0), 5)
            wrist = vary.near((side * 228.0, 5.0, -110.0), 8)
        shaft = smooth_curve([joint, _towards(joint, elbow, 0.35), elbow], 5)
        radii = np.interp(np.linspace(0, 1, len(shaft)), [0, 0.15, 0.8, 1], [19, 12, 12, 16])
        parts += labelled(
            f"humerus_{name}",
            bone,
            Ellipsoid(joint, (23, 23, 23)),
            *tube(shaft, [float(r) for r in radii]),
        )
        for shift in (8.0, -8.0):
            parts += unlabelled(
                bone,
                Capsule(
                    (elbow[0], elbow[1] + shift, elbow[2]),
                    (wrist[0] + shift, wrist[1], wrist[2]),
                    9,
                    7,
                ),
            )
    return parts


def arm_flesh(traits: Traits, vary: Variation) -> list[Part]:
    """Skin, fat and muscle of the arms, to be painted before all bones."""
    parts: list[Part] = []
    for side in (1, -1):
        shoulder = (side * 146.0, 20.0, 402.0)
        if traits.arms is Arms.UP:
            elbow, wrist = (side * 190.0, -30.0, 690.0), (side * 110.0, -60.0, 780.0)
        else:
            elbow, wrist = (side * 216.0, 38.0, 128.0), (side * 228.0, 5.0, -120.0)
        thick = 46 * vary.factor(0.04)
        for less, tissue in ((0.0, Tissue(-100, 20, 2.0)), (9.0, Tissue(55))):
            parts += unlabelled(
                tissue,
                *tube([shoulder, elbow], [thick + 12 - less, thick - 4 - less]),
                *tube([elbow, wrist], [thick - 4 - less, 34 - less]),
            )
    return parts


def _towards(start: Point, end: Point, share: float) -> Point:
    a, b, c = (p + share * (q - p) for p, q in zip(start, end, strict=True))
    return (a, b, c)
