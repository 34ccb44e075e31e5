"""Skull, brain and face, and what stands in the neck."""

from __future__ import annotations

from inference.synthetic.shapes import Capsule, Cut, Ellipsoid, HalfSpace, Loft, Point, Section
from inference.synthetic.spine import Spine
from inference.synthetic.tissue import AIR, Part, Tissue, inlaid, labelled, unlabelled
from inference.synthetic.traits import Metal, Traits, Variation


def head_skin() -> tuple[Ellipsoid, ...]:
    """The outer solids of the head: cranium and jaw."""
    return (
        Ellipsoid((0, -14, 642), (77, 97, 86)),
        Ellipsoid((0, -52, 572), (58, 54, 66)),
        Ellipsoid((0, -104, 590), (13, 16, 22)),
    )


def neck_parts(spine: Spine) -> list[Part]:
    """Muscle of the neck and the thyroid."""
    x, y, z = spine["C6"].centre
    muscle = Loft(
        (
            Section(455, x, 20, 70, 48),
            Section(490, x, 12, 50, 48),
            Section(570, x, 8, 46, 46),
            Section(600, x, 8, 44, 40),
        )
    )
    parts = unlabelled(Tissue(55), muscle)
    for side in (1, -1):
        lobe = Ellipsoid((x + side * 17, y - 28, z - 8), (9, 11, 20))
        parts += unlabelled(Tissue(120), lobe)
        vessel = Capsule((side * 32, 2, 470), (side * 30, -2, 590), 6, 6)
        parts += unlabelled(Tissue(80), vessel)
    return parts


def head_parts(traits: Traits, vary: Variation) -> list[Part]:
    """Face in front, then skull and brain, then the air of mouth, nose and throat."""
    bone = Tissue(650, shell_hu=1000, shell_mm=2.0)
    before = HalfSpace((0, -52 + vary.mm(2), 0), (0, 1, 0.0))
    top = HalfSpace((0, 0, 652 + vary.mm(3)), (0, -0.25, 1))
    face_within = (before, top)
    parts: list[Part] = []
    skin = Tissue(-20, shell_hu=30, shell_mm=3.0)
    for solid in head_skin():
        parts += labelled("face", skin, Cut(solid, face_within))
    jaw: Point = (0, -88, 528)
    for side in (1, -1):
        angle: Point = (side * 46, -30, 550)
        joint: Point = (side * 52, -16, 604)
        parts += unlabelled(bone, Capsule(angle, joint, 6, 6))
        front = Capsule(jaw, angle, 8, 7)
        cheek = Ellipsoid((side * 36, -74, 606), (16, 14, 10))
        parts += labelled("face", bone, front, cheek)
        parts += labelled("face", AIR, Ellipsoid((side * 30, -66, 590), (12, 14, 12)))
        orbit = Ellipsoid((side * 32, -84, 626), (14, 14, 13))
        parts += labelled("face", Tissue(15), orbit)
    parts += labelled("face", bone, Ellipsoid((0, -82, 562), (26, 22, 10)))
    if traits.metal is Metal.TEETH:
        parts += inlaid(Tissue(3000), Ellipsoid((20, -90, 552), (4, 4, 4)))
    parts += labelled("face", AIR, Ellipsoid((0, -86, 592), (10, 20, 16)))
    parts += unlabelled(AIR, Capsule((0, -30, 590), (0, -20, 514), 9, 8))
    parts += labelled("face", Tissue(50), Ellipsoid((0, -68, 545), (22, 26, 16)))
    cranium = Ellipsoid((0, -10, 648), (71, 90, 75))
    base = HalfSpace((0, 0, 592), (0, -0.16, -1))
    parts += unlabelled(Tissue(700, shell_hu=1100, shell_mm=2.0), Cut(cranium, (base,)))
    inside = Ellipsoid((0, -10, 648), (64, 83, 68))
    floor = HalfSpace((0, 0, 598), (0, -0.16, -1))
    grey = Tissue(30, shell_hu=40, shell_mm=6.0)
    parts += labelled("brain", grey, Cut(inside, (floor,)))
    parts += labelled("brain", Tissue(34), Capsule((0, 14, 612), (0, 20, 592), 11, 8))
    return parts
