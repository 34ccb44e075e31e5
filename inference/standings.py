"""Who came first and second at each voxel of the network's grid, and by how much, in four bytes.

A standing is four uint8: the class with the largest logit; the class with the second largest;
the lead of the first over the second; its lead over the third. A lead, in logits, is kept as
16 times its square root: steps of 0.004 logits where two classes are tied, 0.1 at a lead of 1,
0.5 at 16, and no end before 254. Where first and second are the same
class the voxel was not ranked: it was not computed, or all 26 around it have its class.

Nothing here imports torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: Of one voxel.
STANDING_BYTES = 4
#: Where they are: first class, second class, and the leads over the second and the third.
FIRST, SECOND, LEAD, LEAD_OVER_THIRD = range(STANDING_BYTES)
#: Codes a square root of a logit; the largest code.
LEAD_CODES, MAX_LEAD_CODE = 16.0, 255


def leads(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Leads in logits; any shape."""
    root = codes * np.float32(1 / LEAD_CODES)
    return np.asarray(np.square(root, out=root), dtype=np.float32)


def lead_codes(leads_in_logits: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The nearest codes of leads, which are not negative; any shape."""
    roots = np.rint(np.sqrt(np.asarray(leads_in_logits, dtype=np.float64)) * LEAD_CODES)
    return np.asarray(np.minimum(roots, MAX_LEAD_CODE), dtype=np.uint8)


def ranked(standings: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which of ``(..., 4)`` standings say more than the first class."""
    return np.asarray(standings[..., FIRST] != standings[..., SECOND])
