"""Who made a label map: name, version and digest of a segmenter, for every result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The parameter that names them, with blanks between.
WANTED_PARAMETER: Final = "structures"


@dataclass(frozen=True, slots=True)
class SegmenterIdentity:
    """What a result says of the segmenter that made it.

    Two segmenters with equal identities give equal label maps for equal volumes on one
    kind of machine.
    """

    name: str  #: of the model in its store
    version: str
    digest: str  #: SHA-256 of the weights, hexadecimal
    demonstration: bool  #: True: trained on synthetic patients, for demonstration only
    intended_use: str
    parameters: tuple[tuple[str, str], ...]  #: all settings that change the result, sorted
    source: str  #: where the weights come from and their licence
    execution: tuple[tuple[str, str], ...] = ()  #: how it ran; does not change the result

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the only structures that were looked for; empty: all of the class list."""
        return tuple(dict(self.parameters).get(WANTED_PARAMETER, "").split())
