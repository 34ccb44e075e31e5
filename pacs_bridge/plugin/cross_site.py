"""Calls that a page of another site has a browser make, with the login of whoever looks at it.

Orthanc's users log in by HTTP authentication, which a browser adds to any call of Orthanc, whoever
wrote the page that makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

#: A page of Orthanc itself, or nobody's page (W3C Fetch Metadata 2.2).
_OWN = ("same-origin", "none")


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that the call comes from another origin; no browser says nothing.

    Browsers send Sec-Fetch-Site to https and to this machine. Elsewhere they tell the page's Origin
    (RFC 6454 7), which is compared with the host that was called; a proxy in between may tell that
    one as X-Forwarded-Host, which no page can set.

    Parameters
    ----------
    headers
        Names in lower case.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site.strip().lower() not in _OWN
    if "origin" not in headers:
        return False
    origin = _authority(headers["origin"])
    hosts = (headers.get("host", ""), headers.get("x-forwarded-host", "").partition(",")[0])
    ours = [_authority(f"//{host.strip()}") for host in hosts]
    return origin is None or origin not in ours


def _authority(url: str) -> tuple[str, int | None] | None:
    """Host and port; None where there is none, as in the origin ``null``."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return None
    return (parts.hostname, None if port in (80, 443) else port) if parts.hostname else None
