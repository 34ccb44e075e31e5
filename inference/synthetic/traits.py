"""What tells one synthetic patient from another, drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from inference.synthetic.shapes import Matrix, Point, rotation
from inference.synthetic.tissue import Phase


class Arms(Enum):
    """Where the arms lie."""

    DOWN = "down"
    UP = "up"


class Metal(Enum):
    """Implants, which shine and belong to no structure of their own."""

    NONE = "none"
    HIP = "hip prosthesis"
    SPINE = "pedicle screws"
    PACEMAKER = "pacemaker"
    TEETH = "dental filling"


class FieldOfView(Enum):
    """Which part of the body is scanned: lowest and highest z of the reference body, mm."""

    WHOLE = (-250.0, 735.0)
    TRUNK = (-225.0, 505.0)
    THORAX_ABDOMEN = (-60.0, 490.0)
    THORAX = (130.0, 490.0)
    ABDOMEN = (-215.0, 285.0)
    HEAD_NECK = (350.0, 735.0)

    def __init__(self, low: float, high: float) -> None:
        self.low_mm = low
        self.high_mm = high


class Variation:
    """Bounded random deviations for one region of the body."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def mm(self, spread: float) -> float:
        """A deviation of about ``spread``, never beyond twice that."""
        return float(np.clip(self._rng.normal(0, spread), -2 * spread, 2 * spread))

    def factor(self, spread: float = 0.05) -> float:
        """A size factor around 1."""
        return math.exp(self.mm(spread))

    def near(self, point: Point, spread_mm: float = 3.0) -> Point:
        """``point``, moved a little."""
        x, y, z = point
        return (x + self.mm(spread_mm), y + self.mm(spread_mm), z + self.mm(spread_mm))

    def sized(self, radii: Point, spread: float = 0.05) -> Point:
        """``radii``, each scaled a little."""
        x, y, z = radii
        return (x * self.factor(spread), y * self.factor(spread), z * self.factor(spread))

    def between(self, low: float, high: float) -> float:
        """Uniform in the interval."""
        return float(self._rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """True that often."""
        return bool(self._rng.random() < probability)


@dataclass(frozen=True, slots=True, eq=False)
class Traits:
    """A patient's build, pose and scan."""

    size: Point  #: factors of the reference body along x, y, z
    pose: Matrix  #: 3 x 3 rotation, reference body -> LPS
    offset_mm: Point  #: LPS position of the origin of the reference body
    fat_mm: float  #: subcutaneous fat over the belly
    arms: Arms
    metal: Metal
    phase: Phase
    field_of_view: FieldOfView
    noise_hu: float  #: standard deviation in a voxel of 1.5 mm
    table: bool
    bone_hu: float  #: spongy bone of a lumbar vertebra
    oral_contrast: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Traits:
        """Traits of one patient."""
        stature = rng.uniform(0.92, 1.08)
        breadth = stature * rng.uniform(0.95, 1.05)
        depth = breadth * rng.uniform(0.95, 1.06)
        tilt = np.clip(rng.normal(0, [2.5, 2.0, 3.0]), -7, 7)
        x, y, z = (float(v) for v in rng.uniform([-15, -25, -60], [15, 25, 60]))
        metals = [metal for metal in Metal if metal is not Metal.NONE]
        return cls(
            size=(breadth, depth, stature),
            pose=rotation(*(float(v) for v in tilt)),
            offset_mm=(x, y, z),
            fat_mm=float(rng.uniform(8, 26)),
            arms=Arms.UP if rng.random() < 0.6 else Arms.DOWN,
            metal=metals[rng.integers(len(metals))] if rng.random() < 0.25 else Metal.NONE,
            phase=list(Phase)[rng.choice(4, p=[0.25, 0.2, 0.4, 0.15])],
            field_of_view=list(FieldOfView)[rng.choice(6, p=[0.25, 0.3, 0.15, 0.1, 0.15, 0.05])],
            noise_hu=float(rng.uniform(8, 28)),
            table=bool(rng.random() < 0.85),
            bone_hu=float(rng.uniform(130, 220)),
            oral_contrast=bool(rng.random() < 0.25),
        )
