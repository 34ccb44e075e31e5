"""The account as tables: a row a series, as CSV and as Parquet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pacs_bridge.archive.accounts import SeriesLine
from pacs_bridge.stopwatch import Stage

_ROWS_AT_ONCE: Final = 10_000
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_TEXT: Final = (
    *("series_instance_uid", "study_instance_uid", "source", "state", "reason", "detail"),
    *("findings", "result", "model", "model_digest", "ended_at"),
)
_COUNTS: Final = (
    *("number", "instances", "planes", "source_bytes", "outputs", "output_bytes"),
    *("structures", "peak_memory_bytes"),
)
_SECONDS: Final = tuple(f"{stage}_s" for stage in Stage)


class ParquetMissingError(Exception):
    """The library that writes Parquet is not installed."""


def write_csv(lines: Iterable[SeriesLine], path: Path) -> None:
    """Write the account as CSV with a header line.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*_COUNTS, *_TEXT, *_SECONDS))
        writer.writeheader()
        for line in lines:
            writer.writerow({name: _cell(value) for name, value in _record(line).items()})


def _cell(value: Any) -> Any:
    """A value as a spreadsheet shows it: a text is never a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def write_parquet(lines: Iterable[SeriesLine], path: Path) -> None:
    """Write the account as Parquet, a piece at a time.

    Raises
    ------
    ParquetMissingError
        If pyarrow is not installed.
    OSError
        If the file cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ParquetMissingError(
            "Parquet needs pyarrow: pip install 'pacs-bridge[archive]'"
        ) from error
    schema = pa.schema(
        [(name, pa.int64()) for name in _COUNTS]
        + [(name, pa.string()) for name in _TEXT]
        + [(name, pa.float64()) for name in _SECONDS]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _pieces(lines):
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _pieces(lines: Iterable[SeriesLine]) -> Iterator[list[dict[str, Any]]]:
    waiting = iter(lines)
    while rows := [_record(line) for line in islice(waiting, _ROWS_AT_ONCE)]:
        yield rows


def _record(line: SeriesLine) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(line, name) for name in (*_COUNTS, *_TEXT)}
    record["findings"] = " ".join(line.findings)
    return record | {f"{stage}_s": line.seconds.get(stage) for stage in Stage}
