"""The network's smallest form at 6 mm: it labels nothing rightly and does all that a real one does.

Tests that want another name or spacing replace it; weights are random numbers of theirs.
"""

from __future__ import annotations

from inference.intensity import ROBUST_INTENSITY
from inference.manifest import ModelManifest
from inference.network import NetworkSpec

TINY = ModelManifest(
    name="tiny",
    version="1",
    spacing_mm=6.0,
    intensity=ROBUST_INTENSITY,
    network=NetworkSpec(init_filters=8, blocks_down=(1, 1, 1, 1), blocks_up=(1, 1, 1)),
    source="random numbers",
    licence="none",
    intended_use="Tests of everything but accuracy",
    demonstration=True,
)
