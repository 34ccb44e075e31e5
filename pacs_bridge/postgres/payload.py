"""What crosses PostgreSQL: JSON of ids, parsed strictly; never an object, never patient data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from inference.finding import Finding
from inference.reasons import Reason
from pacs_bridge.config.section import Name, Section
from pacs_bridge.errors import PermanentError
from pacs_bridge.postgres.recipe import Recipe
from pacs_bridge.queue import JobRequest, Priority, ResultFile


def checked_below(path: str) -> str:
    """A relative path that does not lead out of the folder that it starts at.

    Raises
    ------
    ValueError
        If it does, or holds what no path of ours holds.
    """
    if path.startswith("/") or ".." in path.split("/") or not path.isprintable():
        raise ValueError("not a path below")
    return path


#: PS3.5 9.1, as far as it matters here: digits and dots, at most 64.
Uid = Annotated[str, StringConstraints(pattern=r"^[0-9.]{1,64}$")]
#: Below a folder of ours.
RelativePath = Annotated[
    str, StringConstraints(min_length=1, max_length=1024), AfterValidator(checked_below)
]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


_MOST = 2**62  #: as an integer of both databases
_LONGEST = 10_000  #: of lists and of texts

_UNKNOWN = Recipe()

_Parsed = TypeVar("_Parsed", bound=Section)


class JobPayload(Section):
    """One job as Procrastinate keeps it; a key that is not known is a fault."""

    format: Literal[1] = 1
    job: Annotated[int, Field(ge=1, le=_MOST)]
    series_instance_uid: Uid
    study_instance_uid: Uid | Literal[""]
    revision: Annotated[int, Field(ge=1, le=_MOST)]
    route: Name
    model: Name
    destinations: Annotated[tuple[Name, ...], Field(max_length=_LONGEST)]
    priority: Priority
    source: Name
    created: AwareDatetime
    rules: Digest | Literal[""] = ""
    weights: Digest | Literal[""] = ""

    @property
    def recipe(self) -> Recipe:
        """What the bridge means by the names."""
        return Recipe(self.rules, self.weights)

    @property
    def request(self) -> JobRequest:
        """The job as everything else knows it."""
        return JobRequest(
            series_instance_uid=self.series_instance_uid,
            revision=self.revision,
            route=self.route,
            model=self.model,
            destinations=self.destinations,
            priority=self.priority,
            source=self.source,
            study_instance_uid=self.study_instance_uid,
        )


class UnknownFormatError(Exception):
    """A job that another release understands."""


class _Format(Section):
    """What every release can read of a payload."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    format: Annotated[int, Field(le=_MOST)]


class ResultRow(Section):
    """One ``ResultFile``."""

    stack: Annotated[int, Field(ge=0, lt=_LONGEST)]
    kind: Literal["binary", "labelmap"]
    path: RelativePath
    sop_class_uid: Uid
    sop_instance_uid: Uid
    series_instance_uid: Uid
    transfer_syntax_uid: Uid
    sha256: Digest
    size_bytes: Annotated[int, Field(ge=0, le=_MOST)]

    def file(self) -> ResultFile:
        """The value that this row is of."""
        return ResultFile(**self.model_dump())


class FindingRow(Section):
    """One ``Finding``."""

    reason: Reason
    detail: Annotated[str, StringConstraints(max_length=_LONGEST)]


class Outcome(Section):
    """What a worker made of a job."""

    results: Annotated[tuple[ResultRow, ...], Field(min_length=1, max_length=_LONGEST)]
    findings: Annotated[tuple[FindingRow, ...], Field(max_length=_LONGEST)]

    @field_validator("results")
    @classmethod
    def _checked_once(cls, results: tuple[ResultRow, ...]) -> tuple[ResultRow, ...]:
        if len({(each.stack, each.kind) for each in results}) < len(results):
            raise ValueError("a result twice")
        return results


def request_key(request: JobRequest) -> str:
    """What makes two requests the same job."""
    return "|".join(
        (request.series_instance_uid, str(request.revision), request.route, request.model)
    )


def job_payload(
    job_id: int, request: JobRequest, created: str, recipe: Recipe = _UNKNOWN
) -> dict[str, Any]:
    """The JSON of a job; ``created`` is ISO 8601.

    Raises
    ------
    PermanentError
        ``bad-payload`` if something of the request is no id.
    """
    row = {"format": 1, "job": job_id, "created": created, **asdict(request), **asdict(recipe)}
    parsed_payload(json.dumps(row))
    return row | {"destinations": list(request.destinations), "priority": request.priority.value}


def parsed_payload(text: str) -> JobPayload:
    """A job from its JSON.

    Raises
    ------
    PermanentError
        As ``job_payload``.
    UnknownFormatError
        If it is of another release of this program.
    """
    with suppress(PermanentError):
        if parsed_json(_Format, text).format > 1:
            raise UnknownFormatError
    return parsed_json(JobPayload, text)


def outcome_row(results: Sequence[ResultFile], findings: Sequence[Finding]) -> dict[str, Any]:
    """The JSON of an outcome."""
    return {
        "results": [asdict(each) for each in results],
        "findings": [
            {"reason": each.reason.value, "detail": storable(each.detail)} for each in findings
        ],
    }


def storable(text: str) -> str:
    """A text as PostgreSQL takes it: without NUL and half characters, and not endless."""
    whole = text[:_LONGEST].replace("\0", "?")
    return whole.encode("utf-8", "replace").decode("utf-8")


def parsed_outcome(text: str) -> tuple[tuple[ResultFile, ...], tuple[Finding, ...]]:
    """Results and findings from their JSON. Raises ``PermanentError`` as ``job_payload`` does."""
    outcome = parsed_json(Outcome, text)
    return (
        tuple(each.file() for each in outcome.results),
        tuple(Finding(each.reason, each.detail) for each in outcome.findings),
    )


def parsed_json(model: type[_Parsed], text: str | bytes) -> _Parsed:
    """A value from JSON that others may have written.

    Raises
    ------
    PermanentError
        ``bad-payload`` with the keys that are wrong; never with their values.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])[:80]}: {one['type']}"
            for one in error.errors(include_input=False, include_url=False)[:5]
        )
        raise PermanentError(Reason.BAD_PAYLOAD, wrong) from error
