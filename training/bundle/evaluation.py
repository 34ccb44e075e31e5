"""What ``configs/evaluate.json`` runs: the clinic's segmenter, judged on the scan's grid."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.errors import InferenceError
from training.bundle.cases import Listed, scan_pairs
from training.bundle.inference import bundle_segmenter
from training.bundle.inferer import WindowInferer
from training.bundle.weights import WeightsLoader
from training.evaluation.outcome import Outcome
from training.evaluation.run import EvaluationOptions, evaluate_cases
from training.evaluation.summary import headline
from training.evaluation.tolerances import Tolerances

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BundleEvaluator:
    """Judges weights on a dataset; the processes of torchrun share its cases.

    Parameters
    ----------
    dataset
        Scans with labels.
    weights
        What to judge.
    inferer
        How windows cover a scan.
    device, amp
        As ``bundle_segmenter``.
    output_dir
        Of the tables and the page.
    tolerance_mm
        Of the surface Dice.
    """

    dataset: Listed
    weights: WeightsLoader
    inferer: WindowInferer
    device: torch.device | str
    output_dir: str
    amp: bool = True
    tolerance_mm: float = 3.0

    def run(self) -> Outcome | None:
        """Segment and measure every case, then write tables and page.

        Returns
        -------
        Outcome or None
            None if other processes have yet to finish, which then write the report.

        Raises
        ------
        ModelError
            If the weights cannot be used.
        InferenceError
            After the report is written: the first reason for which a case failed.
        """
        segmenter = bundle_segmenter(self.weights, self.inferer, self.device, self.amp)
        outcome = evaluate_cases(
            segmenter,
            scan_pairs(self.dataset),
            Path(self.output_dir),
            int(os.environ.get("RANK", "0")),
            int(os.environ.get("WORLD_SIZE", "1")),
            EvaluationOptions(Tolerances(self.tolerance_mm), _log.info),
        )
        if outcome is None:
            return None
        _log.info("%s", headline(outcome.cases))
        if outcome.failures:
            first = outcome.failures[0]
            raise InferenceError(
                first.reason,
                f"{len(outcome.failures)} of {len(self.dataset.data)} cases failed, "
                f"the first: {first.name}: {first.detail}",
            )
        return outcome
