"""What augmentation may do to a window."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How often each change happens, and how far it goes; by default nothing happens.

    Parameters
    ----------
    flip_probability
        Of a mirror image along left-right, whose left and right structures change names.
    rotation_probability, rotation_degrees
        Of a turn about one of the three axes, and its limit in either direction.
    scaling_probability, scaling
        Of a change of size, and its limit: 0.1 gives factors from 1/1.1 to 1.1.
    intensity_probability, gain, offset, gamma
        Of another contrast, and its limits: values are multiplied by 1 - gain to 1 + gain,
        up to ``offset`` is added or taken away, and the exponent of values brought to 0..1
        goes from 1/(1 + gamma) to 1 + gamma.
    noise_probability, noise
        Of white noise, and the limit of its standard deviation, network values.
    low_resolution_probability, low_resolution
        Of thick slices along one of the three axes, and the limit of their thickness in
        voxels, at least 1.
    """

    flip_probability: float = 0.0
    rotation_probability: float = 0.0
    rotation_degrees: float = 0.0
    scaling_probability: float = 0.0
    scaling: float = 0.0
    intensity_probability: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    gamma: float = 0.0
    noise_probability: float = 0.0
    noise: float = 0.0
    low_resolution_probability: float = 0.0
    low_resolution: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be a number of at least 0: {value}")
            if field.name.endswith("_probability") and value > 1:
                raise ValueError(f"{field.name} must be in [0, 1]: {value}")
        if self.rotation_degrees > 45:
            raise ValueError(f"rotation_degrees must be in [0, 45]: {self.rotation_degrees}")
        if self.gain >= 1:
            raise ValueError(f"gain must be in [0, 1): {self.gain}")
        if self.low_resolution < 1:
            raise ValueError(f"low_resolution must be at least 1: {self.low_resolution}")

    def reach(self, window: int) -> int:
        """Edge of the cube to draw so that no turned or shrunk window looks beyond it.

        Parameters
        ----------
        window
            Edge of the window wanted in the end, voxels.
        """
        share = 1.0
        if self.rotation_probability > 0:
            angle = math.radians(self.rotation_degrees)
            share *= math.cos(angle) + math.sin(angle)
        if self.scaling_probability > 0:
            share *= 1 + self.scaling
        margin = math.ceil((window - 1) * (share - 1) / 2)
        return window + 2 * margin  # the centres stay on voxels


NO_AUGMENTATION = Augmentation()
