"""Vertebrae C1 to L5, the sacrum and the muscles along the spine."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from inference.synthetic.shapes import Capsule, Ellipsoid, Loft, Point, Section, Shape
from inference.synthetic.tissue import Part, Tissue, inlaid, labelled, unlabelled
from inference.synthetic.traits import Traits, Variation

#: Knots of the spine's curve seen from the side: z -> y of the vertebral bodies, mm.
_CURVE_Z = (-60.0, 0.0, 75.0, 145.0, 230.0, 310.0, 390.0, 450.0, 500.0, 545.0, 590.0)
_CURVE_Y = (42.0, 26.0, 18.0, 27.0, 42.0, 51.0, 47.0, 34.0, 20.0, 11.0, 10.0)

_DISC = Tissue(85)
_CORD = Tissue(32)


@dataclass(frozen=True, slots=True)
class Vertebra:
    """Place and size of one vertebral body."""

    name: str  #: C1..C7, T1..T12, L1..L5
    centre: Point
    half_width_mm: float
    half_depth_mm: float
    half_height_mm: float

    @property
    def level(self) -> int:
        """1 for C1 to 24 for L5."""
        offset = {"C": 0, "T": 7, "L": 19}[self.name[0]]
        return offset + int(self.name[1:])


@dataclass(frozen=True, slots=True)
class Spine:
    """The 24 vertebrae from C1 down to L5; other regions hang on them."""

    vertebrae: tuple[Vertebra, ...]

    def __getitem__(self, name: str) -> Vertebra:
        return next(v for v in self.vertebrae if v.name == name)


def build_spine(vary: Variation) -> Spine:
    """Stack the vertebrae upwards from L5 along the curve, with a slight scoliosis."""
    bend, phase = vary.mm(2.0), vary.between(0, 2 * np.pi)
    kyphosis = vary.factor(0.08)
    names = [f"L{n}" for n in range(5, 0, -1)]
    names += [f"T{n}" for n in range(12, 0, -1)] + [f"C{n}" for n in range(7, 0, -1)]
    pitches = [36.0] * 5 + list(np.linspace(30, 20.5, 12)) + [18.5] * 5 + [24.0, 18.0]
    widths = list(np.linspace(25, 22, 5)) + list(np.linspace(20, 14.5, 12)) + [13.0] * 7
    depths = list(np.linspace(18, 16.5, 5)) + list(np.linspace(16, 11, 12)) + [9.5] * 7
    z, stack = -18.0, []
    for name, pitch, width, depth in zip(names, pitches, widths, depths, strict=True):
        centre_z = z + pitch / 2
        y = float(np.interp(centre_z, _CURVE_Z, _CURVE_Y))
        x = bend * float(np.sin(centre_z / 110 + phase))
        stack.append(
            Vertebra(
                name=name,
                centre=(x, 30 + (y - 30) * kyphosis, centre_z),
                half_width_mm=width * vary.factor(0.03),
                half_depth_mm=depth * vary.factor(0.03),
                half_height_mm=0.41 * pitch,
            )
        )
        z += pitch
    return Spine(tuple(reversed(stack)))


def _arch(vertebra: Vertebra) -> tuple[Shape, ...]:
    """Pedicles, laminae, transverse and spinous process behind the body."""
    x, y, z = vertebra.centre
    back = y + vertebra.half_depth_mm
    canal = 9.5 if vertebra.name[0] == "C" else 10.0
    half = 0.75 * vertebra.half_height_mm
    reach, slope, length = {
        "C": (21.0, 0.0, 16.0),
        "T": (28.0, 6.0, 24.0),
        "L": (38.0, 2.0, 26.0),
    }[vertebra.name[0]]
    roof = back + 2 * canal
    shapes: list[Shape] = []
    for side in (1, -1):
        pillar = (x + side * (canal + 3), back + canal, z)
        shapes += [
            Capsule((x + side * (canal + 2), back - 3, z), pillar, 5.0, 5.5, half / 5),
            Capsule(pillar, (x, roof + 1, z - 3), 5.5, 4.5, half / 5),
            Capsule(pillar, (x + side * reach, back + canal + slope, z + 2), 5.5, 4.5),
        ]
    drop = {"C": 4.0, "T": 16.0, "L": 6.0}[vertebra.name[0]]
    shapes.append(Capsule((x, roof, z - 2), (x, roof + length, z - 2 - drop), 4.5, 4.5, 1.4))
    return tuple(shapes)


def _body(vertebra: Vertebra) -> Shape:
    x, y, z = vertebra.centre
    half = vertebra.half_height_mm
    wide, deep = vertebra.half_width_mm, vertebra.half_depth_mm
    waist = 0.9
    return Loft(
        (
            Section(z - half, x, y, wide, deep),
            Section(z, x, y, wide * waist, deep * waist),
            Section(z + half, x, y, wide, deep),
        ),
        squareness=0.35,
    )


def spine_parts(spine: Spine, traits: Traits) -> list[Part]:
    """Discs, vertebrae from L5 up to C1, and the canal."""
    parts: list[Part] = []
    order = tuple(reversed(spine.vertebrae))
    for below, above in itertools.pairwise(order):
        parts += unlabelled(
            _DISC, Capsule(below.centre, above.centre, 0.8 * below.half_depth_mm, 9.0)
        )
    for vertebra in order:
        spongy = traits.bone_hu + 9.0 * (24 - vertebra.level)
        bone = Tissue(spongy, shell_hu=spongy + 330, shell_mm=1.6)
        shapes = (*_arch(vertebra), _body(vertebra))
        if vertebra.name == "C2":
            x, y, z = vertebra.centre
            shapes = (*shapes, Capsule((x, y - 2, z), (x, y - 3, z + 26), 6.5, 5.5))
        if vertebra.name == "C1":
            shapes = _atlas(vertebra)
        parts += labelled(f"vertebrae_{vertebra.name}", bone, *shapes)
    for below, above in itertools.pairwise(order):
        parts += unlabelled(_CORD, Capsule(_canal(below), _canal(above), 8.0, 8.0))
    return parts


def _canal(vertebra: Vertebra) -> Point:
    x, y, z = vertebra.centre
    return (x, y + vertebra.half_depth_mm + 9.5, z)


def _atlas(vertebra: Vertebra) -> tuple[Shape, ...]:
    """C1 has no body: two lateral masses and two arches."""
    x, y, z = vertebra.centre
    front, back = (x, y - 12, z), (x, y + 36, z)
    shapes: list[Shape] = []
    for side in (1, -1):
        mass = (x + side * 20, y + 4, z)
        shapes += [
            Ellipsoid(mass, (10, 11, 8)),
            Capsule(mass, front, 5.0, 4.5),
            Capsule(mass, (x + side * 14, y + 28, z), 5.0, 4.5),
            Capsule((x + side * 14, y + 28, z), back, 4.5, 4.5),
            Capsule(mass, (x + side * 36, y + 4, z), 5.0, 4.5),
        ]
    return tuple(shapes)


def sacrum_parts(traits: Traits, vary: Variation) -> list[Part]:
    """A wedge that curves to the back, with its canal."""
    width = 52 * vary.factor(0.04)
    bone = Tissue(traits.bone_hu - 25, shell_hu=traits.bone_hu + 300, shell_mm=1.8)
    wedge = Loft(
        (
            Section(-140, 0, 82, 8, 6),
            Section(-112, 0, 90, 20, 9),
            Section(-75, 0, 84, 36, 16),
            Section(-45, 0, 64, width - 3, 22),
            Section(-20, 0, 42, width - 12, 22),
        ),
        squareness=0.3,
    )
    canal = Capsule((0, 64, -18), (0, 92, -85), 6.5, 4.0)
    return labelled("sacrum", bone, wedge) + unlabelled(_CORD, canal)


def back_muscle_parts(spine: Spine, vary: Variation) -> list[Part]:
    """The erector columns on either side, from the sacrum to the neck."""
    parts: list[Part] = []
    knots = [spine[name] for name in ("L5", "L3", "L1", "T10", "T7", "T4", "T1", "C6", "C3")]
    widths = (24, 28, 27, 24, 21, 19, 18, 16, 14)
    depths = (20, 22, 21, 17, 14, 13, 15, 16, 14)
    for name, side in (("autochthon_left", 1), ("autochthon_right", -1)):
        grow = vary.factor(0.05)
        sections = [Section(-75.0, side * 18.0, 104.0, 14.0, 9.0)]
        for vertebra, width, depth in zip(knots, widths, depths, strict=True):
            x, y, z = vertebra.centre
            back = y + vertebra.half_depth_mm + 20
            sections.append(
                Section(z, x + side * (width * grow + 2), back + 8, width * grow, depth * grow)
            )
        parts += labelled(name, Tissue(55), Loft(tuple(sections), squareness=0.4))
    return parts


def lumbar_screws(spine: Spine) -> list[Part]:
    """Pedicle screws in L4 and L5."""
    parts: list[Part] = []
    for name in ("L4", "L5"):
        x, y, z = spine[name].centre
        for side in (1, -1):
            screw = Capsule((x + side * 10, y - 4, z), (x + side * 17, y + 44, z), 3.0, 3.0)
            parts += inlaid(Tissue(2900), screw)
    return parts
