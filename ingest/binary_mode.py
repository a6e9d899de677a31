"""CloudEvents in HTTP binary mode: attributes in `ce-` headers, data in the body; made into one structured JSON event.

Source: CloudEvents HTTP protocol binding 1.0.2, section 3.1. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

PREFIX: Final = "ce-"
_NAME = re.compile("[a-z0-9]{1,64}", re.ASCII)
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NOT_ATTRIBUTES: Final = frozenset({"data", "database64", "datacontenttype"})
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode


class BinaryModeError(ValueError):
    """The headers or the body cannot be one event; `field` names the attribute."""

    def __init__(self, field: str, what: str) -> None:
        self.field = field
        super().__init__(what)


def is_binary_mode(names: Iterable[str]) -> bool:
    """Whether any of the (lower case) header names is a CloudEvents attribute."""
    return any(name.startswith(PREFIX) for name in names)


def structured_event(headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """The structured JSON of a binary-mode request with a JSON body; an empty body is an event without data.

    `headers` are (lower case name, value as Latin-1 text); the body's bytes go in untouched.
    Raises BinaryModeError.
    """
    attributes: dict[str, str] = {}
    for header, value in headers:
        if not header.startswith(PREFIX):
            continue
        name = header[len(PREFIX) :]
        if _NAME.fullmatch(name) is None or name in _NOT_ATTRIBUTES:
            raise BinaryModeError(name[:64], f"the header {header[:80]!r} is no CloudEvents attribute")
        if name in attributes:
            raise BinaryModeError(name, f"the header {header!r} is given twice")
        attributes[name] = _decode_value(name, value)
    data = body.strip(b" \t\r\n")
    if not data:
        return msgspec.json.encode(attributes)
    # Without this check a body such as `1,"id":"other"` would write attributes of its own.
    try:
        _decode_raw(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BinaryModeError("data", f"the body is not one JSON document ({error})") from error
    attributes["datacontenttype"] = "application/json"
    return msgspec.json.encode(attributes)[:-1] + b',"data":' + data + b"}"


def _decode_value(name: str, value: str) -> str:
    """Undo quoting and percent-encoding. The specification would show a broken sequence as U+FFFD; a bill must not."""
    quoted = _QUOTED.fullmatch(value)
    if quoted:
        value = _ESCAPED.sub(r"\1", quoted.group(1))
    if _BAD_ESCAPE.search(value):
        raise BinaryModeError(name, f"ce-{name} has a % that two hexadecimal digits do not follow")
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BinaryModeError(name, f"ce-{name} is not valid UTF-8 once percent-decoded") from error
