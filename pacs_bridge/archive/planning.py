"""What one call of ``archive plan`` does, from its inputs to a plan that is up to date."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from dicom_seg.read.examination import SeriesRules
from inference.reasons import Reason
from pacs_bridge.archive.hidden_patient import run_key
from pacs_bridge.archive.manifest import Manifest, UnusableListError, read_manifest
from pacs_bridge.archive.plan_file import PlanFile
from pacs_bridge.archive.planner import Planner, PlanProgress, PlanTally
from pacs_bridge.archive.pool import header_readers
from pacs_bridge.archive.reading import UNREAD_NS
from pacs_bridge.archive.remote_plan import RemotePlan
from pacs_bridge.archive.selection import note_listed, select
from pacs_bridge.errors import PermanentError
from pacs_bridge.identity_hash import KEY_NAME, IdentityHash
from pacs_bridge.sources.remote_archive import RemoteArchive, SeriesQuery

_IS_COMPLETE: Final = "is_complete"
_KEY_MARK: Final = "key_mark"
_MIN_SLICES: Final = "min_slices"  #: that was asked for, whatever a configuration says


@dataclass(frozen=True, slots=True)
class RemoteInput:
    """Series of an archive."""

    name: str  #: of the source in the configuration
    archive: RemoteArchive
    query: SeriesQuery


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What is to be planned; nothing: what was planned before, brought up to date."""

    paths: tuple[Path, ...] = ()
    manifest: Path | None = None
    remote: RemoteInput | None = None
    processes: int | None = None
    #: Takes the place of that of the rules, now and in later calls; None: as it was.
    min_slices: int | None = None


def make_plan(
    run_folder: Path,
    inputs: PlanInputs,
    rules: SeriesRules | None,
    progress: PlanProgress,
    check: Callable[[], None] = lambda: None,
) -> PlanTally:
    """Make a plan in the folder of a run, or bring it up to date.

    Parameters
    ----------
    run_folder
        Of the run.
    inputs
        What is to be planned.
    rules
        Of the site; None: those that the plan was made with.
    progress
        Told how far it is.
    check
        Called again and again, at least every second while an archive is waited for: what it
        raises ends the planning, and the next call goes on.

    Raises
    ------
    TransientError
        If the plan cannot be written, or the archive cannot be asked, now.
    PermanentError
        ``source-missing`` if there is nothing to plan or a path is not there,
        ``unreadable-file`` for the list, and what the archive refuses.
    UnusableListError
        If the list does not say what it selects, or says it by paths alone for an archive.
    WrongFolderError
        If what is to be planned is the folder of the run or of its results, or lies in one.
    """
    manifest = _manifest(inputs)
    with PlanFile(run_folder, must_exist=False) as plan:
        roots = _roots(plan, inputs.paths, manifest.paths if manifest else ())
        if not (roots or manifest or inputs.remote):
            raise PermanentError(Reason.SOURCE_MISSING, "nothing to plan: name a folder")
        for folder in (run_folder, *results_of(plan)):
            if is_within(roots, folder):
                raise WrongFolderError(
                    "the folder of the run, or that of its results, is to be planned"
                )
        hide = _identity_hash(plan, run_folder)
        plan.set("roots", [os.fsdecode(root) for root in roots])
        plan.set(_IS_COMPLETE, False)
        rules = _rules(plan, rules, inputs.min_slices)
        _follow_rules(plan, rules)
        listed = manifest.series if manifest else {}
        if manifest is not None:
            note_listed(plan, listed, [_plain(path) for path in manifest.paths])
        tally = PlanTally()
        remote_count = 0
        if (remote := inputs.remote) is not None:
            there = RemotePlan(plan, remote.name, remote.archive, rules, hide, check)
            query = remote.query
            remote_count = there.listed(listed, query) if manifest else there.found(query)
        if roots:
            told = _checking(progress, check)
            key = (run_folder / KEY_NAME).read_bytes()
            with header_readers(inputs.processes) as executor:
                planner = Planner(plan, rules, key, executor, told)
                planner.take_in(roots, (run_folder, *results_of(plan)))
            tally = planner.tally
        tally.series_examined += remote_count
        if manifest is not None:
            tally.unread_lines = len(manifest.problems)
        select(plan)
        plan.set(_IS_COMPLETE, True)
        return tally


def _manifest(inputs: PlanInputs) -> Manifest | None:
    if inputs.manifest is None:
        return None
    manifest = read_manifest(inputs.manifest)
    manifest.check()
    if inputs.remote is not None and not manifest.series:
        raise UnusableListError(
            "it names no series by its UID, and a source knows them by nothing else: plan what"
            " lies in folders without the source"
        )
    return manifest


def _checking(progress: PlanProgress, check: Callable[[], None]) -> PlanProgress:
    def told(met: int, read: int, examined: int) -> None:
        check()
        progress(met, read, examined)

    return told


class PlanEndedError(Exception):
    """Told to end before the plan was complete."""


class WrongFolderError(Exception):
    """A folder that is to be read and to be written at once."""


def is_complete(plan: PlanFile) -> bool:
    """Whether ``make_plan`` came to its end, each time that it was called."""
    return plan.setting(_IS_COMPLETE) is True


def check_complete(plan: PlanFile) -> None:
    """Look whether a plan can be run.

    Raises
    ------
    PermanentError
        ``source-missing`` if it was ended before it was complete.
    """
    if not is_complete(plan):
        raise PermanentError(
            Reason.SOURCE_MISSING, "the plan was ended before it was complete: plan again"
        )


def is_within(roots: Sequence[Path], folder: Path) -> bool:
    """Whether a folder that is planned is another one, or lies in it."""
    real = folder.resolve()
    return any(root.resolve().is_relative_to(real) for root in roots)


def roots_of(plan: PlanFile) -> tuple[Path, ...]:
    """Where files were looked for."""
    return tuple(Path(text) for text in plan.setting("roots") or ())


def rules_of(plan: PlanFile) -> SeriesRules:
    """The rules that a plan was made with."""
    return SeriesRules(**(plan.setting("rules") or {}))


def note_results(plan: PlanFile, folder: Path) -> None:
    """Note where results of a run lie: they are no part of the archive."""
    known = [*results_of(plan), folder.absolute()]
    plan.set("results", [str(each) for each in dict.fromkeys(known)])


def results_of(plan: PlanFile) -> tuple[Path, ...]:
    """Where results of its runs were put."""
    return tuple(Path(text) for text in plan.setting("results") or ())


def _rules(plan: PlanFile, given: SeriesRules | None, min_slices: int | None) -> SeriesRules:
    """What holds from now on: what is not given stays as it was."""
    rules = given or rules_of(plan)
    if min_slices is None:
        min_slices = plan.setting(_MIN_SLICES)
    if min_slices is None:
        return rules
    plan.set(_MIN_SLICES, min_slices)
    return replace(rules, min_slices=min_slices)


def _follow_rules(plan: PlanFile, rules: SeriesRules) -> None:
    """With other rules than last time every series is examined anew."""
    known: dict[str, Any] = plan.setting("rules") or {}
    now = asdict(rules)
    if known == now:
        return
    with plan.write() as connection:
        if any(known.get(name) != now[name] for name in ("max_matrix", "max_voxels")):
            # a header was read by them; what cannot be met now keeps what is known of it
            connection.execute("UPDATE files SET modified_ns = ?", (UNREAD_NS,))
            connection.execute("UPDATE folders SET size = -1 WHERE is_zip")
        connection.execute("INSERT OR IGNORE INTO unexamined SELECT DISTINCT series FROM parts")
    plan.set("rules", now)


def _roots(plan: PlanFile, given: Sequence[Path], listed: Sequence[Path]) -> list[Path]:
    """Where files are looked for: here and now, and in earlier calls.

    A path of a list that is not there is met as a folder that cannot be looked into.
    """
    for number, path in enumerate(given, 1):
        if not path.exists():
            raise PermanentError(Reason.SOURCE_MISSING, f"input {number} is not there")
    roots = list(dict.fromkeys([*roots_of(plan), *(_plain(path) for path in given)]))
    walked = set(roots)
    for path in map(_plain, listed):
        # what lies in a tree that is walked anyway is met there
        if not (path.exists() and (path in walked or any(up in walked for up in path.parents))):
            roots.append(path)
            walked.add(path)
    return list(dict.fromkeys(roots))


def _plain(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - without "..", and links as they are


def _identity_hash(plan: PlanFile, run_folder: Path) -> IdentityHash:
    """With the key of the run: with another one nobody in the plan would be recognised."""
    known = plan.setting(_KEY_MARK)
    hide = IdentityHash.load(run_folder) if known is None else IdentityHash(run_key(run_folder))
    mark = hide.word(KEY_NAME)
    if known not in (None, mark):
        raise PermanentError(
            Reason.SOURCE_MISSING,
            f"{KEY_NAME} is not the one that the plan was made with: put that one back, or plan"
            " in another folder",
        )
    plan.set(_KEY_MARK, mark)
    return hide
