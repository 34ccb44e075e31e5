"""Which route a series takes: the first that describes it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pacs_bridge.config.routes import RouteConfig, SelectConfig
from pacs_bridge.ledger.facts import SeriesFacts


def select_route(
    routes: Sequence[RouteConfig], facts: SeriesFacts, slice_count: int
) -> RouteConfig | None:
    """The first route whose conditions all hold, or None."""
    return next((one for one in routes if matches(one.select, facts, slice_count)), None)


def matches(select: SelectConfig, facts: SeriesFacts, slice_count: int) -> bool:
    """Whether every condition holds that is given."""
    image_type = {value.upper() for value in facts.image_type}
    thickness_mm = facts.slice_thickness_mm
    return (
        _is_any(select.calling_ae_titles, facts.calling_ae_title)
        and _is_any(select.modalities, facts.modality)
        and _is_any(select.body_parts, facts.body_part)
        and _is_found(select.series_description, facts.series_description)
        and not _is_excluded(select.not_series_description, facts.series_description)
        and _is_found(select.study_description, facts.study_description)
        and _is_found(select.protocol_name, facts.protocol_name)
        and _is_found(select.kernel, facts.kernel)
        and _is_found(select.manufacturer, facts.manufacturer)
        and not image_type & {value.upper() for value in select.image_type_without}
        and (select.min_slices is None or slice_count >= select.min_slices)
        and (select.max_slices is None or slice_count <= select.max_slices)
        and (
            select.max_slice_thickness_mm is None
            or (thickness_mm is not None and thickness_mm <= select.max_slice_thickness_mm)
        )
    )


def _is_any(wanted: Sequence[str], value: str) -> bool:
    return not wanted or value.casefold() in {one.casefold() for one in wanted}


def _is_found(pattern: str | None, value: str) -> bool:
    return pattern is None or re.search(pattern, value, re.IGNORECASE) is not None


def _is_excluded(pattern: str | None, value: str) -> bool:
    return pattern is not None and re.search(pattern, value, re.IGNORECASE) is not None
