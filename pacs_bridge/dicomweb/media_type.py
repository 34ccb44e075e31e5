"""Media types of HTTP headers (RFC 9110 8.3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
MULTIPART_RELATED = "multipart/related"
_KNOWN = frozenset(
    {
        DICOM,
        DICOM_JSON,
        MULTIPART_RELATED,
        "application/dicom+xml",
        "application/json",
        "application/octet-stream",
        "application/problem+json",
        "application/xml",
        "application/zip",
        "text/html",
        "text/plain",
        "text/xml",
    }
)


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type and its one parameter that matters here."""

    name: str  #: in lower case; empty if there is none
    boundary: str = ""  #: between parts

    @classmethod
    def of(cls, header: str) -> MediaType:
        """From the value of a ``Content-Type``; whatever is wrong with it leaves it empty."""
        message = Message()
        try:
            message["Content-Type"] = header
            boundary = message.get_param("boundary") or ""
            name = message.get_content_type() if "/" in header else ""
        except (ValueError, TypeError):
            return cls("")
        return cls(name.lower(), boundary if isinstance(boundary, str) else "")

    @property
    def shown(self) -> str:
        """For errors: a name that is known, nothing that a service made up."""
        return self.name if self.name in _KNOWN else "a media type unknown here"

    @property
    def is_json(self) -> bool:
        """Whether it is the DICOM JSON model (PS3.18 annex F), by either of its names."""
        return self.name in (DICOM_JSON, "application/json")
