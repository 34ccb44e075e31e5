"""From files in any order to the stacks of one series, or the reason why there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydicom import Dataset

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.provenance import derived_uid, instance_digest
from dicom_seg.read.examination import (
    LeftOut,
    Outcome,
    SeriesExamination,
    SeriesIdentity,
    SeriesRules,
    SeriesTriage,
    StackPlan,
    file_numbers,
)
from dicom_seg.read.header import quiet_pydicom, read_header
from dicom_seg.read.instance import PERSON, Instance, read_instance
from dicom_seg.read.slice_table import SliceRow, SliceTable
from dicom_seg.read.stacking import Stacking, stack_planes
from dicom_seg.read.stacks import Stack
from dicom_seg.source_attributes import value_findings
from inference.errors import InvalidGeometryError
from inference.finding import Finding
from inference.reasons import Reason, describe

__all__ = [
    "LeftOut",
    "Outcome",
    "SeriesExamination",
    "SeriesIdentity",
    "SeriesRules",
    "StackPlan",
    "examine_series",
    "outcome_of",
    "triage_series",
]

_DEFAULT_RULES: Final = SeriesRules()
#: Reasons for which an instance or frame stays behind and the rest of its series goes on.
_NO_FAULT: Final = frozenset(
    {Reason.NO_DICOM, Reason.NOT_CT, Reason.LOCALIZER, Reason.DERIVED, Reason.OWN_RESULT}
)
_SHOWN: Final = 8


def outcome_of(reason: Reason) -> Outcome:
    """What becomes of a series that is not processed for this reason."""
    outcome = describe(reason).outcome
    if outcome == "skipped":
        return Outcome.SKIP
    return Outcome.QUARANTINE if outcome == "quarantined" else Outcome.REFUSE


def examine_series(paths: Sequence[Path], rules: SeriesRules = _DEFAULT_RULES) -> SeriesExamination:
    """Read the headers of ``paths`` and decide what becomes of the series.

    One series is expected. Objects about images, such as Segmentations, reports or a media
    directory, and files that are not DICOM may lie beside it; they are listed as left out.

    Parameters
    ----------
    paths
        Files in the order of their arrival, which matters in one case only: of two instances
        with one SOP Instance UID the first is kept.
    rules
        Limits of the site.

    Returns
    -------
    SeriesExamination
        Bad input is an outcome, not an exception. Every file is in a stack or left out. Texts
        name an instance by its UID, and a file that has none by its number in ``paths``.
    """
    numbers = file_numbers(paths)
    with quiet_pydicom():
        found = [read_instance(path, rules) for path in numbers]
        instances = [entry for entry in found if isinstance(entry, Instance)]
        files = [entry for entry in found if isinstance(entry, LeftOut)]
        try:
            return _Series(instances, files, numbers).examine(rules)
        except SeriesRefusedError as error:
            return _not_processed(error, instances, files)


def triage_series(
    instances: Sequence[Instance],
    rules: SeriesRules = _DEFAULT_RULES,
    repeated: Sequence[Instance] = (),
) -> SeriesTriage:
    """Say what `examine_series` would, of headers that `read_instance` gave before.

    Files are opened only where two of them claim one instance, or two planes one position and
    nothing in their headers tells them apart.

    Parameters
    ----------
    instances
        Of one series by their Series Instance UID, in the order of their arrival.
    rules
        Limits of the site, as they were when the headers were read.
    repeated
        Further instances with SOP Instance UIDs of those above. They are not used, and say whose
        the series is like all others.
    """
    numbers = file_numbers(instance.path for instance in instances)
    with quiet_pydicom():
        try:
            stacked = _Series(instances, [], numbers, repeated).stacked(rules)
            for stack in stacked.stacking.stacks:
                _table(stack, stacked.identity)
        except SeriesRefusedError as error:
            refused = _not_processed(error, instances, [])
            return SeriesTriage(
                refused.outcome, refused.reason, refused.detail, 0, 0, (), refused.left_out
            )
    stacking = stacked.stacking
    return SeriesTriage(
        outcome=Outcome.PROCESS,
        reason=None,
        detail="",
        stack_count=len(stacking.stacks),
        plane_count=sum(len(stack.planes) for stack in stacking.stacks),
        findings=tuple(
            dict.fromkeys((*stacked.differing, *(f for each in stacking.findings for f in each)))
        ),
        left_out=stacked.left_out,
    )


@dataclass(frozen=True, slots=True)
class _StackedSeries:
    """A series whose planes make stacks."""

    identity: SeriesIdentity
    differing: tuple[Finding, ...]  #: instances tell the identity differently
    stacking: Stacking
    left_out: tuple[LeftOut, ...]


class _Series:
    """The files of what should be one series, on their way to an outcome."""

    def __init__(
        self,
        instances: Sequence[Instance],
        files: Sequence[LeftOut],
        numbers: Mapping[Path, int],
        repeated: Sequence[Instance] = (),
    ) -> None:
        self._numbers = numbers
        self._companions = [instance for instance in instances if instance.companion]
        self._images = [instance for instance in instances if not instance.companion]
        #: all that say whose the series is
        self._witnesses = [*self._images, *(each for each in repeated if not each.companion)]
        self._left_out = [*files, *(left for one in self._companions for left in one.left_out)]

    def examine(self, rules: SeriesRules) -> SeriesExamination:
        """The outcome, unless the series is not processed. Raises as `stacked`."""
        stacked = self.stacked(rules)
        stacking, identity = stacked.stacking, stacked.identity
        plans = tuple(
            _plan(stack, identity, (*stacked.differing, *findings))
            for stack, findings in zip(stacking.stacks, stacking.findings, strict=True)
        )
        return SeriesExamination(
            Outcome.PROCESS,
            None,
            f"{len(plans)} stack{'s' if len(plans) > 1 else ''} of"
            f" {', '.join(str(len(plan.table.rows)) for plan in plans)} planes",
            identity,
            plans,
            stacked.left_out,
        )

    def stacked(self, rules: SeriesRules) -> _StackedSeries:
        """The stacks of the series.

        Raises
        ------
        SeriesRefusedError
            With the reason for which the series is not processed.
        """
        self._check_identities()
        self._check_faults(self._left_out)
        identity, differing = self._one_series()
        images, repeated = _without_repeated(self._images, self._numbers)
        left_out = [left for image in images for left in image.left_out]
        self._check_faults(left_out)
        planes = [plane for image in images for plane in image.planes]
        if not planes:
            raise self._most_common(left_out)
        stacking = stack_planes(planes, rules)
        return _StackedSeries(
            identity,
            tuple(differing),
            stacking,
            (*self._left_out, *repeated, *left_out, *stacking.left_out),
        )

    def _check_identities(self) -> None:
        """Quarantine what does not say whose it is: nothing is made up (PS3.3 C.7)."""
        for image in self._witnesses:
            if image.missing:
                where = self._name(image.path, image.sop_instance_uid)
                raise SeriesRefusedError(
                    Reason.MISSING_IDENTITY, f"{image.missing} is empty or no UID in {where}"
                )

    def _check_faults(self, left_out: Sequence[LeftOut]) -> None:
        faults = sorted(
            (left for left in left_out if left.reason not in _NO_FAULT),
            key=lambda left: (left.reason, left.sop_instance_uid, left.path),
        )
        if faults:
            more = f"; {len(faults)} files are at fault" if len(faults) > 1 else ""
            raise SeriesRefusedError(faults[0].reason, self._told(faults[0]) + more)

    def _most_common(self, left_out: Sequence[LeftOut]) -> SeriesRefusedError:
        """The reason for which most instances or frames are left out."""
        order = list(Reason)
        counts = Counter(left.reason for left in left_out)
        reason = min(counts, key=lambda one: (-counts[one], order.index(one)))
        first = next(left for left in left_out if left.reason is reason)
        return SeriesRefusedError(
            reason, f"{counts[reason]} of {len(left_out)}: {self._told(first)}"
        )

    def _told(self, left: LeftOut) -> str:
        """What is wrong, and with which instance or file."""
        if left.sop_instance_uid and left.sop_instance_uid in left.detail:
            return left.detail
        return f"{self._name(left.path, left.sop_instance_uid)}: {left.detail}"

    def _name(self, path: Path, sop_instance_uid: str) -> str:
        return f"instance {sop_instance_uid}" if sop_instance_uid else f"file {self._numbers[path]}"

    def _one_series(self) -> tuple[SeriesIdentity, list[Finding]]:
        """Identity of the series, and a finding if instances tell it differently."""
        if not self._images:
            if self._companions or any(left.reason is Reason.NOT_CT for left in self._left_out):
                raise SeriesRefusedError(Reason.NOT_CT, "no CT image")
            raise SeriesRefusedError(
                Reason.NO_DICOM, f"{len(self._left_out)} files, none of them DICOM"
            )
        counts = Counter(image.identity.series_instance_uid for image in self._images)
        if len(counts) > 1:
            shown = [f"{uid} ({count} instances)" for uid, count in sorted(counts.items())]
            raise SeriesRefusedError(Reason.MIXED_SERIES, f"{len(counts)} series: {_list(shown)}")
        identities = {image.identity for image in self._witnesses}
        if len(identities) > 1:
            raise SeriesRefusedError(
                Reason.MIXED_IDENTITY, "one series with several patients or studies"
            )
        persons = {image.person for image in self._witnesses}
        differing = [
            keyword
            for keyword, values in zip(PERSON, zip(*persons, strict=True), strict=True)
            if len(set(values)) > 1
        ]
        # An ID that two hospitals gave to two people: the name and the date of birth tell.
        if "IssuerOfPatientID" in differing or {"PatientName", "PatientBirthDate"} <= {*differing}:
            raise SeriesRefusedError(
                Reason.MIXED_IDENTITY, f"one series with several {' and '.join(differing)}"
            )
        findings = [Finding(Reason.IDENTITY_DIFFERS, ", ".join(differing))] if differing else []
        return identities.pop(), findings


def _without_repeated(
    instances: Sequence[Instance], numbers: Mapping[Path, int]
) -> tuple[list[Instance], list[LeftOut]]:
    """The first instance of every SOP Instance UID, and what is left out."""
    first: dict[str, Instance] = {}
    left_out = []
    for instance in instances:
        uid = instance.sop_instance_uid
        kept = first.setdefault(uid, instance)
        if kept is instance:
            continue
        reason = Reason.CONFLICTING_INSTANCE
        if _same_bytes(kept.path, instance.path):
            reason = Reason.DUPLICATE_INSTANCE
        detail = f"first came file {numbers[kept.path]}"
        left_out.append(LeftOut(instance.path, uid, None, reason, detail))
    return list(first.values()), left_out


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return instance_digest(one) == instance_digest(other)
    except (OSError, ValueError):
        return False


def _plan(stack: Stack, identity: SeriesIdentity, findings: tuple[Finding, ...]) -> StackPlan:
    table, more = _table(stack, identity)
    header = _header(stack.planes[0].row)
    return StackPlan(
        table=table,
        header=header,
        separated_by=stack.separated_by,
        told_as=stack.told_as,
        findings=(*findings, *more, *value_findings(header)),
    )


def _table(stack: Stack, identity: SeriesIdentity) -> tuple[SliceTable, list[Finding]]:
    """The slice table of a stack, and what is to be said of its planes."""
    planes = stack.planes
    findings = []
    lossy = sum(plane.lossy for plane in planes)
    if lossy:
        findings.append(Finding(Reason.LOSSY_SOURCE, f"{lossy} of {len(planes)} planes"))
    frame_of_reference = planes[0].frame_of_reference_uid
    if not frame_of_reference:
        frame_of_reference = derived_uid("frame of reference", identity.series_instance_uid)
        findings.append(Finding(Reason.FRAME_OF_REFERENCE_DERIVED, frame_of_reference))
    table = SliceTable(tuple(plane.row for plane in planes), frame_of_reference)
    try:
        table.geometry()
    except InvalidGeometryError as error:
        raise SeriesRefusedError(error.reason, error.detail) from error
    return table, findings


def _header(row: SliceRow) -> Dataset:
    try:
        return read_header(row.path)
    except SeriesRefusedError as error:
        detail = f"instance {row.sop_instance_uid}: {error.detail}"
        raise SeriesRefusedError(error.reason, detail) from error


def _not_processed(
    error: SeriesRefusedError, instances: Iterable[Instance], files: Iterable[LeftOut]
) -> SeriesExamination:
    """The outcome of a series that is not processed; every file of it is listed."""
    instances = list(instances)
    left_out = list(files)
    for instance in instances:
        left_out += instance.left_out
        if instance.planes or not instance.left_out:
            whole = LeftOut(instance.path, instance.sop_instance_uid, None, error.reason, "")
            left_out.append(replace(whole, detail="with its series"))
    identities = {instance.identity for instance in instances if not instance.companion}
    return SeriesExamination(
        outcome_of(error.reason),
        error.reason,
        error.detail,
        identities.pop() if len(identities) == 1 else None,
        (),
        tuple(left_out),
    )


def _list(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more
