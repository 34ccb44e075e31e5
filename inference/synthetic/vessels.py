"""The aorta, the great veins, the portal vein and the vessels of the pelvis."""

from __future__ import annotations

from inference.synthetic.shapes import Point, smooth_curve, tube
from inference.synthetic.spine import Spine
from inference.synthetic.tissue import Part, Tissue, labelled
from inference.synthetic.traits import Traits, Variation

_BLOOD_HU = 42.0


def _before(spine: Spine, name: str, side_mm: float, gap_mm: float) -> Point:
    """A point in front of a vertebral body, ``side_mm`` to the left of its middle."""
    vertebra = spine[name]
    x, y, z = vertebra.centre
    return (x + side_mm, y - vertebra.half_depth_mm - gap_mm, z)


def aorta_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """From the root over the arch to the fork before L4."""
    wide = vary.factor(0.06)
    arch_top = 412 + vary.mm(3)
    course = [
        (6.0, -36.0, 312.0),
        (-16.0, -44.0, 345.0),
        (-15.0, -36.0, arch_top - 24),
        (2.0, -14.0, arch_top),
        (20.0, 14.0, arch_top - 10),
        _before(spine, "T5", 20, 8),
        _before(spine, "T7", 19, 8),
        _before(spine, "T9", 16, 9),
        _before(spine, "T11", 11, 10),
        _before(spine, "L1", 9, 11),
        _before(spine, "L3", 8, 10),
        _before(spine, "L4", 5, 10),
    ]
    curve = smooth_curve(course, 3)
    radii = [wide * (17.0 - 7.5 * i / (len(curve) - 1)) for i in range(len(curve))]
    blood = Tissue(_BLOOD_HU + traits.phase.arteries_hu)
    return labelled("aorta", blood, *tube(curve, radii))


def vena_cava_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """From the joining of the iliac veins to the right atrium."""
    curve = smooth_curve(
        [
            _before(spine, "L4", -19, 8),
            _before(spine, "L2", -21, 9),
            _before(spine, "T12", -23, 14),
            _before(spine, "T10", -25, 24),
            (-26.0, -18.0, 268.0),
            (-24.0, -30.0, 290.0),
        ]
    )
    blood = Tissue(_BLOOD_HU + 0.9 * traits.phase.veins_hu)
    return labelled("inferior_vena_cava", blood, *tube(curve, 11.5 * vary.factor(0.06)))


def portal_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """Splenic vein behind the pancreas, then the portal vein to the liver."""
    z = spine["L1"].centre[2]
    curve = smooth_curve(
        [
            (82.0, 26.0, z + 46),
            (42.0, -12.0, z + 38),
            (8.0, -20.0, z + 30),
            (-14.0, -20.0, z + 34),
            (-34.0, -14.0, z + 52),
            (-58.0, -14.0, z + 62),
        ]
    )
    blood = Tissue(_BLOOD_HU + 1.05 * traits.phase.veins_hu)
    radii = [7.0 + 1.5 * i / (len(curve) - 1) for i in range(len(curve))]
    wide = vary.factor(0.05)
    return labelled("portal_vein_and_splenic_vein", blood, *tube(curve, [r * wide for r in radii]))


def iliac_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """Arteries in front and outside, veins behind and inside, to below the groin."""
    parts: list[Part] = []
    fork = _before(spine, "L4", 5, 10)
    joint = _before(spine, "L4", -19, 8)
    artery = Tissue(_BLOOD_HU + traits.phase.arteries_hu)
    vein = Tissue(_BLOOD_HU + 0.75 * traits.phase.veins_hu)
    for side, name in ((1, "left"), (-1, "right")):
        course = [
            joint,
            (side * 20.0 - 5, 12.0, -16.0),
            (side * 42.0, 24.0, -48.0),
            (side * 58.0, -2.0, -90.0),
            (side * 70.0, -34.0, -125.0),
            (side * 76.0, -44.0, -165.0),
        ]
        parts += labelled(
            f"iliac_vena_{name}", vein, *tube(smooth_curve(course), 7.2 * vary.factor(0.05))
        )
    for side, name in ((1, "left"), (-1, "right")):
        course = [
            fork,
            (side * 25.0 + 2, -4.0, -12.0),
            (side * 52.0, 8.0, -48.0),
            (side * 71.0, -16.0, -90.0),
            (side * 84.0, -46.0, -125.0),
            (side * 91.0, -56.0, -165.0),
        ]
        parts += labelled(
            f"iliac_artery_{name}", artery, *tube(smooth_curve(course), 6.2 * vary.factor(0.05))
        )
    return parts
