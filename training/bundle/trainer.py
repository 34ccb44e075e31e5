"""What ``configs/train.json`` runs: one training, then weights where inference looks."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.model_import import INTENDED_USE, published_manifest
from inference.model_store import ModelStore
from inference.windows import Precision
from training.bundle.cases import Listed, scan_pairs
from training.bundle.preprocessing import ToNetwork
from training.bundle.weights import manifest_path, spec_of
from training.case import CaseRecipe
from training.case_cache import cache_pairs
from training.export import ModelDetails, export_model
from training.preset import Preset
from training.trainer import TrainingResult, TrainingRun, run_training

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BundleTrainer:
    """A training as the bundle describes it.

    Parameters
    ----------
    recipe
        The preset; what follows replaces single values of it, and None none.
    dataset, validation
        What is trained on and what judges.
    preprocessing
        Spacing and intensity.
    network
        A SegResNet; its widths and depths are taken, not its weights.
    device
        Of this process.
    folder
        Of checkpoints, curves and cached cases.
    weights
        The file that inference will read.
    max_epochs
        How often each case is drawn from, on average.
    val_interval
        Epochs between validations.
    batch_size
        Windows a step, of all processes together.
    learning_rate
        The highest.
    amp
        False: single precision.
    workers
        Processes that preprocess and draw windows, for each training process.
    resume
        Go on from the checkpoint in ``folder``.
    """

    recipe: Preset
    dataset: Listed
    validation: Listed
    preprocessing: ToNetwork
    network: torch.nn.Module
    device: torch.device | str
    folder: str
    weights: str
    max_epochs: int | None = None
    val_interval: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    amp: bool = True
    workers: int = 0
    resume: bool = False

    def run(self) -> Path:
        """Train, then write the weights of the best validation, or the last ones.

        Returns
        -------
        Path
            The weights, a plain state dict; its manifest lies beside it.

        Raises
        ------
        DatasetError
            If a scan or its labels cannot be used.
        TrainingError
            As ``run_training``.
        """
        recipe = self._case_recipe()
        cache = Path(self.folder) / "cases"
        cases, validation = (
            tuple(cache_pairs(scan_pairs(part), recipe, cache, max(self.workers, 1), _log.info))
            for part in (self.dataset, self.validation)
        )
        plan = dataclasses.replace(self.recipe.plan, **self._plan_changes(len(cases)))
        run = TrainingRun(
            cases=cases,
            validation=validation,
            recipe=recipe,
            network=spec_of(self.network),
            plan=plan,
            folder=Path(self.folder),
            augmentation=self.recipe.augmentation,
            seed=self.recipe.seed,
            precision=self.recipe.precision if self.amp else Precision.FP32,
            device=str(self.device),
            workers=self.workers,
            resume=self.resume,
        )
        result = run_training(run, _log.info)
        weights = Path(self.weights)
        if os.environ.get("RANK", "0") == "0":
            publish(result, weights, f"{len(cases)} cases of the bundle's dataset")
        return weights

    def _case_recipe(self) -> CaseRecipe:
        chosen = self.preprocessing.chosen_intensity or self.recipe.case.intensity
        return CaseRecipe(self.preprocessing.spacing_mm, chosen)

    def _plan_changes(self, cases: int) -> Mapping[str, Any]:
        """Epochs as steps: in an epoch as many windows are drawn as there are cases."""
        batch = self.batch_size or self.recipe.plan.batch
        epoch = math.ceil(cases / batch)
        changes = {
            "batch": self.batch_size,
            "learning_rate": self.learning_rate,
            "steps": self.max_epochs and self.max_epochs * epoch,
            "validation_steps": self.val_interval and self.val_interval * epoch,
        }
        return {name: value for name, value in changes.items() if value is not None}


def publish(result: TrainingResult, weights: Path, data: str) -> None:
    """Write the averaged weights as the published bundle keeps its own.

    Weights of the published bundle that lie there are kept beside under another name.

    Parameters
    ----------
    result
        Of a training.
    weights
        The file to write.
    data
        What was trained on, for the manifest.
    """
    weights.parent.mkdir(parents=True, exist_ok=True)
    if weights.exists() and published_manifest(weights) is not None:
        kept = weights.with_name(f"{weights.stem}.published{weights.suffix}")
        weights.replace(kept)
        _log.warning("%s were the published weights: now %s", weights, kept)
    details = ModelDetails(
        name="bundle",
        source="trained by configs/train.json",
        licence="that of the data",
        intended_use=INTENDED_USE,
        data=data,
    )
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=weights.parent) as folder:
        store = ModelStore(Path(folder))
        export_model(result.best or result.checkpoint, details, store)
        model = store.load("bundle")
        draft = Path(folder) / weights.name
        torch.save(dict(model.state_dict), draft)
        digest = hashlib.sha256(draft.read_bytes()).hexdigest()
        manifest = dataclasses.replace(model.manifest, weights_sha256=digest)
        manifest_draft = manifest_path(draft)
        manifest_draft.write_text(manifest.to_json(), encoding="utf-8")
        manifest_draft.replace(manifest_path(weights))
        draft.replace(weights)
    _log.info("weights %s, sha256 %s", weights, digest)
