"""From an HTTP request to what the engine is asked: URL, headers, form fields, encodings."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl, urlsplit

import zstandard

from metering.embedded.clickhouse_ask import Ask
from metering.embedded.clickhouse_statement import DEFAULT_FORMAT, NOT_IMPLEMENTED, StatementError, refusal

CANNOT_PARSE = 6
BAD_ARGUMENTS = 36

# Parameters of the interface itself; every other one is a setting of the query.
INTERFACE_PARAMETERS = frozenset(
    {
        "add_http_cors_header",
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session",
        "database",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "http_zlib_compression_level",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
# An insert here is always done when it is answered, which is more than these ask for.
ALWAYS_SYNCHRONOUS = frozenset({"async_insert", "wait_for_async_insert"})


def read_ask(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[Ask, dict[str, str]]:
    """Read a request for the query handler; gives the ask and the interface's own parameters.

    Raises StatementError for what cannot be understood or is not offered here.
    """
    try:
        given = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True, errors="strict"))
    except (UnicodeDecodeError, ValueError) as error:
        raise refusal(CANNOT_PARSE, "CANNOT_PARSE_TEXT", f"The URL's parameters cannot be read: {error}") from error
    body = inflate(body, headers.get("content-encoding", ""))
    if headers.get("content-type", "").startswith("multipart/form-data"):
        given.update(_form_fields(headers["content-type"], body))
        body = b""
    for refused in ("compress", "decompress"):
        if given.pop(refused, "0") not in ("0", "false"):
            raise refusal(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", f"{refused}=1 is not offered here, use Content-Encoding")
    query = given.get("query", "").encode()
    in_url = bool(query.strip())
    ask = Ask(
        query=query if in_url else body,
        data=body if in_url else b"",
        database=given.get("database", "") or headers.get("x-clickhouse-database", ""),
        settings={
            name: value
            for name, value in given.items()
            if name not in INTERFACE_PARAMETERS and name not in ALWAYS_SYNCHRONOUS and not name.startswith("param_")
        },
        parameters={name[6:]: value for name, value in given.items() if name.startswith("param_")},
        format=given.get("default_format") or headers.get("x-clickhouse-format") or DEFAULT_FORMAT,
        read_only=method in ("GET", "HEAD"),
        session_id=given.get("session_id", ""),
        session_check=given.get("session_check", "0") == "1",
        session_timeout_s=_seconds(given.get("session_timeout", "60")),
    )
    return ask, {name: value for name, value in given.items() if name in INTERFACE_PARAMETERS}


def inflate(body: bytes, encoding: str) -> bytes:
    """Undo a Content-Encoding. Raises StatementError for one that is unknown or does not fit the bytes."""
    try:
        match encoding.strip().lower():
            case "" | "identity":
                return body
            case "gzip" | "x-gzip":
                return gzip.decompress(body)
            case "deflate":
                return zlib.decompress(body)
            case "zstd":
                return zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
            case "lz4":
                import lz4.frame  # type: ignore[import-untyped]

                return bytes(lz4.frame.decompress(body))
            case unknown:
                raise refusal(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", f"Unknown Content-Encoding {unknown!r}")
    except StatementError:
        raise
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, RuntimeError) as error:
        raise refusal(CANNOT_PARSE, "CANNOT_DECOMPRESS", f"The body is no {encoding} data: {error}") from error


def _form_fields(content_type: str, body: bytes) -> dict[str, str]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None or not isinstance(name, str):
            raise refusal(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", "External tables are not offered here")
        content = part.get_payload(decode=True)
        fields[name] = content.decode("utf-8") if isinstance(content, bytes) else ""
    return fields


def _seconds(text: str) -> float:
    if not text.isascii() or not text.isdigit():
        raise refusal(BAD_ARGUMENTS, "INVALID_SESSION_TIMEOUT", f"Invalid session timeout: {text!r}")
    return min(float(text), 3_600.0)
