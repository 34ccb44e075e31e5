"""Commands of the two services that the listener offers: C-STORE and C-ECHO (PS3.7 9.3).

A command set is always Implicit VR Little Endian (PS3.7 6.3.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_ELEMENT = struct.Struct("<HHI")
_COMMAND_GROUP = 0x0000
_NO_DATA_SET = 0x0101
_IS_RESPONSE = 0x8000

_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_RESPONDED_TO = 0x0120
_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_MAX_COMMENT = 64  # VR LO


class CommandField(IntEnum):
    """PS3.7 E.1."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF


class CommandError(Exception):
    """A command set that cannot be read."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request."""

    field: int
    message_id: int
    affected_sop_class_uid: str
    affected_sop_instance_uid: str
    has_data_set: bool


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered to a request."""

    status: int
    comment: str = ""  #: free of patient data; cut after 64 characters


def decode_command(data: bytes) -> Command:
    """A request from its encoded command set.

    Raises
    ------
    CommandError
        If it is cut, not a command set, or without one of the fields that every request has.
    """
    values = dict(_elements(data))
    try:
        return Command(
            field=_number(values[_COMMAND_FIELD]),
            message_id=_number(values.get(_MESSAGE_ID, b"\0\0")),
            affected_sop_class_uid=_uid(values.get(_AFFECTED_SOP_CLASS_UID, b"")),
            affected_sop_instance_uid=_uid(values.get(_AFFECTED_SOP_INSTANCE_UID, b"")),
            has_data_set=_number(values[_DATA_SET_TYPE]) != _NO_DATA_SET,
        )
    except (KeyError, struct.error) as error:
        raise CommandError("a command field is missing or has the wrong length") from error


def encode_response(command: Command, response: Response) -> bytes:
    """The command set that answers ``command`` (PS3.7 tables 9.3-2 and 9.3-13)."""
    body = b""
    if command.affected_sop_class_uid:
        body += _element(_AFFECTED_SOP_CLASS_UID, _text(command.affected_sop_class_uid, b"\0"))
    body += _element(_COMMAND_FIELD, struct.pack("<H", command.field | _IS_RESPONSE))
    body += _element(_MESSAGE_ID_RESPONDED_TO, struct.pack("<H", command.message_id))
    body += _element(_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET))
    body += _element(_STATUS, struct.pack("<H", response.status))
    if response.comment:
        body += _element(_ERROR_COMMENT, _text(response.comment[:_MAX_COMMENT], b" "))
    if command.affected_sop_instance_uid:
        uid = _text(command.affected_sop_instance_uid, b"\0")
        body += _element(_AFFECTED_SOP_INSTANCE_UID, uid)
    return _element(0x0000, struct.pack("<I", len(body))) + body


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if len(data) - at < _ELEMENT.size:
            raise CommandError("a cut element")
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if group != _COMMAND_GROUP:
            raise CommandError(f"group {group:#06x} in a command set")
        if length > len(data) - at:
            raise CommandError(f"element {element:#06x} is longer than its command set")
        yield element, data[at : at + length]
        at += length


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(_COMMAND_GROUP, element, len(value)) + value


def _number(value: bytes) -> int:
    return int(struct.unpack("<H", value)[0])


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")


def _text(value: str, padding: bytes) -> bytes:
    encoded = value.encode("ascii", "replace")
    return encoded if len(encoded) % 2 == 0 else encoded + padding
