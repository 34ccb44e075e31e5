"""What a series must be to be segmented, and what a result says of itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicom_seg.read.examination import SeriesRules
from pacs_bridge.config.section import Section

_DEFAULT = SeriesRules()


class SeriesConfig(Section):
    """Limits for series; what lies beyond them is skipped or refused with its reason."""

    min_slices: Annotated[int, Field(ge=2)] = _DEFAULT.min_slices
    max_gap_mm: Annotated[float, Field(gt=0)] = _DEFAULT.max_gap_mm
    max_gap_ratio: Annotated[float, Field(ge=1)] = _DEFAULT.max_gap_ratio
    max_matrix: Annotated[int, Field(ge=64, le=65535)] = _DEFAULT.max_matrix
    max_megavoxels: Annotated[float, Field(gt=0)] = _DEFAULT.max_voxels / 1e6

    def rules(self) -> SeriesRules:
        """The same, as the examination of a series takes them."""
        return SeriesRules(
            min_slices=self.min_slices,
            max_gap_mm=self.max_gap_mm,
            max_gap_ratio=self.max_gap_ratio,
            max_matrix=self.max_matrix,
            max_voxels=int(self.max_megavoxels * 1e6),
        )


class ResultsConfig(Section):
    """Free text of results. By default they say that they are investigational."""

    series_description: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    content_description: Annotated[str, Field(min_length=1, max_length=64)] | None = None
