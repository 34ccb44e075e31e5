"""All cases of a raw dataset, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from inference.durable import DRAFTS
from inference.reasons import Reason
from training.file_lock import alone
from training.prepare.ledger import OutcomeLedger
from training.prepare.outcome import Outcome, Remark, Rules
from training.prepare.raw_case import prepare_case
from training.prepare.raw_dataset import RawCase, is_case_name, read_raw_dataset
from training.prepare.report import write_report
from training.process_pool import process_pool

#: Told each outcome, how many are done, and how many there are.
Progress = Callable[[Outcome, int, int], None]


@dataclass(frozen=True, slots=True)
class Preparation:
    """What to prepare, and where."""

    raw: Path
    out: Path
    workers: int = 1
    rules: Rules = field(default_factory=Rules)


def prepare_dataset(preparation: Preparation, progress: Progress) -> tuple[Outcome, ...]:
    """Prepare every case, and write the report.

    What an earlier run made of files that have not changed is kept. A bad case never stops
    the rest, not even one that ends the process that looks at it.

    Returns
    -------
    tuple
        An outcome for every case of the dataset.

    Raises
    ------
    DatasetError
        ``no-cases``, or ``no-split`` if ``meta.csv`` is no table.
    OSError
        If the dataset cannot be written.
    """
    dataset = read_raw_dataset(preparation.raw)
    preparation.out.mkdir(parents=True, exist_ok=True)
    ledger = OutcomeLedger(preparation.out, preparation.rules)
    with alone(ledger.lock):
        for draft in preparation.out.glob(f"*/{DRAFTS}"):
            draft.unlink()
        for outcome in dataset.left_out:
            if is_case_name(outcome.case):
                ledger.forget(outcome.case)
        outcomes: list[Outcome] = []
        missing = []
        total = len(dataset.cases) + len(dataset.left_out)

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            progress(outcome, len(outcomes), total)

        for outcome in dataset.left_out:
            done(outcome)
        for case in dataset.cases:
            known = ledger.find(case)
            if known is None:
                missing.append(case)
            else:
                done(known)
        for outcome in _prepared(missing, preparation):
            done(outcome)
        write_report(outcomes, preparation.out)
    return tuple(outcomes)


def _prepared(cases: Sequence[RawCase], preparation: Preparation) -> Iterator[Outcome]:
    if preparation.workers == 1:
        for case in cases:
            yield _attempt(case, preparation)
        return
    waiting = list(reversed(cases))
    while waiting:
        under_way: dict[Future[Outcome], RawCase] = {}
        try:
            yield from _pooled(waiting, under_way, preparation)
        except BrokenProcessPool:
            yield from _one_by_one(list(under_way.values()), preparation)  # one of them did it


def _pooled(
    waiting: list[RawCase], under_way: dict[Future[Outcome], RawCase], preparation: Preparation
) -> Iterator[Outcome]:
    """Take cases from the end of ``waiting``; ``under_way`` holds those not answered yet."""
    with process_pool(min(preparation.workers, len(waiting))) as pool:
        while waiting or under_way:
            while waiting and len(under_way) < 2 * preparation.workers:
                case = waiting[-1]
                under_way[pool.submit(_attempt, case, preparation)] = case
                waiting.pop()
            for job in wait(under_way, return_when=FIRST_COMPLETED).done:
                outcome = job.result()
                del under_way[job]
                yield outcome


def _one_by_one(cases: list[RawCase], preparation: Preparation) -> Iterator[Outcome]:
    while cases:
        with process_pool(1) as pool:
            try:
                while cases:
                    yield pool.submit(_attempt, cases[0], preparation).result()
                    cases.pop(0)
            except BrokenProcessPool:
                detail = "the process that looked at it ended"
                yield _failed(cases.pop(0), Reason.INTERNAL_ERROR, detail)


def _attempt(case: RawCase, preparation: Preparation) -> Outcome:
    """Prepare a case and remember what became of it."""
    ledger = OutcomeLedger(preparation.out, preparation.rules)
    ledger.forget(case.name)
    source = ledger.source(case)
    try:
        outcome = prepare_case(case, preparation.out, preparation.rules)
    except MemoryError:
        return _failed(case, Reason.OOM_CPU, "not enough memory for this case")
    ledger.keep(case, source, outcome)
    return outcome


def _failed(case: RawCase, reason: Reason, detail: str) -> Outcome:
    return Outcome(case.name, case.split, (*case.remarks, Remark(reason, True, "", detail)))
