"""Small bowel and colon."""

from __future__ import annotations

import numpy as np

from inference.synthetic.shapes import Ellipsoid, Point, smooth_curve, tube
from inference.synthetic.tissue import Part, Tissue, labelled, unlabelled
from inference.synthetic.traits import Traits, Variation


def small_bowel_parts(traits: Traits, vary: Variation) -> list[Part]:
    """Loops that run to and fro in the middle of the belly, two layers deep."""
    content = 200.0 if traits.oral_contrast else 18.0
    wall = Tissue(content, shell_hu=50 + 0.7 * traits.phase.organs_hu, shell_mm=3.5)
    course: list[Point] = []
    side = 1
    for row, z in enumerate(np.linspace(62, -82, 7)):
        depth = -52.0 if row % 2 else -46.0
        width = 54.0 if -70 < z < 45 else 38.0
        for x in np.linspace(side * width, -side * width, 4):
            course.append(vary.near((float(x), depth + 5.0 * float(np.cos(x / 18)), float(z)), 2.5))
        side = -side
    radius = 14.5 * vary.factor(0.05)
    parts = labelled("small_bowel", wall, *tube(smooth_curve(course, 3), radius))
    back = [
        vary.near(point, 2.5)
        for point in ((50.0, -22.0, 62.0), (40.0, -20.0, 20.0), (-36.0, -18.0, -8.0))
    ]
    parts += labelled("small_bowel", wall, *tube(smooth_curve(back, 4), 12.5))
    for _ in range(3):
        x, y, z = course[int(vary.between(0, len(course)))]
        parts += labelled("small_bowel", Tissue(-850), Ellipsoid((x, y - 5, z), (8, 5, 7)))
    return parts


def colon_parts(vary: Variation) -> list[Part]:
    """A frame round the small bowel, from the caecum to the rectum; stool, gas and wall."""
    course = smooth_curve(
        [
            vary.near((-88, -30, -42), 2.5),
            vary.near((-98, -22, 0), 2.5),
            vary.near((-100, -8, 50), 2.5),
            vary.near((-94, -22, 92), 2.5),
            vary.near((-62, -66, 88), 2.5),
            vary.near((0, -80, 84), 2.5),
            vary.near((56, -72, 98), 2.5),
            vary.near((98, -34, 136), 2.5),
            vary.near((106, 0, 96), 2.5),
            vary.near((108, -2, 40), 2.5),
            vary.near((100, -12, -10), 2.5),
            vary.near((78, -16, -48), 2.5),
            vary.near((36, -2, -78), 2.5),
            vary.near((4, 26, -88), 2.5),
            vary.near((0, 54, -118), 2.0),
            vary.near((0, 44, -158), 1.5),
        ],
        4,
    )
    share = np.linspace(0, 1, len(course))
    radii = np.interp(share, [0, 0.1, 0.3, 0.6, 0.8, 0.9, 1.0], [27, 25, 22, 19, 17, 19, 17])
    haustra = 1 + 0.06 * np.cos(np.arange(len(course)) * 2.4)
    widths = [float(r) for r in radii * haustra * vary.factor(0.04)]
    stool = Tissue(vary.between(-60, 40), shell_hu=50, shell_mm=3.5)
    parts = labelled("colon", stool, *tube(course, widths))
    for index in range(0, len(course) - 6, 3):
        if vary.chance(0.55):
            x, y, z = course[index]
            width = widths[index]
            gas = Ellipsoid((x, y - 0.3 * width, z), (0.62 * width, 0.45 * width, 0.7 * width))
            parts += labelled("colon", Tissue(-920), gas)
    return parts


def mesentery_parts() -> list[Part]:
    """A little soft tissue among the loops."""
    return unlabelled(Tissue(-60), Ellipsoid((0, -28, 20), (40, 14, 60)))
