"""The account of a run as one page of HTML that needs nothing else.

It can be shown to anybody: no name of a patient, a file or a folder is in it, and no UID.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final

from inference.reasons import Reason, describe
from pacs_bridge.archive.accounts import Account, OutcomeCount
from pacs_bridge.archive.cost import MachineCost
from pacs_bridge.report import software_version

_NAMES: Final = {
    "done": "Segmented",
    "planned": "Still to run",
    "waiting": "At work",
    "left-out": "Left out by their headers",
    "skipped": "Skipped when looked at",
    "refused": "Refused when looked at",
    "failed": "Failed",
    "superseded": "Replaced by something newer",
}
_COLOURS: Final = {
    "done": "#2f7d4f",
    "planned": "#9aa5b1",
    "waiting": "#5b8db8",
    "left-out": "#c9b458",
    "skipped": "#b8a13c",
    "refused": "#c77d3a",
    "failed": "#b3403a",
    "superseded": "#7d6b99",
}
_STAGE_COLOURS: Final = (
    "#7ea6c9",
    "#9cb8a3",
    "#5b8db8",
    "#2f7d4f",
    "#c9b458",
    "#c77d3a",
    "#7d6b99",
)
_STYLE: Final = """
:root { --ink: #1d2733; --quiet: #5c6b7a; --line: #dfe5ea; --paper: #ffffff; --back: #f4f6f8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0 0 14px; }
.quiet { color: var(--quiet); } .small { font-size: 13px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px 22px; margin-top: 18px; break-inside: avoid; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px;
  margin-top: 18px; }
.figure { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.figure b { display: block; font-size: 21px; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { display: flex; height: 26px; border-radius: 6px; overflow: hidden; background: var(--line); }
.bar i { display: block; height: 100%; min-width: 2px; }
.key { display: flex; flex-wrap: wrap; gap: 6px 18px; margin-top: 10px; font-size: 13px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 7px 10px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { font-size: 12px; color: var(--quiet); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr:last-child td { border-bottom: 0; } code { font-size: 13px; overflow-wrap: anywhere; }
td.w, td.w code { white-space: nowrap; } tr.same td { border-bottom-color: transparent; }
tfoot td { font-weight: 600; border-top: 2px solid var(--line); }
section.open { background: #fff6e0; border: 2px solid #b3403a; }
section.open h2 { color: #b3403a; margin-bottom: 6px; } section.open p { margin: 0; }
@media print { body { background: #fff; } main { padding: 0; } }
"""


@dataclass(frozen=True, slots=True)
class PageText:
    """What the account itself does not know."""

    title: str
    now: datetime
    cost: MachineCost | None  #: None: nothing is said of money


def page(account: Account, text: PageText) -> str:
    """The account as HTML."""
    title = escape(text.title or "Archive segmentation")
    mark = "" if account.is_finished else "Unfinished: "
    parts = [
        f"<h1>{title}</h1>",
        f"<p class='quiet'>Account of {text.now:%d %B %Y, %H:%M}. Results are investigational.</p>",
        _unfinished(account),
        _figures(account, text),
        _outcomes(account),
        _reasons(account.outcomes),
        _stages(account, text.cost),
        _findings(account.findings),
        _inputs(account),
        _models(account),
        f"<p class='quiet small'>PACS Bridge {escape(software_version())}. No names of patients,"
        " files or folders are on this page.</p>",
    ]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{mark}{title}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _unfinished(account: Account) -> str:
    """What is to be seen first of an account that is not the last one; empty if it is."""
    if account.is_finished:
        return ""
    said = []
    if account.open:
        said.append(
            f"<b>{account.open:,} of {account.series:,} series are open</b>:"
            f" {account.planned:,} still to run, {account.waiting:,} at work."
        )
    if not account.is_plan_complete:
        said.append(
            "<b>The plan is not complete</b>: it was ended before it was, or is being made; there"
            " may be more series."
        )
    said.append("All figures are those so far.")
    return (
        f"<section class='open'><h2>This run is not finished</h2><p>{' '.join(said)}</p></section>"
    )


def _figures(account: Account, text: PageText) -> str:
    ended = sum(c.series for c in account.outcomes if c.state not in ("planned", "waiting"))
    done = sum(c.series for c in account.outcomes if c.state == "done")
    figures = [
        (f"{account.series:,}", "series in all"),
        (_share(ended, account.series), "finished"),
        (f"{done:,}", "segmented"),
        (_bytes(account.output_bytes), f"in {account.outputs:,} results"),
    ]
    if account.run_seconds:
        figures.append((_hours(account.run_seconds), "of runs"))
        if done:
            figures.append((f"{3600 * done / account.run_seconds:,.0f}", "results an hour"))
    seconds, name = account.own_run_seconds, "cost of the machine"
    if seconds is None:  # of workers that are not ours alone
        seconds, name = sum(account.seconds.values()), "cost of all stages"
    if text.cost is not None and seconds:
        cost = text.cost.of(seconds)
        figures.append((f"{cost:,.2f}", name))
        if done:
            figures.append((f"{cost / done:,.4f}", "cost of a result"))
    cells = "".join(
        f"<div class='figure'><b>{value}</b><span class='quiet'>{name}</span></div>"
        for value, name in figures
    )
    return f"<div class='figures'>{cells}</div>"


def _outcomes(account: Account) -> str:
    totals = {
        state: sum(c.series for c in account.outcomes if c.state == state) for state in _NAMES
    }
    shown = [(state, number) for state, number in totals.items() if number]
    stale = (
        f"<p class='quiet small'>{account.stale:,} results are stale: their files, the model or the"
        " settings are others now.</p>"
        if account.stale
        else ""
    )
    return _section(
        "What became of the series",
        _bar([(_COLOURS[state], _NAMES[state], number) for state, number in shown], "{:,.0f}")
        + stale,
    )


def _reasons(outcomes: Iterable[OutcomeCount]) -> str:
    counts = sorted(outcomes, key=lambda c: (list(_NAMES).index(c.state), -c.series))
    rows = []
    for place, count in enumerate(counts):
        is_first = not place or counts[place - 1].state != count.state
        goes_on = place + 1 < len(counts) and counts[place + 1].state == count.state
        meaning = describe(Reason(count.reason)).meaning if count.reason else ""
        code = f"<code>{escape(count.reason)}</code>" if count.reason else ""
        rows.append(
            f"<tr{' class=same' if goes_on else ''}>"
            f"<td class='w'>{_NAMES[count.state] if is_first else ''}</td><td class='w'>{code}</td>"
            f"<td class='quiet'>{escape(meaning)}</td><td class='n'>{count.series:,}</td>"
            f"<td class='n'>{_bytes(count.source_bytes)}</td></tr>"
        )
    total = sum(count.series for count in counts)
    total_bytes = sum(count.source_bytes for count in counts)
    return _section(
        "Every series by outcome and reason",
        "<table><thead><tr><th>Outcome</th><th>Reason</th><th></th><th class='n'>Series</th>"
        "<th class='n'>Source</th></tr></thead><tbody>"
        + "".join(rows)
        + f"</tbody><tfoot><tr><td>All</td><td></td><td></td><td class='n'>{total:,}</td>"
        f"<td class='n'>{_bytes(total_bytes)}</td></tr></tfoot></table>",
    )


def _stages(account: Account, cost: MachineCost | None) -> str:
    if not account.seconds:
        return ""
    bars = [
        (colour, stage, seconds)
        for colour, (stage, seconds) in zip(_STAGE_COLOURS, account.seconds.items(), strict=False)
    ]
    share = account.segment_share
    said = "Stages of different series overlap."
    if share is not None:
        said += (
            f" A series was in the stage segment for {share:.0%} of the time of the runs:"
            " resampling, the network, and the way of its labels back."
        )
    if account.own_run_seconds is None:
        said += " Workers of a service did the work, beside what else they had to do."
    table = "" if cost is None else _costs(account.seconds, cost)
    return _section(
        "Where the time went",
        _bar(bars, "{:,.0f} s") + f"<p class='quiet small'>{said}</p>{table}",
    )


def _costs(seconds: Mapping[str, float], cost: MachineCost) -> str:
    """What each stage would have cost on a machine of its own."""
    rows = "".join(
        f"<tr><td>{escape(stage)}</td><td class='n'>{value:,.0f}</td>"
        f"<td class='n'>{cost.of(value):,.2f}</td></tr>"
        for stage, value in seconds.items()
    )
    total = sum(seconds.values())
    return (
        "<table><thead><tr><th>Stage</th><th class='n'>Seconds</th><th class='n'>Cost at"
        f" {cost.an_hour:,.2f} an hour</th></tr></thead><tbody>{rows}</tbody><tfoot><tr>"
        f"<td>One after the other</td><td class='n'>{total:,.0f}</td>"
        f"<td class='n'>{cost.of(total):,.2f}</td></tr></tfoot></table>"
    )


def _findings(findings: Mapping[str, int]) -> str:
    if not findings:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(code)}</code></td>"
        f"<td class='quiet'>{escape(describe(Reason(code)).meaning)}</td>"
        f"<td class='n'>{number:,}</td></tr>"
        for code, number in findings.items()
    )
    return _section(
        "Remarks on series",
        "<table><thead><tr><th>Remark</th><th></th><th class='n'>Series</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>",
    )


def _inputs(account: Account) -> str:
    total = account.files.get("all", 0)
    if not total:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(code)}</code></td>"
        f"<td class='quiet'>{escape(describe(Reason(code)).meaning)}</td>"
        f"<td class='n'>{number:,}</td></tr>"
        for code, number in sorted(account.files.items(), key=lambda item: -item[1])
        if code != "all"
    )
    table = (
        "<table><thead><tr><th>Files of no series, or there twice</th><th></th>"
        f"<th class='n'>Files</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    unreadable = (
        f", {account.unreadable_folders:,} of which could not be looked into"
        if account.unreadable_folders
        else ""
    )
    said = f"<p>{total:,} files in {account.folders:,} folders{unreadable}.</p>"
    return _section("What was met", said + (table if rows else ""))


def _models(account: Account) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(digest)}</code></td>"
        f"<td>{escape(precision)}</td><td class='n'>{number:,}</td></tr>"
        for name, digest, precision, number in account.models
    )
    if not rows:
        return ""
    return _section(
        "Models",
        "<table><thead><tr><th>Model</th><th>SHA-256 of its weights</th><th>Precision</th>"
        f"<th class='n'>Series</th></tr></thead><tbody>{rows}</tbody></table>",
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _bar(parts: Iterable[tuple[str, str, float]], number: str) -> str:
    shown = list(parts)
    total = sum(size for _, _, size in shown) or 1.0
    bar = "".join(
        f"<i style='width:{100 * size / total:.3f}%;background:{colour}'"
        f" title='{escape(name)}'></i>"
        for colour, name, size in shown
    )
    key = "".join(
        f"<span><i style='background:{colour}'></i>{escape(name)}"
        f" <b>{number.format(size)}</b> <span class='quiet'>{_share(size, total)}</span></span>"
        for colour, name, size in shown
    )
    return f"<div class='bar'>{bar}</div><div class='key'>{key}</div>"


def _share(part: float, whole: float) -> str:
    if not whole:
        return "–"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent in (0, 100) else f"{min(percent, 99.9):.1f} %"


def _hours(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError("unreachable")
