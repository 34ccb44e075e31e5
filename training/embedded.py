"""The small model that comes with the package, made from synthetic patients alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference.manifest import ModelManifest
from inference.model_store import ModelStore
from inference.network import NetworkSpec
from inference.preprocessing import IntensitySpec, Scaling
from training.case import CaseRecipe
from training.export import ModelDetails, export_model
from training.plan import Plan
from training.synthetic_cases import make_cases
from training.trainer import TrainingRun, run_training

MODEL_NAME = "synthetic-3mm"
#: Patients of the training set; evaluation takes seeds from elsewhere.
TRAINING_SEEDS = range(1000, 1100)
INTENDED_USE = "Demonstration on synthetic data only; not for patients."

#: Soft tissue fills a good part of -1..1; lung and air, and dense bone, keep apart.
RECIPE = CaseRecipe(
    spacing_mm=3.0,
    intensity=IntensitySpec(clamp_hu=(-512, 1024), scaling=Scaling.CLAMP_RANGE),
)
NETWORK = NetworkSpec(
    init_filters=16, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1), dropout_prob=0.0
)


@dataclass(frozen=True, slots=True)
class EmbeddedRun:
    """One training of the embedded model."""

    seed: int
    folder: Path  #: cases, checkpoint and the finished model
    cases: range = TRAINING_SEEDS
    steps: int = 2800
    workers: int = 2
    recipe: CaseRecipe = RECIPE
    network: NetworkSpec = NETWORK
    window: int = 96  #: as inference's
    early_window: int = 64

    @property
    def plan(self) -> Plan:
        """Small windows first, then those of inference."""
        return Plan(
            steps=self.steps,
            window=self.window,
            early_window=self.early_window,
            early_share=0.7,
        )

    @property
    def command(self) -> str:
        """What to type for this run."""
        return f"python -m training embedded --seed {self.seed} --steps {self.steps} --out DIR"


def run_embedded(run: EmbeddedRun, log: Callable[[str], None] = print) -> ModelManifest:
    """Make the cases, train, and store the model in ``run.folder/models``.

    A run that was stopped goes on from its checkpoint.

    Returns
    -------
    ModelManifest
        Of the stored model.
    """
    cases = make_cases(run.cases, run.recipe, run.folder / "cases", run.workers)
    training = TrainingRun(
        cases=tuple(cases),
        validation=(),
        recipe=run.recipe,
        network=run.network,
        plan=run.plan,
        folder=run.folder,
        seed=run.seed,
        device="cpu",
        resume=True,
    )
    result = run_training(training, log)
    details = ModelDetails(
        name=MODEL_NAME,
        source="trained by this project on its synthetic patients",
        licence="Apache-2.0; no patient data",
        intended_use=INTENDED_USE,
        demonstration=True,
        data=f"synthetic patients {run.cases.start} to {run.cases.stop - 1}",
        remarks=(("command", run.command),),
    )
    return export_model(result.checkpoint, details, ModelStore(run.folder / "models"), replace=True)
