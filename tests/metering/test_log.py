"""Where log lines go."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
import structlog

from metering.config import Settings
from metering.log import configure_logging


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Other tests log as they did before."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_a_line_goes_to_standard_error_as_it_is_when_the_line_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    log = structlog.get_logger("test")
    monkeypatch.setattr(sys, "stderr", first)
    configure_logging(Settings())
    log.warning("one")
    first.close()
    monkeypatch.setattr(sys, "stderr", second)
    log.warning("two")

    assert '"event": "two"' in second.getvalue()
