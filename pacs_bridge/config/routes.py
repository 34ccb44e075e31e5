"""Which series are segmented, with what, and where the results go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from inference.structures import STRUCTURE_BY_NAME
from inference.wanted_labels import named_structures
from pacs_bridge.config.section import AETitle, Name, NotEmpty, Pattern, Section
from pacs_bridge.queue import Priority

#: Stands for every structure.
ALL_STRUCTURES = "all"


class SelectConfig(Section):
    """What a series must be for a route; everything that is given must hold.

    Text is compared without regard to case. An attribute that the series lacks does not match
    a condition on it. A route without conditions takes every series.
    """

    calling_ae_titles: tuple[AETitle, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()  #: Body Part Examined, any of these
    series_description: Pattern | None = None
    not_series_description: Pattern | None = None
    study_description: Pattern | None = None
    protocol_name: Pattern | None = None
    kernel: Pattern | None = None
    manufacturer: Pattern | None = None
    image_type_without: tuple[str, ...] = ()
    min_slices: Annotated[int, Field(ge=1)] | None = None
    max_slices: Annotated[int, Field(ge=1)] | None = None
    max_slice_thickness_mm: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> SelectConfig:
        if self.min_slices and self.max_slices and self.max_slices < self.min_slices:
            raise ValueError("max_slices is less than min_slices")
        return self


def _check_structures(names: Iterable[str]) -> None:
    unknown = [name for name in names if name != ALL_STRUCTURES and name not in STRUCTURE_BY_NAME]
    if unknown:
        raise ValueError(f"no such structure: {', '.join(map(repr, unknown))}")


class PostprocessingConfig(Section):
    """Borders of the label map, and its cleaning by structure name or ``all``.

    Nothing by default.
    """

    largest_component: tuple[str, ...] = ()
    fill_holes: tuple[str, ...] = ()
    min_volume_ml: dict[str, Annotated[float, Field(gt=0)]] = {}  # noqa: RUF012 - frozen model
    #: Of all structures, before they are cleaned: between the voxels of the model's grid.
    smooth_borders: bool = False

    @field_validator("largest_component", "fill_holes")
    @classmethod
    def _listed_structures_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _check_structures(names)
        return names

    @field_validator("min_volume_ml")
    @classmethod
    def _measured_structures_exist(cls, volumes: dict[str, float]) -> dict[str, float]:
        _check_structures(volumes)
        return volumes


class RouteConfig(Section):
    """What is done with the series that ``select`` describes. The first matching route wins."""

    name: Name
    model: Name
    destinations: Annotated[tuple[Name, ...], NotEmpty]
    priority: Priority = Priority.ROUTINE
    select: SelectConfig = SelectConfig()
    postprocessing: PostprocessingConfig = PostprocessingConfig()
    #: Names of structures or of groups of them: no other is written, and what is far from all of
    #: them is not computed where a coarse model finds them. Empty: all.
    structures: tuple[str, ...] = ()

    @field_validator("structures")
    @classmethod
    def _wanted_structures_exist(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return named_structures(names)

    @field_validator("destinations")
    @classmethod
    def _destinations_are_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("each destination once")
        return names
