"""The whole configuration of a bridge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from pacs_bridge.config.control import TOKEN_NAME, ControlConfig
from pacs_bridge.config.destinations import DestinationConfig, RetryConfig
from pacs_bridge.config.listener import ListenerConfig
from pacs_bridge.config.processing import ResultsConfig, SeriesConfig
from pacs_bridge.config.queue import QueueConfig
from pacs_bridge.config.routes import RouteConfig
from pacs_bridge.config.section import NotEmpty, Section, resolved
from pacs_bridge.config.sources import SourceConfig

_CENTURY_H = 876_600.0
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def checked_device(value: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if not _DEVICE.fullmatch(value):
        raise ValueError("a device is auto, cpu, cuda or cuda:N")
    return value


class CollectorConfig(Section):
    """When a series counts as complete."""

    #: No instance for so long, and no association open that sent some of it.
    quiet_period_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    check_interval_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    #: A series that stays incomplete for so long is given up.
    give_up_incomplete_after_h: Annotated[float, Field(gt=0, le=_CENTURY_H)] = 720.0
    #: Instances of series whose results have all arrived are deleted after so long; 0: never.
    keep_sources_h: Annotated[float, Field(ge=0, le=_CENTURY_H)] = 168.0
    #: Files of results are deleted so long after they have arrived; 0: never.
    keep_results_h: Annotated[float, Field(ge=0, le=_CENTURY_H)] = 720.0
    #: Instances in quarantine are deleted after so long; 0: never.
    keep_quarantine_h: Annotated[float, Field(ge=0, le=_CENTURY_H)] = 2160.0
    #: Where there are more of them, the oldest are deleted; 0: no limit.
    max_quarantine_gib: Annotated[float, Field(ge=0)] = 10.0


class DiskConfig(Section):
    """How much of the data folder's disk is left alone."""

    #: Below this no association is accepted; those that are open finish.
    accept_above_free_gib: Annotated[float, Field(ge=0)] = 10.0
    #: Below this no instance is accepted.
    reserve_free_gib: Annotated[float, Field(ge=0)] = 5.0
    #: No association is accepted while so many series wait; 0: no limit.
    max_waiting_series: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _reserve_is_below_the_door(self) -> DiskConfig:
        if self.reserve_free_gib > self.accept_above_free_gib:
            raise ValueError("reserve_free_gib is more than accept_above_free_gib")
        return self


class WorkersConfig(Section):
    """What segments."""

    #: One worker process for each.
    devices: Annotated[tuple[Annotated[str, AfterValidator(checked_device)], ...], NotEmpty] = (
        "auto",
    )
    #: Arithmetic of the network. auto: what the device does fast.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    #: A worker that has not been heard of for so long is presumed dead.
    lease_s: Annotated[float, Field(ge=1, le=3600)] = 60.0
    job_timeout_s: Annotated[float, Field(gt=0)] = 7200.0
    #: Decode the next series and encode the last one while one is segmented; takes the memory of
    #: one volume more.
    overlap: bool = True
    #: Attempts that end in the model, for want of memory or with the death of the worker. What
    #: the machine is to blame for, such as a full disk, is tried again until its time is up.
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    retry: RetryConfig = RetryConfig(first_wait_s=30.0, max_wait_s=3600.0)


class ModelsConfig(Section):
    """Where the models lie."""

    #: None: only the embedded demonstration model.
    folder: Path | None = None

    @field_validator("folder")
    @classmethod
    def _from_the_file(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        return folder if folder is None else resolved(folder, info)


class LogConfig(Section):
    """The log: JSON lines without patient data."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    #: None: standard error.
    file: Path | None = None

    @field_validator("file")
    @classmethod
    def _from_the_file(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        return file if file is None else resolved(file, info)


class BridgeConfig(Section):
    """One bridge: its folder, its listener, its routes and its destinations.

    Relative paths start at the folder of the configuration file.
    """

    #: Spool, ledger, results and quarantine.
    data_folder: Path
    listener: ListenerConfig
    collector: CollectorConfig = CollectorConfig()
    disk: DiskConfig = DiskConfig()
    series: SeriesConfig = SeriesConfig()
    results: ResultsConfig = ResultsConfig()
    workers: WorkersConfig = WorkersConfig()
    models: ModelsConfig = ModelsConfig()
    log: LogConfig = LogConfig()
    #: None: the service tells its state to nobody.
    control: ControlConfig | None = None
    #: None: this machine segments by itself.
    queue: QueueConfig | None = None
    destinations: Annotated[tuple[DestinationConfig, ...], NotEmpty]
    routes: Annotated[tuple[RouteConfig, ...], NotEmpty]
    sources: tuple[SourceConfig, ...] = ()

    @field_validator("data_folder")
    @classmethod
    def _from_the_file(cls, folder: Path, info: ValidationInfo) -> Path:
        return resolved(folder, info)

    @property
    def ledger_path(self) -> Path:
        """The SQLite file of the ledger."""
        return self.data_folder / "ledger.sqlite"

    @property
    def spool_folder(self) -> Path:
        """Received instances."""
        return self.data_folder / "spool"

    @property
    def quarantine_folder(self) -> Path:
        """Instances that cannot be believed; nothing reads them but people."""
        return self.data_folder / "quarantine"

    @property
    def results_folder(self) -> Path:
        """A folder for each job: its Segmentations and ``report.json``."""
        return self.data_folder / "results"

    @property
    def scratch_folder(self) -> Path:
        """A folder for each job: what was fetched for it, until it is over."""
        return self.data_folder / "scratch"

    @property
    def control_token_path(self) -> Path:
        """The file with the token of ``control``."""
        named = None if self.control is None else self.control.token_file
        return self.data_folder / TOKEN_NAME if named is None else named

    def destination(self, name: str) -> DestinationConfig | None:
        """The destination of this name, or None if the configuration has it no longer."""
        return next((one for one in self.destinations if one.name == name), None)

    def source(self, name: str) -> SourceConfig | None:
        """The source of this name, or None if the configuration has none."""
        return next((one for one in self.sources if one.name == name), None)

    def route(self, name: str) -> RouteConfig | None:
        """The route of this name, or None if the configuration has it no longer."""
        return next((one for one in self.routes if one.name == name), None)
