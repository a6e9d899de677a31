"""Whatever is sent, the answer is never a 5xx, and a 4xx says why."""

from __future__ import annotations

import string
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.content import BATCH, EVENT, PLAIN

GOOD = {
    "specversion": "1.0",
    "id": "1",
    "source": "urn:fuzz",
    "type": "flight",
    "subject": "UA",
    "time": "2013-06-01T11:00:00Z",
    "data": {"distance": 1, "origin": "JFK"},
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ALMOST_EVENTS = st.dictionaries(
    st.sampled_from([*GOOD, "extra"]), JSON_VALUES | st.sampled_from(list(GOOD.values())), max_size=4
).map(lambda changes: {**GOOD, **changes})


def encode(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()


BODIES = st.one_of(
    st.binary(max_size=300),
    ALMOST_EVENTS.map(encode),
    st.lists(ALMOST_EVENTS | JSON_VALUES, max_size=4).map(encode),
    st.tuples(ALMOST_EVENTS.map(encode), st.integers(0, 200), st.binary(min_size=1, max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
    ),
)
CONTENT_TYPES = st.sampled_from([EVENT, BATCH, PLAIN, f"{EVENT}; charset=utf-8", f"{PLAIN};charset=", "text/plain"])
HEADER_VALUES = st.text(string.printable[:95] + "é%", max_size=20).map(lambda text: text.strip().encode("latin-1"))
HEADERS = st.dictionaries(
    st.sampled_from([b"ce-id", b"ce-source", b"ce-specversion", b"ce-type", b"ce-subject", b"ce-time", b"ce-x-y"]),
    HEADER_VALUES,
    max_size=7,
)
CODINGS = st.sampled_from([b"", b"", b"", b"gzip", b"zstd", b"identity", b"nonsense"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, content_type=CONTENT_TYPES, headers=HEADERS, coding=CODINGS, partial=st.booleans())
def test_bad_input_is_never_a_5xx(
    *, gateway: Any, body: bytes, content_type: str, headers: dict[bytes, bytes], coding: bytes, partial: bool
) -> None:
    sent = [
        (b"content-type", content_type.encode()),
        *headers.items(),
        *([(b"content-encoding", coding)] if coding else []),
    ]

    answer = httpx.post(
        f"{gateway.url}/v1/events", content=body, headers=sent, params={"partial": str(partial).lower()}, timeout=30
    )

    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"]
        assert problem["detail"]
        assert problem["fix"]
