"""What is known of a series before anything of it is read: what routes select by."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """Header values of the first instance of a series; empty where it has none.

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
