"""Hip bones, thigh bones, the muscles around them and the bladder."""

from __future__ import annotations

from inference.synthetic.shapes import (
    Capsule,
    Cut,
    Ellipsoid,
    HalfSpace,
    Loft,
    Point,
    Section,
    rotation,
    smooth_curve,
    tube,
)
from inference.synthetic.spine import Spine
from inference.synthetic.tissue import Part, Tissue, inlaid, labelled, unlabelled
from inference.synthetic.traits import Metal, Traits, Variation


def _hip_joint(side: int) -> Point:
    return (side * 90.0, 0.0, -125.0)


def pelvic_muscle_parts(spine: Spine, vary: Variation) -> list[Part]:
    """Gluteal muscles from the surface inwards, iliopsoas, and unnamed thigh muscle."""
    parts: list[Part] = []
    for side, name in ((1, "left"), (-1, "right")):
        thigh = Loft(
            (
                Section(-420, side * 92, 8, 66, 70),
                Section(-200, side * 98, 8, 66, 74),
                Section(-140, side * 100, 6, 50, 60),
            )
        )
        parts += unlabelled(Tissue(52), thigh)
        flap = Ellipsoid(
            vary.near((side * 78, 84, -112), 2),
            vary.sized((66, 30, 78), 0.03),
            rotation(z_degrees=-side * 24, y_degrees=-side * 22),
        )
        medial = HalfSpace((side * 14, 0, 0), (-side, 0, 0))
        parts += labelled(f"gluteus_maximus_{name}", Tissue(45), Cut(flap, (medial,)))
        outer = Ellipsoid(
            vary.near((side * 122, 22, -48), 2),
            vary.sized((23, 54, 58), 0.03),
            rotation(z_degrees=-side * 18, y_degrees=side * 10),
        )
        parts += labelled(f"gluteus_medius_{name}", Tissue(54), outer)
        deep = Ellipsoid(
            vary.near((side * 114, 6, -72), 1.5),
            vary.sized((15, 36, 38), 0.03),
            rotation(z_degrees=-side * 18, y_degrees=side * 10),
        )
        parts += labelled(f"gluteus_minimus_{name}", Tissue(63), deep)
        x, y, z = spine["L1"].centre
        psoas = smooth_curve(
            [
                (x + side * 30, y + 8, z),
                (side * 40, 30, 70),
                vary.near((side * 52, 26, 5), 2),
                vary.near((side * 72, 2, -60), 2),
                (side * 88, -36, -118),
                (side * 104, 2, -172),
            ]
        )
        radii = [12, 13, 14, 16, 18, 20, 22, 23, 24, 24, 24, 23, 22, 22, 20, 19, 18, 16, 13, 12, 10]
        grow = vary.factor(0.04)
        solids = tube(psoas, [r * grow for r in radii])
        iliacus = Ellipsoid((side * 84, 14, -28), (15, 44, 44), rotation(z_degrees=-side * 24))
        parts += labelled(f"iliopsoas_{name}", Tissue(58), *solids, iliacus)
    return parts


def hip_parts(traits: Traits, vary: Variation) -> list[Part]:
    """Wing, socket, seat and pubic bone of either side."""
    bone = Tissue(traits.bone_hu, shell_hu=traits.bone_hu + 380, shell_mm=2.0)
    parts: list[Part] = []
    for side, name in ((1, "left"), (-1, "right")):
        x, y, z = _hip_joint(side)
        wing = Ellipsoid(
            vary.near((side * 98, 26, -34), 1.5),
            vary.sized((9.5, 68, 58), 0.03),
            rotation(z_degrees=-side * 24, y_degrees=side * 16),
        )
        socket = Cut(
            Ellipsoid((x - side * 4, y + 4, z + 2), (36, 36, 36)),
            within=(HalfSpace((x + side * 14, 0, 0), (side, 0, -0.6 * side * side)),),
        )
        pubis: Point = (side * 9.0, -44.0, -152.0)
        seat: Point = (side * 58.0, 44.0, -196.0)
        parts += labelled(
            f"hip_{name}",
            bone,
            wing,
            Capsule((x - side * 6, y + 6, z + 30), (side * 60, 66, -28), 16, 15),
            socket,
            Capsule((x - side * 6, y + 22, z - 18), seat, 18, 17),
            Capsule((x - side * 16, y - 16, z - 2), pubis, 13, 11),
            Capsule(pubis, (side * 46.0, 20.0, -196.0), 10, 10),
        )
    return parts


def femur_parts(traits: Traits, vary: Variation) -> list[Part]:
    """Head, neck, trochanter and shaft; one may carry a prosthesis."""
    bone = Tissue(traits.bone_hu + 60, shell_hu=traits.bone_hu + 450, shell_mm=2.5)
    marrow = Tissue(traits.bone_hu - 60, shell_hu=1250, shell_mm=6.5)
    parts: list[Part] = []
    operated = 1 if vary.chance(0.5) else -1
    for side, name in ((1, "left"), (-1, "right")):
        head = _hip_joint(side)
        x, y, z = head
        knee = vary.near((x + side * 12, y + 6, -430.0), 6)
        shaft_top: Point = (x + side * 40, y + 12, z - 52)
        parts += unlabelled(Tissue(70), Ellipsoid(head, (28, 28, 28)))
        parts += labelled(
            f"femur_{name}",
            bone,
            Capsule(head, (x + side * 40, y + 12, z - 26), 15, 17),
            Ellipsoid((x + side * 47, y + 16, z - 22), (17, 20, 28)),
            Ellipsoid(head, (25, 25, 25)),
        )
        parts += labelled(f"femur_{name}", marrow, Capsule(shaft_top, knee, 17, 15))
        if traits.metal is Metal.HIP and side == operated:
            steel = Tissue(3000)
            parts += inlaid(
                steel,
                Ellipsoid(head, (15, 15, 15)),
                Capsule(head, (x + side * 34, y + 10, z - 30), 6, 7),
                Capsule((x + side * 34, y + 10, z - 30), (x + side * 38, y + 11, z - 130), 7, 5),
            )
    return parts


def bladder_parts(vary: Variation) -> list[Part]:
    """The bladder, more or less full, and what lies beneath it."""
    full = vary.between(0.85, 1.15)
    urine = Tissue(5, shell_hu=40, shell_mm=3.0)
    parts = unlabelled(Tissue(45), Ellipsoid((0, 2, -166), (24, 20, 20)))
    balloon = Ellipsoid(vary.near((0, -18, -130), 2), (40 * full, 32 * full, 28 * full))
    return parts + labelled("urinary_bladder", urine, balloon)
