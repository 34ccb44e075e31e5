"""The configuration of a run that works in its own process, and sends nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicom_seg.read.examination import SeriesRules
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.processing import ResultsConfig
from pacs_bridge.config.routes import PostprocessingConfig

ROUTE: Final = "archive"
_OUT: Final = "out"
_MEGA: Final = 1e6


@dataclass(frozen=True, slots=True)
class OwnWork:
    """What a run works with that feeds itself."""

    model: str
    models_folder: Path | None
    kinds: tuple[str, ...]
    device: str = "auto"
    precision: str = "auto"
    job_timeout_s: float | None = None  #: for one series; None: as a service has it
    max_attempts: int | None = None  #: the same
    results: ResultsConfig | None = None  #: None: the usual texts
    postprocessing: PostprocessingConfig | None = None  #: None: none
    structures: tuple[str, ...] = ()  #: that are wanted; empty: all


def own_config(run_folder: Path, work: OwnWork, rules: SeriesRules) -> BridgeConfig:
    """A bridge in the run folder with one route; its listener and its destination are never used.

    Parameters
    ----------
    run_folder
        Of the run: ledger, scratch and results that are not finished lie in it.
    work
        What the user chose.
    rules
        Those that the plan was made with.
    """
    postprocessing = work.postprocessing or PostprocessingConfig()
    workers: dict[str, object] = {
        "devices": [work.device],
        "precision": work.precision,
        "retry": {"first_wait_s": 5.0, "max_wait_s": 600.0},
    }
    table: dict[str, object] = {
        "data_folder": str(run_folder / "work"),
        "listener": {"port": 0, "peers": [{"ae_title": "*", "addresses": ["127.0.0.1/32"]}]},
        "series": {
            "min_slices": rules.min_slices,
            "max_gap_mm": rules.max_gap_mm,
            "max_gap_ratio": rules.max_gap_ratio,
            "max_matrix": rules.max_matrix,
            "max_megavoxels": rules.max_voxels / _MEGA,
        },
        "workers": workers,
        "log": {"file": str(run_folder / "run.log")},
        "destinations": [
            {"name": _OUT, "ae_title": "NOBODY", "host": "localhost", "port": 104}
            | {"kinds": list(work.kinds)}
        ],
        "results": (work.results or ResultsConfig()).model_dump(mode="json"),
        "routes": [
            {"name": ROUTE, "model": work.model, "destinations": [_OUT]}
            | {"postprocessing": postprocessing.model_dump(mode="json")}
            | {"structures": list(work.structures)}
        ],
    }
    if work.job_timeout_s is not None:
        workers["job_timeout_s"] = work.job_timeout_s
    if work.max_attempts is not None:
        workers["max_attempts"] = work.max_attempts
    if work.models_folder is not None:
        table["models"] = {"folder": str(work.models_folder)}
    return BridgeConfig.model_validate_json(
        json.dumps(table), context={"folder": run_folder.resolve()}
    )
