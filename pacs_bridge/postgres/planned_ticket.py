"""What a plan knows of a series, as a ticket carries it.

The plan of an archive run is SQLite in the folder of the run, and SQLite does not keep its promises
on a network disk: no worker elsewhere opens it. The bridge looks it up when it hands a job over,
and puts the list of files into the ticket, or what an archive that is asked for them has said.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from dicom_seg.read.examination import SeriesIdentity
from inference.reasons import Reason
from pacs_bridge.archive.known_files import KnownFile
from pacs_bridge.archive.plan_source import FURTHER_FILE, PlannedFiles, planned_files
from pacs_bridge.archive.planned_identities import PlannedIdentity
from pacs_bridge.archive.wanted_settings import WantedSettings
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.section import Section
from pacs_bridge.config.sources import PlanSourceConfig
from pacs_bridge.errors import PermanentError, TransientError
from pacs_bridge.queue import SPOOL, JobRequest
from pacs_bridge.report import LeftOutInstance
from pacs_bridge.sources.opening import configured_plans

_Uid = Annotated[str, StringConstraints(max_length=128)]
_Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]*$", max_length=64)]


class _Bytes(Section):
    """Names of files need not be text: whatever is bytes is base64 in the ticket."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class PlannedFileRow(_Bytes):
    """One file."""

    name: bytes  #: in a zip file: number of the member
    size_bytes: Annotated[int, Field(ge=0)]
    modified_ns: int  #: in a zip file: checksum of the member


class PlannedFolderRow(_Bytes):
    """Files of one folder, or of one zip file."""

    path: bytes
    is_zip: bool
    files: tuple[PlannedFileRow, ...]


class BesideRow(Section):
    """An instance of the series that is left out."""

    sop_instance_uid: _Uid
    reason: Reason


class PlannedFilesRow(_Bytes):
    """The files of a series, and whose it is."""

    roots: tuple[bytes, ...]
    folders: tuple[PlannedFolderRow, ...]
    beside: tuple[BesideRow, ...]
    patient: _Hash
    study_instance_uid: _Uid
    series_instance_uid: _Uid


class PlannedIdentityRow(Section):
    """What an archive that is asked for the files has said."""

    instance_count: Annotated[int, Field(ge=0)] | None
    patient: _Hash


class PlanRow(_Bytes):
    """What a plan knows of the series of one job."""

    key: bytes  #: of the hashes of patients
    files: PlannedFilesRow | None = None
    asked: PlannedIdentityRow | None = None

    @classmethod
    def of_files(cls, planned: PlannedFiles) -> PlanRow:
        """Of a series whose files lie where the plan found them."""
        folders: dict[tuple[bytes, bool], list[PlannedFileRow]] = {}
        for file in planned.files:
            row = PlannedFileRow(
                name=file.name, size_bytes=file.size_bytes, modified_ns=file.modified_ns
            )
            folders.setdefault((file.folder, bool(file.is_zip)), []).append(row)
        files = PlannedFilesRow(
            roots=tuple(os.fsencode(root) for root in planned.roots),
            folders=tuple(
                PlannedFolderRow(path=path, is_zip=is_zip, files=tuple(rows))
                for (path, is_zip), rows in folders.items()
            ),
            beside=tuple(
                BesideRow(sop_instance_uid=each.sop_instance_uid, reason=each.reason)
                for each in planned.set_aside
            ),
            patient=planned.identity.patient_id,
            study_instance_uid=planned.identity.study_instance_uid,
            series_instance_uid=planned.identity.series_instance_uid,
        )
        return cls(key=planned.key, files=files)

    @classmethod
    def of_identity(cls, planned: PlannedIdentity) -> PlanRow:
        """Of a series that an archive is asked for."""
        asked = PlannedIdentityRow(instance_count=planned.instance_count, patient=planned.patient)
        return cls(key=planned.key, asked=asked)

    def planned_files(self) -> PlannedFiles | None:
        """What ``of_files`` was made of; None if the files are not listed."""
        if self.files is None:
            return None
        return PlannedFiles(
            roots=tuple(Path(os.fsdecode(root)) for root in self.files.roots),
            files=tuple(
                KnownFile(
                    number, folder.path, folder.is_zip, row.name, row.size_bytes, row.modified_ns
                )
                for number, folder in enumerate(self.files.folders)
                for row in folder.files
            ),
            set_aside=tuple(
                LeftOutInstance("", each.sop_instance_uid, None, each.reason, FURTHER_FILE)
                for each in self.files.beside
            ),
            identity=SeriesIdentity(
                self.files.patient, self.files.study_instance_uid, self.files.series_instance_uid
            ),
            key=self.key,
        )

    def planned_identity(self) -> PlannedIdentity | None:
        """What ``of_identity`` was made of; None if no archive is asked."""
        if self.asked is None:
            return None
        return PlannedIdentity(self.asked.instance_count, self.asked.patient, self.key)


class PlanLookup:
    """Looks up in the plans of a bridge what its tickets are to say.

    Parameters
    ----------
    config
        Of the bridge.
    """

    def __init__(self, config: BridgeConfig) -> None:
        self._config = config
        self._settings = WantedSettings(config)
        self._asked = configured_plans(config)

    def of(self, request: JobRequest) -> PlanRow | None:
        """What is known of the series of a job; None if no plan knows it.

        Raises
        ------
        TransientError
            If a plan cannot be read now, or is made anew; ``wrong-recipe`` if its run wants other
            settings than this bridge has.
        PermanentError
            ``unknown-source`` if the bridge has no such source; as ``planned_files``.
        """
        if request.source == SPOOL:
            return None
        source = self._config.source(request.source)
        if source is None:
            raise PermanentError(Reason.UNKNOWN_SOURCE, f"no source {request.source!r}")
        try:
            if isinstance(source, PlanSourceConfig):
                self._settings.check(source.folder, request)
                return PlanRow.of_files(planned_files(source.folder, request.series_instance_uid))
            planned = self._asked.of(request)
        except OSError as error:  # of the disk of the plan, and of no other job
            raise TransientError(
                Reason.SOURCE_UNREACHABLE, f"the folder of the run: {error.strerror}"
            ) from error
        return None if planned is None else PlanRow.of_identity(planned)


def no_plan(_request: JobRequest) -> PlanRow | None:
    """For a bridge without archive runs."""
    return None
