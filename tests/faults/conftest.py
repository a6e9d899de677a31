"""One stack a test: its own log, its own database, and workers that end with it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from metering.config import Settings
from tests.support.worker_process import Stack, stack_of


@pytest.fixture
def stack(service_settings: Settings) -> Iterator[Stack]:
    settings = msgspec.structs.replace(service_settings, kafka_partitions=2, flush_events_max=400, flush_interval_s=0.2)
    with stack_of(settings) as one:
        yield one
