"""A training run from cases to checkpoints; one process or many, the same call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.network import NetworkSpec, build_network
from inference.reasons import Reason
from inference.windows import Precision, WindowSpec
from training.augmentation.settings import NO_AUGMENTATION, Augmentation
from training.case import Case, CaseRecipe
from training.checkpoint import read_checkpoint, save_checkpoint
from training.errors import TrainingError
from training.feed import feed
from training.history import History, ValidationRow
from training.journal import Journal
from training.patches import PatchSource
from training.plan import Plan
from training.process_group import Ranks, joined, pick_device
from training.record import RunRecord, case_name, data_digest
from training.state import TrainingState
from training.update import Arithmetic, update
from training.validation import Validation

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Everything that a training run is given.

    ``folder``, ``device``, ``workers`` and ``resume`` do not decide the weights, but for
    rounding; all the rest does.
    """

    cases: tuple[Case, ...]  #: trained on
    validation: tuple[Case, ...]  #: judged on; may be empty
    recipe: CaseRecipe  #: that the cases were made by
    network: NetworkSpec
    plan: Plan
    folder: Path  #: checkpoints, curves, pictures
    augmentation: Augmentation = NO_AUGMENTATION
    seed: int = 1
    precision: Precision = Precision.BF16
    device: str = "auto"
    workers: int = 0  #: processes that draw windows ahead, for each training process
    resume: bool = False  #: go on from the checkpoint in ``folder``, if there is one

    def record(self) -> RunRecord:
        """What the checkpoints say of the run; reads all cases."""
        return RunRecord(
            recipe=self.recipe,
            network=self.network,
            plan=self.plan,
            augmentation=self.augmentation,
            seed=self.seed,
            precision=self.precision,
            training=tuple(map(case_name, self.cases)),
            validation=tuple(map(case_name, self.validation)),
            data=data_digest((*self.cases, *self.validation)),
        )


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run left behind."""

    checkpoint: Path  #: at the end of the plan
    best: Path | None  #: of the best validation; None without validation
    losses: tuple[float, ...]  #: of all steps, of the finest level
    validation: ValidationRow | None  #: the best one


def run_training(run: TrainingRun, log: Log = print) -> TrainingResult:
    """Train to the end of the plan.

    Started by torchrun, each of its processes calls this with the same run: windows of a
    step are shared, gradients added up, and the first process writes the files. The same
    run gives the same weights on any number of processes, to rounding. A run that was
    killed and goes on with ``resume`` gives those of one that was not.

    Parameters
    ----------
    run
        What to train on what.
    log
        Takes one line of JSON every 20 steps and for each validation.

    Raises
    ------
    TrainingError
        ``training-diverged``, the last checkpoint is kept; ``checkpoint`` if ``folder``
        holds one of another run, or one at all without ``resume``; ``training-preset`` if
        the batch is smaller than the number of processes.
    """
    device = pick_device(run.device)
    with joined(device) as ranks:
        if run.plan.batch < ranks.size:
            raise TrainingError(
                Reason.TRAINING_PRESET, f"batch {run.plan.batch} for {ranks.size} processes"
            )
        if not run.cases:
            raise TrainingError(Reason.NO_CASES, "none to train on")
        record = run.record()
        state = _begin(run, record, device)
        ranks.wait()  # nobody writes before all have read
        _train(state, run, record, ranks, log if ranks.first else _say_nothing)
        ranks.wait()
        best = run.folder / BEST
        losses = History(run.folder).losses()
        return TrainingResult(
            run.folder / CHECKPOINT,
            None if state.best is None else best,
            tuple(losses),
            state.best,
        )


def _begin(run: TrainingRun, record: RunRecord, device: torch.device) -> TrainingState:
    torch.manual_seed(run.seed)
    state = TrainingState.start(build_network(run.network), run.plan, device)
    path = run.folder / CHECKPOINT
    if path.exists():
        if not run.resume:
            raise TrainingError(Reason.CHECKPOINT, f"{path} is there already")
        read_checkpoint(path).restore(state, record)
    return state


def _train(
    state: TrainingState, run: TrainingRun, record: RunRecord, ranks: Ranks, log: Log
) -> None:
    plan = run.plan
    how = Arithmetic(run.precision, ranks, run.seed)
    windows = WindowSpec(plan.window, precision=run.precision, channels_last=True)
    validation = Validation(run.validation, run.recipe.spacing_mm, windows)
    source = PatchSource(run.cases, run.seed, plan, run.augmentation)
    journal = Journal.open(run.folder, state.step, log) if ranks.first else None
    state.network.train()
    try:
        for patches in feed(source.draw, plan, state.step, ranks, run.workers):
            result = update(state, patches, plan, how)
            state.step += 1
            last = state.step == plan.steps
            if journal is not None:
                journal.step(state.step, result, patches[0])
            if run.validation and (last or state.step % plan.validation_steps == 0):
                better = _validate(state, validation, ranks, journal)
                if better and journal is not None:
                    save_checkpoint(state, record, run.folder / BEST)
            if journal is not None and (last or state.step % plan.checkpoint_steps == 0):
                save_checkpoint(state, record, run.folder / CHECKPOINT)
    finally:
        if journal is not None:
            journal.close()


def _validate(
    state: TrainingState,
    validation: Validation,
    ranks: Ranks,
    journal: Journal | None,
) -> bool:
    """Whether no earlier validation was better."""
    look = journal.look(state.step) if journal is not None else None
    row = validation.run(state.average, state.step, ranks, look)
    better = state.best is None or row.score >= state.best.score
    state.judged = row
    if better:
        state.best = row
    if journal is not None:
        journal.validation(row)
    return better


def _say_nothing(_line: str) -> None:
    """The other processes are silent."""
