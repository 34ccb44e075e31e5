"""Scans in, label files out: what ``configs/inference.json`` runs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.errors import InferenceError
from inference.nifti import read_nifti
from inference.reasons import Reason
from inference.segmenter import SegmenterOptions, SegResNetSegmenter
from inference.windows import Precision
from training.bundle.cases import Listed
from training.bundle.inferer import WindowInferer
from training.bundle.postprocessing import LabelWriter
from training.bundle.weights import WeightsLoader
from training.dataset import DatasetError

_log = logging.getLogger(__name__)


def bundle_segmenter(
    weights: WeightsLoader, inferer: WindowInferer, device: torch.device | str, amp: bool
) -> SegResNetSegmenter:
    """The clinic's segmenter as a config describes it.

    Parameters
    ----------
    weights
        Loaded here; their preprocessing may ask for another intensity than the model's own.
    inferer
        Window and overlap.
    device
        That does the work.
    amp
        Lower precision on CUDA; a CPU works in single precision, as published.
    """
    name = str(device)
    precision = Precision.BF16 if amp and name.startswith("cuda") else Precision.FP32
    options = SegmenterOptions(
        name, inferer.windows(precision), weights.preprocessing.chosen_intensity
    )
    return SegResNetSegmenter(weights.load(), options)


@dataclass(frozen=True, slots=True)
class SegmentationRun:
    """Segments every scan of a dataset; one that fails does not stop the rest.

    Parameters
    ----------
    dataset
        Items with the path of a NIfTI file.
    weights
        What to run.
    inferer
        How windows cover a scan.
    postprocessing
        Where labels go.
    device, amp
        As ``bundle_segmenter``.
    """

    dataset: Listed
    weights: WeightsLoader
    inferer: WindowInferer
    postprocessing: LabelWriter
    device: torch.device | str
    amp: bool = True

    def run(self) -> tuple[Path, ...]:
        """Segment; the files that were written, in the order of the dataset.

        Raises
        ------
        DatasetError
            ``no-cases`` if there is no scan, ``duplicate-case`` if two would be written to
            one file.
        ModelError
            If the weights cannot be used.
        InferenceError
            After the last scan: the first reason for which one failed, and how many did.
        """
        scans = [Path(item[self.postprocessing.image_key]) for item in self.dataset.data]
        self._check(scans)
        segmenter = bundle_segmenter(self.weights, self.inferer, self.device, self.amp)
        written, failures = [], []
        for number, scan in enumerate(scans, start=1):
            try:
                path = self.postprocessing.write(segmenter.segment(read_nifti(scan)), scan)
            except InferenceError as error:
                _log.error("%d of %d: %s: %s", number, len(scans), scan, error)
                failures.append(error)
            else:
                _log.info("%d of %d: %s", number, len(scans), path)
                written.append(path)
        if failures:
            first = failures[0]
            count = f"{len(failures)} of {len(scans)} scans failed"
            raise InferenceError(first.reason, f"{count}, the first: {first.detail}")
        return tuple(written)

    def _check(self, scans: Sequence[Path]) -> None:
        if not scans:
            raise DatasetError(
                Reason.NO_CASES, "no scan: no *.nii.gz in imagesTs of dataset_dir, empty datalist"
            )
        targets = Counter(self.postprocessing.path_of(scan) for scan in scans)
        twice = [path for path, count in targets.items() if count > 1]
        if twice:
            raise DatasetError(
                Reason.DUPLICATE_CASE, f"several scans would be written to {twice[0]}"
            )
