"""A DICOMweb service of a peer: where it is, and how we say who we are."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pacs_bridge.config.section import UNREPEATED, Section, resolved


def checked_url(value: str) -> str:
    """The address of a service, without a slash at its end.

    Raises
    ------
    PydanticCustomError
        If it is not an http or https address, or holds what does not belong there: a password in
        a configuration is a password in every copy of it.
    """
    if "@" in value:  # wherever it ends up: a password may hold what else ends the host's name
        raise PydanticCustomError(
            UNREPEATED, "no user or password belongs into it: see auth (of a path, @ is %40)"
        )
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:  # its text quotes the address
        raise PydanticCustomError(UNREPEATED, "its host or port cannot be told") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PydanticCustomError(UNREPEATED, "not an http or https address")
    if parts.query or parts.fragment:
        raise PydanticCustomError(UNREPEATED, "no query belongs into it")
    return value.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host, as an address names it, is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class TlsConfig(Section):
    """What certificates are believed, and which one we show.

    The files are read again when they change, as those of credentials are.
    """

    #: Certificates of the authorities to believe, PEM; None: those of the system.
    ca_file: Path | None = None
    certificate_file: Path | None = None  #: ours, PEM, for a service that asks for one
    key_file: Path | None = None  #: of it; None: in the same file

    @field_validator("ca_file", "certificate_file", "key_file")
    @classmethod
    def _from_the_file(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        return file if file is None else resolved(file, info)

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> TlsConfig:
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file without certificate_file")
        return self


class AuthConfig(Section):
    """Credentials: a bearer token, or a user and a password; both secrets are read from files.

    The files are read again when they change, so that whoever renews them restarts nothing.
    """

    token_file: Path | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password_file: Path | None = None

    @field_validator("token_file", "password_file")
    @classmethod
    def _from_the_file(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        return file if file is None else resolved(file, info)

    @model_validator(mode="after")
    def _one_way(self) -> AuthConfig:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if self.token_file is not None and self.user is not None:
            raise ValueError("either token_file or user and password_file")
        if self.user is not None and ":" in self.user:
            raise ValueError("a user's name holds no colon (RFC 7617)")
        return self


class WebServiceConfig(Section):
    """A DICOMweb service (PS3.18): what all of its uses need."""

    #: Without ``/studies``: ``https://pacs.example.org/dicom-web``.
    url: Annotated[str, AfterValidator(checked_url)]
    auth: AuthConfig = AuthConfig()
    tls: TlsConfig = TlsConfig()
    #: Allow http beyond this machine: images and credentials can then be read on the way.
    allow_plain_http: bool = False
    connect_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    #: Between a request and the beginning of its answer, and between two pieces of it.
    response_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0

    @model_validator(mode="after")
    def _cannot_be_overheard(self) -> WebServiceConfig:
        parts = urlsplit(self.url)
        is_exposed = parts.scheme == "http" and not is_loopback(parts.hostname or "")
        if is_exposed and not self.allow_plain_http:
            raise ValueError("url: http beyond this machine; use https, or allow_plain_http = true")
        return self

    @property
    def is_renewable(self) -> bool:
        """Whether we show a service what somebody may renew: it is always in a file."""
        shown = (self.auth.token_file, self.auth.password_file, self.tls.certificate_file)
        return any(file is not None for file in shown)

    def files(self) -> tuple[tuple[str, Path], ...]:
        """Every file that is named here, with its key."""
        named = (
            ("auth.token_file", self.auth.token_file),
            ("auth.password_file", self.auth.password_file),
            ("tls.ca_file", self.tls.ca_file),
            ("tls.certificate_file", self.tls.certificate_file),
            ("tls.key_file", self.tls.key_file),
        )
        return tuple((key, file) for key, file in named if file is not None)
