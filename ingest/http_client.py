"""What everything of ours that calls a gateway says and hears in headers."""

from __future__ import annotations

from typing import Final

import httpx

RETRY_AFTER_S_MAX: Final = 30.0


def key_header(api_key: str) -> dict[str, str]:
    """The header that shows an API key; none without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def asked_pause_s(response: httpx.Response) -> float | None:
    """The pause that Retry-After asks for, in seconds; None without one."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), RETRY_AFTER_S_MAX) if text.isascii() and text.isdigit() else None
