"""The collector: decides when a series is complete, and what is done with it.

A series is quiet when no association is open that sent some of it. It is complete when it has
been quiet for the quiet period, by steady time: the clock of the machine may step. It is held as
incomplete when an association was aborted and no later one made up for it, when fewer instances
are here than the sender says, or when the series came with two identities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference.reasons import Reason
from pacs_bridge.clock import Clock
from pacs_bridge.config.bridge import CollectorConfig
from pacs_bridge.config.routes import RouteConfig
from pacs_bridge.errors import TransientError
from pacs_bridge.ledger.announcements import less_urgent
from pacs_bridge.ledger.ledger import Ledger
from pacs_bridge.ledger.series import OpenRevision, Verdict
from pacs_bridge.log import Log
from pacs_bridge.queue import JobRequest, State
from pacs_bridge.receive.selection import select_route

_S_PER_H = 3600.0
_TIDY_S = 600.0
_QUARANTINE_S = 60.0
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class _Silence:
    """Since when nothing has happened to a revision."""

    activity: int
    since_s: float  #: steady


class Collector:
    """Looks at every open series, now and then.

    Parameters
    ----------
    ledger
        Opened by this process.
    config
        Quiet period and how long incomplete series are held.
    routes
        In their order.
    clock
        Its steady time counts the quiet period.
    log
        Tells what became of each series.
    is_disputed
        Whether something is known of a series that the ledger has not been told yet.
    """

    def __init__(
        self,
        ledger: Ledger,
        config: CollectorConfig,
        routes: Sequence[RouteConfig],
        clock: Clock,
        log: Log,
        is_disputed: Callable[[str], bool] = lambda _series: False,
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._routes = tuple(routes)
        self._clock = clock
        self._log = log
        self._is_disputed = is_disputed
        self._tidy_due_s = self._quarantine_due_s = clock.steady_s()
        self._silences: dict[tuple[str, int], _Silence] = {}

    def look(self) -> None:
        """Look once.

        Raises
        ------
        TransientError
            If the ledger cannot be used now; the next look makes up for it.
        """
        now_s = self._clock.steady_s()
        revisions = self._ledger.series.open_revisions()
        silences = {}
        for revision in revisions:
            key = (revision.series_instance_uid, revision.revision)
            silence = self._silences.get(key)
            if silence is None or silence.activity != revision.activity:
                silence = _Silence(revision.activity, now_s)
            silences[key] = silence
            try:
                self._judge(revision, now_s - silence.since_s)
            except TransientError:
                raise
            except Exception as error:  # a fault of ours with one series holds up no other
                self._log.fault("series-not-judged", error, series=revision.series_instance_uid)
        self._silences = silences
        if now_s >= self._tidy_due_s:
            self._tidy_due_s = now_s + _TIDY_S
            if self._tidy():  # there may be more: as much leaves a day as comes
                self._tidy_due_s = now_s
        if now_s >= self._quarantine_due_s:  # a sender fills it fast
            self._quarantine_due_s = now_s + _QUARANTINE_S
            if self._tidy_quarantine():
                self._quarantine_due_s = now_s

    def _tidy(self) -> bool:
        """Do what is not urgent, a little at a time; whether anything was deleted."""
        keep = self._config.keep_sources_h * _S_PER_H
        sources = self._ledger.retention.delete_sources(keep) if keep else 0
        if sources:
            self._log.info("sources-deleted", files=sources)
        keep = self._config.keep_results_h * _S_PER_H
        results = self._ledger.retention.delete_results(keep) if keep else 0
        if results:
            self._log.info("results-deleted", files=results)
        ended = self._ledger.leftovers.delete()
        given_up = self._config.give_up_incomplete_after_h * _S_PER_H
        for series in self._ledger.series.give_up_incomplete(given_up):
            self._log.warning("series-given-up", series=series)
        return bool(sources or results or ended)

    def _judge(self, revision: OpenRevision, silent_s: float) -> None:
        if revision.open_associations or self._is_disputed(revision.series_instance_uid):
            if revision.state is State.QUIET:
                self._ledger.series.conclude(revision, Verdict(State.RECEIVING))
        elif silent_s >= self._config.quiet_period_s:
            verdict = self._verdict(revision)
            if self._ledger.series.conclude(revision, verdict):
                self._tell(revision, verdict)
        elif revision.state is State.RECEIVING:
            self._ledger.series.conclude(revision, Verdict(State.QUIET))

    def _tidy_quarantine(self) -> bool:
        """Keep the quarantine within its limits; whether anything was deleted."""
        config = self._config
        deleted = self._ledger.retention.delete_quarantined(
            config.keep_quarantine_h * _S_PER_H or None,
            int(config.max_quarantine_gib * _GIB) or None,
        )
        if deleted:
            self._log.warning("quarantine-deleted", files=deleted)
        return bool(deleted)

    def _verdict(self, revision: OpenRevision) -> Verdict:
        if revision.hold_reason is not None:
            return Verdict(State.INCOMPLETE, revision.hold_reason, "held for an operator")
        if revision.is_interrupted:
            return Verdict(
                State.INCOMPLETE,
                Reason.INCOMPLETE,
                f"{revision.instance_count} instances here; an association was aborted or an"
                " instance refused",
            )
        if revision.owed_count:
            return Verdict(
                State.INCOMPLETE,
                Reason.INCOMPLETE,
                f"{revision.instance_count} instances here; {revision.owed_count} were refused"
                " and have not come since",
            )
        if revision.deleted_count:
            return Verdict(
                State.INCOMPLETE,
                Reason.INCOMPLETE,
                f"{revision.deleted_count} of {revision.instance_count} instances were deleted"
                " after an earlier result was sent",
            )
        expected = revision.expected_instances
        if expected is not None and revision.instance_count < expected:
            return Verdict(
                State.INCOMPLETE,
                Reason.INCOMPLETE,
                f"{revision.instance_count} of {expected} instances here",
            )
        route = select_route(self._routes, revision.facts, revision.slice_count)
        if route is None:
            return Verdict(State.SKIPPED, Reason.NOT_SELECTED, "no route describes it")
        return Verdict(
            State.READY,
            job=JobRequest(
                series_instance_uid=revision.series_instance_uid,
                revision=revision.revision,
                route=route.name,
                model=route.model,
                destinations=route.destinations,
                priority=less_urgent(route.priority, revision.priority),
            ),
        )

    def _tell(self, revision: OpenRevision, verdict: Verdict) -> None:
        self._log.info(
            f"series-{verdict.state}",
            series=revision.series_instance_uid,
            revision=revision.revision,
            instances=revision.instance_count,
            slices=revision.slice_count,
            reason=verdict.reason,
            detail=verdict.detail,
            route="" if verdict.job is None else verdict.job.route,
        )
