"""The sources of a configuration, ready to be asked."""

from __future__ import annotations

from pacs_bridge.archive.plan_source import PlanSources
from pacs_bridge.archive.wanted_settings import WantedSettings
from pacs_bridge.config.bridge import BridgeConfig
from pacs_bridge.config.sources import DicomwebSourceConfig, DimseSourceConfig, PlanSourceConfig
from pacs_bridge.identity_hash import IdentityHash
from pacs_bridge.job_source import JobSources
from pacs_bridge.log import JsonLog
from pacs_bridge.sources.configured_sources import RemoteSources
from pacs_bridge.sources.dicomweb_archive import DicomwebArchive
from pacs_bridge.sources.dimse_archive import DimseArchive
from pacs_bridge.sources.remote_archive import RemoteArchive

_GIB = 1 << 30


def remote_archive(
    source: DicomwebSourceConfig | DimseSourceConfig, config: BridgeConfig
) -> RemoteArchive:
    """The archive of a source; nothing is sent to it yet.

    Parameters
    ----------
    source
        Of the configuration, or one like those.
    config
        For our AE title and the log.
    """
    log = JsonLog.open(config.log.file, IdentityHash.load(config.data_folder), config.log.level)
    if isinstance(source, DicomwebSourceConfig):
        return DicomwebArchive(source, log=log)
    calling = source.calling_ae_title or config.listener.ae_title
    return DimseArchive(source, calling, log)


def job_sources(config: BridgeConfig) -> dict[str, JobSources]:
    """Every source of the configuration by its name; the spool is not among them."""
    return {source.name: _job_source(source, config) for source in config.sources}


def _job_source(
    source: DicomwebSourceConfig | DimseSourceConfig | PlanSourceConfig, config: BridgeConfig
) -> JobSources:
    if isinstance(source, PlanSourceConfig):
        return PlanSources(source.folder, config.data_folder, WantedSettings(config))
    reserve_bytes = int(config.disk.reserve_free_gib * _GIB)
    return RemoteSources(remote_archive(source, config), config.data_folder, reserve_bytes)
