"""What was measured of one case, on disk: so that processes share cases and runs go on."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from inference.reasons import Reason
from training.evaluation.figures import CaseFigures, StructureFigures
from training.evaluation.outcome import CaseFailure, CaseOutcome

_SUFFIX = ".json"


def write_case(outcome: CaseOutcome, key: str, folder: Path) -> None:
    """Write one case; whole or not at all.

    Parameters
    ----------
    outcome
        Figures, or why there are none.
    key
        Digest of all that the figures depend on.
    folder
        Of the case files; made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, object] = {"key": key, "name": outcome.name}
    if isinstance(outcome, CaseFailure):
        record |= {"reason": str(outcome.reason), "detail": outcome.detail}
    else:
        record["structures"] = [asdict(structure) for structure in outcome.structures]
    handle, draft = tempfile.mkstemp(prefix=".writing-", suffix=_SUFFIX, dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
    Path(draft).chmod(0o644)
    Path(draft).replace(folder / f"{outcome.name}{_SUFFIX}")


def remove_failure(name: str, key: str, folder: Path) -> None:
    """Forget that a case failed, before it is judged again."""
    if isinstance(read_case(name, key, folder), CaseFailure):
        (folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)


def read_case(name: str, key: str, folder: Path) -> CaseOutcome | None:
    """Read one case; None if there is no file, or one that was made from something else."""
    try:
        record = json.loads((folder / f"{name}{_SUFFIX}").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("key") != key or record.get("name") != name:
        return None
    if "reason" in record:
        return CaseFailure(name, Reason(record["reason"]), str(record["detail"]))
    structures = tuple(StructureFigures(**fields) for fields in record["structures"])
    return CaseFigures(name, structures)
