"""Whose series one is: the bridge tells of it only to who knows that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pacs_bridge.plugin.server import OrthancServer


@dataclass(frozen=True, slots=True)
class Identity:
    """A series with its study and its patient."""

    series_uid: str
    study_uid: str
    patient_id: str


def identity_of(server: OrthancServer, series: Mapping[str, Any]) -> Identity:
    """What Orthanc has of a series; empty where it has nothing.

    Parameters
    ----------
    server
        Orthanc.
    series
        Its facts of the series.

    Raises
    ------
    ServerError
        If Orthanc cannot say.
    """
    study = server.find(f"/series/{series['ID']}/study") or {}
    patient = server.find(f"/series/{series['ID']}/patient") or {}
    return Identity(
        series["MainDicomTags"].get("SeriesInstanceUID", ""),
        study.get("MainDicomTags", {}).get("StudyInstanceUID", ""),
        patient.get("MainDicomTags", {}).get("PatientID", ""),
    )
