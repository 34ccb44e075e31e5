"""Liver, spleen, kidneys and the organs of the upper belly."""

from __future__ import annotations

from inference.synthetic.ribcage import cage
from inference.synthetic.shapes import (
    Capsule,
    Cut,
    Ellipsoid,
    HalfSpace,
    Point,
    rotation,
    smooth_curve,
    tube,
)
from inference.synthetic.spine import Spine
from inference.synthetic.thorax import diaphragm
from inference.synthetic.tissue import Part, Tissue, labelled, unlabelled
from inference.synthetic.traits import Traits, Variation

_MUSCLE = Tissue(50)


def diaphragm_parts(spine: Spine) -> list[Part]:
    """The muscle of the domes, with the fat of the belly beneath them."""
    within = (cage(spine, 7.0), HalfSpace((0, 0, 185), (0, 0, -1)))
    parts: list[Part] = []
    for inset, tissue in ((0.0, _MUSCLE), (3.5, Tissue(-95))):
        parts += unlabelled(tissue, *(Cut(diaphragm(side, inset), within) for side in (1, -1)))
    return parts


def liver_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """A right lobe under the dome and a left one towards the stomach; the gallbladder."""
    hu = 55 + traits.phase.liver_hu + vary.mm(6)
    within = cage(spine, 12.0)
    right = Ellipsoid(vary.near((-66, -12, 188), 3), vary.sized((70, 88, 82), 0.03))
    left = Ellipsoid(
        vary.near((0, -48, 218), 3), vary.sized((64, 40, 34), 0.04), rotation(y_degrees=-14)
    )
    dome = diaphragm(-1, 5.0)
    wide = Ellipsoid((-20, -22, 192), (118, 104, 84))
    flat_bottom = HalfSpace((-60, 0, 108 + vary.mm(5)), (0.18, -0.12, -1.0))
    liver = Tissue(hu)
    parts = labelled("liver", liver, Cut(left, (within, wide)))
    parts += labelled("liver", liver, Cut(right, (within, dome, flat_bottom)))
    bladder = vary.near((-46, -66, 138), 3)
    parts += labelled(
        "gallbladder",
        Tissue(8, shell_hu=30, shell_mm=1.2),
        Ellipsoid(bladder, vary.sized((15, 19, 27), 0.06), rotation(x_degrees=20)),
    )
    return parts


def spleen_parts(spine: Spine, traits: Traits, vary: Variation) -> list[Part]:
    """A bean under the left dome."""
    bean = Ellipsoid(
        vary.near((88, 36, 206), 3), vary.sized((33, 50, 55), 0.05), rotation(z_degrees=-20)
    )
    hollow = Ellipsoid((46, 6, 212), (20, 30, 40))
    spleen = Cut(bean, (cage(spine, 12.0), diaphragm(1, 4.0)), (hollow,))
    return labelled("spleen", Tissue(50 + traits.phase.spleen_hu + vary.mm(4)), spleen)


def kidney_parts(traits: Traits, vary: Variation) -> list[Part]:
    """Kidneys beside the spine, the right one lower, and the adrenals above them."""
    cortex = 33 + traits.phase.kidney_hu
    parts: list[Part] = []
    adrenal = Tissue(32 + 0.9 * traits.phase.organs_hu)
    for side, name, height in ((1, "left", 148.0), (-1, "right", 136.0)):
        x, y, z = vary.near((side * 60, 44, height), 3)
        axes = rotation(y_degrees=-side * 12, x_degrees=8)
        radii = vary.sized((27, 25, 54), 0.04)
        tissue = Tissue(0.75 * cortex + 5, shell_hu=cortex, shell_mm=8.0)
        parts += labelled(f"kidney_{name}", tissue, Ellipsoid((x, y, z), radii, axes))
        sinus: Point = (x - side * 16, y - 2, z)
        parts += unlabelled(Tissue(-60), Ellipsoid(sinus, (13, 8, 20), axes))
        top: Point = (x - side * 20, y - 14, z + 58)
        parts += labelled(
            f"adrenal_gland_{name}",
            adrenal,
            Capsule((top[0], top[1] - 5, top[2] + 8), (top[0], top[1] + 15, top[2] - 10), 4.6, 4.4),
            Capsule(
                (top[0], top[1] - 5, top[2] + 8),
                (top[0] + side * 14, top[1] + 8, top[2] - 12),
                4.6,
                4.4,
            ),
        )
    return parts


def stomach_parts(traits: Traits, vary: Variation) -> list[Part]:
    """From fundus to pylorus, with a bubble of gas at the front."""
    content = 220.0 if traits.oral_contrast else 15.0
    course = smooth_curve(
        [
            vary.near((50, 0, 238), 2),
            vary.near((60, -22, 206), 2),
            vary.near((52, -48, 172), 2),
            vary.near((22, -62, 152), 2),
            vary.near((-14, -52, 156), 2),
        ]
    )
    full = vary.factor(0.06)
    radii = [full * (34 - 21 * (i / (len(course) - 1)) ** 1.3) for i in range(len(course))]
    wall = Tissue(content, shell_hu=45 + 0.6 * traits.phase.organs_hu, shell_mm=4.5)
    solids = tube(course, radii)
    parts = labelled("stomach", wall, *solids)
    inner = tube(course, [max(r - 5, 2) for r in radii])
    parts += labelled("stomach", Tissue(content), *inner)
    level = course[3][1] - 12 + vary.mm(6)
    air = HalfSpace((0, level, 0), (0, 1, 0))
    parts += labelled("stomach", Tissue(-900), *(Cut(solid, (air,)) for solid in inner))
    return parts


def pancreas_parts(traits: Traits, vary: Variation) -> list[Part]:
    """Head beside the duodenum, tail towards the spleen."""
    course = smooth_curve(
        [
            vary.near((-24, -28, 136), 1.5),
            vary.near((-14, -34, 158), 1.5),
            vary.near((12, -38, 172), 1.5),
            vary.near((42, -24, 182), 1.5),
            vary.near((70, 6, 190), 1.5),
        ]
    )
    radii = [15.5 - 5 * min(i / (len(course) - 1) * 1.6, 1.0) for i in range(len(course))]
    return labelled("pancreas", Tissue(40 + traits.phase.organs_hu), *tube(course, radii))


def duodenum_parts(traits: Traits, vary: Variation) -> list[Part]:
    """A C round the head of the pancreas."""
    course = smooth_curve(
        [
            vary.near((-26, -48, 158), 1.5),
            vary.near((-48, -30, 148), 1.5),
            vary.near((-52, -18, 118), 1.5),
            vary.near((-36, -16, 92), 1.5),
            vary.near((0, -24, 86), 1.5),
            vary.near((26, -28, 104), 1.5),
        ]
    )
    content = 180.0 if traits.oral_contrast else 20.0
    wall = Tissue(content, shell_hu=45 + 0.6 * traits.phase.organs_hu, shell_mm=4.5)
    return labelled("duodenum", wall, *tube(course, 12.5 * vary.factor(0.05)))
