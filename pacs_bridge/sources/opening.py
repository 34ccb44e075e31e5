"""The sources of a configuration, ready to be asked."""

from __future__ import annotations

from pacs_bridge.archive.plan_source import PlanSources
from pacs_bridge.archive.planned_identities import PlannedIdentities
from pacs_bridge.archive.wanted_settings import WantedSettings
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.sources import (
    DicomwebSourceConfig,
    DimseSourceConfig,
    PlanSourceConfig,
    SourceConfig,
)
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.job_source import JobSources
from pacs_bridge.log import JsonLog, Log
from pacs_bridge.sources.configured_sources import RemoteSources, SeriesPlans
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive
from pacs_bridge.sources.dimse_archive import DimseArchive
from pacs_bridge.sources.remote_archive import RemoteArchive

_GIB = 1 << 30


def remote_archive(
    source: DicomwebSourceConfig | DimseSourceConfig,
    config: BridgeConfig,
    log: Log | None = None,
) -> RemoteArchive:
    """The archive of a source; nothing is sent to it yet.

    Parameters
    ----------
    source
        Of the configuration, or one like those.
    config
        For our AE title.
    log
        None: the log of the configuration.
    """
    if log is None:
        hide = IdentityHash.known(config.data_folder)
        log = JsonLog.open(config.log.file, hide, config.log.level)
    if isinstance(source, DicomwebSourceConfig):
        return DicomwebArchive(source, log=log)
    calling = source.calling_ae_title or config.listener.ae_title
    return DimseArchive(source, calling, log)


def job_sources(config: BridgeConfig, plans: SeriesPlans | None = None) -> dict[str, JobSources]:
    """Every source of the configuration by its name; the spool is not among them.

    Parameters
    ----------
    config
        The whole configuration.
    plans
        What was planned of the series of archives; None: the plans of the configuration say it.
    """
    if plans is None:
        plans = configured_plans(config)
    return {source.name: _job_source(source, config, plans) for source in config.sources}


def configured_plans(config: BridgeConfig) -> PlannedIdentities:
    """The plans of a configuration."""
    return PlannedIdentities(
        [each.folder for each in config.sources if isinstance(each, PlanSourceConfig)],
        WantedSettings(config),
    )


def _job_source(source: SourceConfig, config: BridgeConfig, plans: SeriesPlans) -> JobSources:
    if isinstance(source, PlanSourceConfig):
        return PlanSources(source.folder, config.data_folder, WantedSettings(config))
    reserve_bytes = int(config.disk.reserve_free_gib * _GIB)
    return RemoteSources(remote_archive(source, config), config.data_folder, reserve_bytes, plans)
