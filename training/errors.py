"""What can go wrong while weights are made; every error names the reason to stop with."""

from __future__ import annotations

from inference.errors import InferenceError


class TrainingError(InferenceError):
    """Work on weights that cannot go on; the detail names the file or the value."""
