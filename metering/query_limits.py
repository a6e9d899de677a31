"""What one question over HTTP may cost ClickHouse, and what is said when it would cost more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from clickhouse_connect.driver.exceptions import ClickHouseError

from metering.config import Settings, variable_of
from schemas.errors import LimitError

_MET: Final = {
    "TOO_MANY_ROWS": ("query_read_rows_max", "the question reads more than {} rows"),
    "TIMEOUT_EXCEEDED": ("query_time_s_max", "the question takes longer than {} s"),
    "Query memory limit exceeded": ("query_memory_bytes_max", "the question takes more than {} bytes of memory"),
}
"""What ClickHouse's error says when a limit of ours is met: the setting, and what to say instead. Memory that the
whole server has run out of is another error."""


def query_limits(settings: Settings) -> dict[str, int]:
    """ClickHouse's settings for one question; there 0 stands for no limit, too."""
    return {
        "max_rows_to_read": settings.query_read_rows_max,
        "max_execution_time": settings.query_time_s_max,
        "max_memory_usage": settings.query_memory_bytes_max,
    }


@contextmanager
def within_limits(settings: Settings) -> Iterator[None]:
    """Turn ClickHouse's errors about the limits into LimitError; leave all others as they are."""
    try:
        yield
    except ClickHouseError as error:
        for words, (setting, what) in _MET.items():
            if words in str(error):
                raise LimitError(
                    what.format(getattr(settings, setting)),
                    setting=setting,
                    fix=f"Ask for a shorter range or fewer customers, or raise {variable_of(setting)}",
                ) from error
        raise
