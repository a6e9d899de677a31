"""One stack a test: its own log, its own database, and workers that end with it. A failure says how to replay it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import msgspec
import pytest

from metering.config import Settings
from tests.support.fault_numbers import IS_SHORT, LEFT_OUT_OF_SHORT, replay_command
from tests.support.fault_stack import FaultStack, evict, fault_stack_of
from tests.support.worker_process import Stack, stack_of


@pytest.fixture
def stack(service_settings: Settings) -> Iterator[Stack]:
    settings = msgspec.structs.replace(service_settings, kafka_partitions=2, flush_events_max=400, flush_interval_s=0.2)
    with stack_of(settings) as one:
        yield one
    # A killed worker stays a member until its session times out; the next test is not about that.
    evict(settings)


@pytest.fixture
def faulty(service_settings: Settings) -> Iterator[FaultStack]:
    with fault_stack_of(service_settings) as one:
        yield one


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not IS_SHORT:
        return
    left_out = [one for one in items if getattr(one, "originalname", "") in LEFT_OUT_OF_SHORT]
    items[:] = [one for one in items if one not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A random run that failed is worth nothing if it cannot be had again."""
    report = yield
    seed = item.callspec.params.get("seed") if hasattr(item, "callspec") else None
    if report.failed and isinstance(seed, int):
        report.sections.append(("seed and replay", f"seed {seed}: {replay_command(item.nodeid, seed)}"))
    return report
