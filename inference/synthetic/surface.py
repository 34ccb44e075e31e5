"""Skin, fat and wall of the trunk, and what lies around the patient."""

from __future__ import annotations

from inference.synthetic.head import head_skin
from inference.synthetic.ribcage import cage
from inference.synthetic.shapes import Capsule, Cut, Ellipsoid, HalfSpace, Loft, Section, Shape
from inference.synthetic.spine import Spine
from inference.synthetic.tissue import FAT, Part, Tissue, inlaid, unlabelled
from inference.synthetic.traits import Traits

#: z, y of the middle, half width, half depth of the muscular trunk without its fat, mm.
_TRUNK = (
    (-228.0, 8.0, 140.0, 72.0),
    (-200.0, 8.0, 160.0, 96.0),
    (-150.0, 14.0, 164.0, 104.0),
    (-90.0, 12.0, 152.0, 104.0),
    (-30.0, 4.0, 136.0, 98.0),
    (30.0, -2.0, 128.0, 94.0),
    (90.0, -3.0, 130.0, 97.0),
    (170.0, -2.0, 138.0, 102.0),
    (250.0, 0.0, 143.0, 108.0),
    (330.0, 4.0, 148.0, 106.0),
    (390.0, 12.0, 156.0, 92.0),
    (425.0, 20.0, 158.0, 76.0),
    (450.0, 22.0, 120.0, 64.0),
    (475.0, 16.0, 72.0, 58.0),
    (505.0, 8.0, 56.0, 56.0),
    (600.0, 2.0, 54.0, 56.0),
)


def _trunk(more_mm: float) -> Loft:
    return Loft(
        tuple(
            Section(z, 0.0, y, width + more_mm, depth + more_mm) for z, y, width, depth in _TRUNK
        ),
        squareness=0.25,
    )


def _legs(more_mm: float) -> tuple[Shape, ...]:
    return tuple(
        Loft(
            (
                Section(-450, side * 92, 8, 70 + more_mm, 74 + more_mm),
                Section(-170, side * 90, 8, 78 + more_mm, 92 + more_mm),
            )
        )
        for side in (1, -1)
    )


def body_parts(traits: Traits) -> list[Part]:
    """Skin and subcutaneous fat, then the muscular wall."""
    fat = traits.fat_mm
    skin = Tissue(FAT.hu, shell_hu=20, shell_mm=2.2)
    outer: tuple[Shape, ...] = (_trunk(fat), *_legs(0.7 * fat), *head_skin())
    parts = unlabelled(skin, *outer)
    return parts + unlabelled(Tissue(52), _trunk(0.0))


def cavity_parts(spine: Spine) -> list[Part]:
    """Fat of the belly and the pelvis, and the chest wall with its inner lining."""
    belly = Loft(
        (
            Section(-185, 0, 0, 40, 40),
            Section(-150, 0, 2, 84, 66),
            Section(-90, 0, 2, 100, 80),
            Section(-30, 0, -8, 112, 78),
            Section(30, 0, -14, 114, 72),
            Section(90, 0, -12, 116, 78),
            Section(170, 0, -8, 118, 86),
            Section(215, 0, -8, 112, 84),
        ),
        squareness=0.3,
    )
    backs = Ellipsoid((0, 52, 140), (96, 40, 80))
    fat = Tissue(-95)
    parts = unlabelled(fat, belly, Cut(backs, (_trunk(-8.0),)))
    lower = HalfSpace((0, 0, 235), (0, 0, 1))
    return parts + unlabelled(
        fat, Cut(cage(spine, 9.0), (lower, HalfSpace((0, 0, 120), (0, 0, -1))))
    )


def pacemaker_parts() -> list[Part]:
    """A can under the left clavicle and a lead to the right ventricle."""
    return inlaid(
        Tissue(2600),
        Ellipsoid((95, -62, 398), (22, 6, 20)),
        Capsule((78, -58, 405), (20, -30, 425), 1.8, 1.8),
        Capsule((20, -30, 425), (-26, -30, 370), 1.8, 1.8),
        Capsule((-26, -30, 370), (2, -72, 272), 1.8, 1.8),
    )


def table_parts(back_mm: float) -> list[Part]:
    """The couch under the patient, in the frame of the scanner: foam in a shell."""
    couch = Loft(
        (
            Section(-2000, 0, back_mm + 26, 230, 24),
            Section(2000, 0, back_mm + 26, 230, 24),
        ),
        squareness=0.8,
    )
    return unlabelled(Tissue(-940, shell_hu=-250, shell_mm=2.5), couch)
