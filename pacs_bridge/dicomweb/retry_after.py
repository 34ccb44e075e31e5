"""How long a service asks to be left alone (RFC 9110 10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Nobody means to be left alone for longer; a clock that is wrong does.
MAX_WAIT_S = 3600.0


def retry_after_s(header: str | None, now: datetime) -> float:
    """Seconds from ``now``, at most an hour; 0 where nothing, or nothing sensible, is asked for.

    Parameters
    ----------
    header
        A number of seconds or an HTTP date; None without one.
    now
        UTC.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_WAIT_S)
    try:
        then = parsedate_to_datetime(text)
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        wait_s = (then - now).total_seconds()
    except (ValueError, TypeError, ArithmeticError, LookupError):
        return 0.0
    return min(max(wait_s, 0.0), MAX_WAIT_S)
