"""Lungs and their lobes, heart, great airways and the gullet."""

from __future__ import annotations

from inference.synthetic.ribcage import cage
from inference.synthetic.shapes import (
    Capsule,
    Cut,
    Ellipsoid,
    HalfSpace,
    Loft,
    Point,
    Section,
    Shape,
    rotation,
    smooth_curve,
    tube,
)
from inference.synthetic.spine import Spine
from inference.synthetic.tissue import Part, Tissue, inlaid, labelled, unlabelled
from inference.synthetic.traits import Traits, Variation

_LUNG = Tissue(-830)
_MEDIASTINUM = Tissue(-20)


def diaphragm(side: int, inset_mm: float = 0.0) -> Ellipsoid:
    """The dome under a lung: side 1 left, -1 right."""
    height = 92.0 if side < 0 else 80.0
    radii = (84.0 - inset_mm, 112.0 - inset_mm, height - inset_mm)
    return Ellipsoid((side * 58.0, -22.0, 192.0), radii)


def lung_parts(spine: Spine, vary: Variation) -> list[Part]:
    """Five lobes, parted by fissure planes; the domes of the diaphragm limit them below."""
    within = cage(spine, 8.5)
    centre_x = spine["T6"].centre[0]
    parts: list[Part] = []
    for side, name in ((1, "left"), (-1, "right")):
        medial = HalfSpace((centre_x + side * 13.0, 0, 0), (-side, 0, 0))
        lung = Cut(within, (medial,), (diaphragm(side), _floor(side)))
        oblique_y, oblique_z = -10 + vary.mm(2.5), 322 + vary.mm(4)
        fissure = HalfSpace((0, oblique_y, oblique_z), (0, -0.72, 0.70))
        above = HalfSpace((0, oblique_y, oblique_z), (0, 0.72, -0.70))
        parts += labelled(f"lung_lower_lobe_{name}", _LUNG, Cut(lung, (fissure,)))
        if side > 0:
            parts += labelled("lung_upper_lobe_left", Tissue(-850), Cut(lung, (above,)))
            continue
        level = 338 + vary.mm(4)
        beneath = HalfSpace((0, -60, level), (0.0, 0.1, 1.0))
        top = HalfSpace((0, -60, level), (0.0, -0.1, -1.0))
        parts += labelled("lung_middle_lobe_right", Tissue(-810), Cut(lung, (above, beneath)))
        parts += labelled("lung_upper_lobe_right", Tissue(-850), Cut(lung, (above, top)))
    return parts


def _floor(side: int) -> Shape:
    """Nothing of a lung lies below the costal recess."""
    return HalfSpace((side * 60.0, 40.0, 188.0), (0, -0.35, 1.0))


def lung_vessel_parts(traits: Traits, vary: Variation) -> list[Part]:
    """A few branches in each lung; they belong to the lobe around them."""
    blood = Tissue(40 + 0.7 * traits.phase.veins_hu)
    parts: list[Part] = []
    for side in (1, -1):
        hilum: Point = (side * 38.0, 8.0, 338.0)
        for target in (
            (side * 80.0, -30.0, 400.0),
            (side * 95.0, 20.0, 360.0),
            (side * 80.0, 45.0, 300.0),
            (side * 85.0, -50.0, 320.0),
        ):
            end = vary.near(target, 6)
            middle = tuple(0.5 * (a + b) + vary.mm(4) for a, b in zip(hilum, end, strict=True))
            curve = smooth_curve([hilum, (middle[0], middle[1], middle[2]), end], 3)
            parts += inlaid(blood, *tube(curve, [5.0 - 0.5 * i for i in range(len(curve))]))
    return parts


def mediastinum_parts(spine: Spine) -> list[Part]:
    """The fat and soft tissue between the lungs, from the domes to the neck."""
    x = spine["T6"].centre[0]
    column = Loft(
        (
            Section(215, x, -20, 30, 70),
            Section(290, x + 4, -20, 36, 66),
            Section(350, x, -10, 30, 55),
            Section(410, x, 0, 28, 42),
            Section(470, x, 8, 26, 32),
        )
    )
    hila = [Ellipsoid((side * 34.0, 5.0, 338.0), (14, 18, 24)) for side in (1, -1)]
    return unlabelled(_MEDIASTINUM, column, *hila)


def heart_parts(traits: Traits, vary: Variation) -> list[Part]:
    """Four chambers, the muscle of the left one, and the pulmonary artery."""
    phase = traits.phase
    left_blood = Tissue(42 + phase.arteries_hu * 0.95)
    right_blood = Tissue(42 + (0.75 * phase.veins_hu + 0.35 * phase.arteries_hu))
    size = vary.factor(0.04)
    x, y, z = vary.near((24.0, -48.0, 288.0), 3.0)

    def at(dx: float, dy: float, dz: float) -> Point:
        return (x + size * dx, y + size * dy, z + size * dz)

    def radii(a: float, b: float, c: float) -> Point:
        return vary.sized((a * size, b * size, c * size), 0.03)

    axis = rotation(x_degrees=-42, y_degrees=-38, z_degrees=0)
    cavity = radii(21, 21, 36)
    muscle: Point = (cavity[0] + 11, cavity[1] + 11, cavity[2] + 10)
    centre = at(22, 0, -4)
    sac = Ellipsoid(at(3, 5, 8), radii(62, 50, 58), rotation(y_degrees=-30))
    parts = unlabelled(Tissue(-40, shell_hu=25, shell_mm=2.5), sac)
    parts += labelled(
        "heart_atrium_right", right_blood, Ellipsoid(at(-46, 16, 8), radii(24, 29, 34))
    )
    parts += labelled(
        "heart_ventricle_right",
        right_blood,
        Ellipsoid(at(-12, -22, -4), radii(36, 25, 36), rotation(y_degrees=-35)),
    )
    parts += labelled(
        "heart_atrium_left", left_blood, Ellipsoid(at(-10, 44, 26), radii(34, 19, 25))
    )
    parts += labelled(
        "heart_myocardium", Tissue(50 + phase.organs_hu * 1.2), Ellipsoid(centre, muscle, axis)
    )
    parts += labelled("heart_ventricle_left", left_blood, Ellipsoid(centre, cavity, axis))
    trunk = [at(-16, -28, 30), at(-6, -14, 52), at(2, 14, 62)]
    fork = trunk[-1]
    branches = [
        *tube(trunk, [14, 14, 13.5]),
        *tube([fork, (fork[0] + 26, fork[1] + 16, fork[2] + 4)], [13, 9.5]),
        *tube([fork, at(-34, 42, 58), at(-62, 48, 50)], [13, 11, 9.5]),
    ]
    parts += labelled("pulmonary_artery", right_blood, *branches)
    return parts


def airway_parts(spine: Spine, vary: Variation) -> list[Part]:
    """Windpipe to the main bronchi, and the gullet behind it down to the stomach."""
    t4 = spine["T4"]
    front = t4.centre[1] - t4.half_depth_mm
    x = spine["T1"].centre[0]
    neck_y = spine["C6"].centre[1] - spine["C6"].half_depth_mm
    carina: Point = (x - 2 + vary.mm(1.5), front - 24, 376 + vary.mm(3))
    radius = 8.8 * vary.factor(0.05)
    wind = smooth_curve([(x, neck_y - 22, 512), (x, front - 26, 440), carina])
    wall = Tissue(-990, shell_hu=-200, shell_mm=1.2)
    parts: list[Part] = []
    gullet = smooth_curve(
        [
            (x + 2, neck_y - 8, 502),
            (x + 5, front - 7, 440),
            (carina[0] + 9, front - 6, 372),
            (x + 8, front - 10, 320),
            (x + 12, front - 14, 268),
            (34.0, 2.0, 236.0),
        ]
    )
    swallow = Tissue(30 if vary.chance(0.6) else -250, shell_hu=38, shell_mm=4.0)
    parts += labelled("esophagus", swallow, *tube(gullet, 8.2 * vary.factor(0.05)))
    bronchi = [
        Capsule(carina, (carina[0] + side * 36, carina[1] + 8, carina[2] - 32), radius, 6.5)
        for side in (1, -1)
    ]
    parts += labelled("trachea", wall, *tube(wind, radius), *bronchi)
    return parts
