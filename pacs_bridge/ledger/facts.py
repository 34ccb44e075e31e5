"""What is known of a series before anything of it is read: what routes select by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """Header values of an instance, or those that most of a series have; empty where it has none.

    They choose a route and are never logged: a description is free text.
    """

    calling_ae_title: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    body_part: str = ""
    series_description: str = ""
    study_description: str = ""
    protocol_name: str = ""
    kernel: str = ""
    manufacturer: str = ""
    slice_thickness_mm: float | None = None

    def to_json(self) -> str:
        """As the ledger keeps them."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SeriesFacts:
        """From what the ledger kept; a fact that an older version wrote and we lack is dropped."""
        values = json.loads(text)
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        values["image_type"] = tuple(values.get("image_type", ()))
        return cls(**values)

    @classmethod
    def of_most(cls, counted: Sequence[tuple[SeriesFacts, int]]) -> SeriesFacts:
        """Of each fact the value that most instances have, whatever the order they came in.

        Parameters
        ----------
        counted
            Facts, each with the number of instances that say so. Of values that equally many
            have, the one that comes first as text is taken.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            votes: Counter[Any] = Counter()
            for facts, number in counted:
                votes[getattr(facts, field.name)] += number
            values[field.name] = min(votes, key=lambda value: (-votes[value], repr(value)))
        return cls(**values)
