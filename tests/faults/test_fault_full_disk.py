"""A full disk under the log, the database or an export stops the work, and loses and tears nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from billing_export import runs
from billing_export.export import FILE_NAMES, ExportFormat, Several, Totals, write_files
from billing_export.export_focus import FocusOptions
from billing_export.export_lines import Documents
from metering.clickhouse import ensure_database
from metering.config import Settings
from metering.embedded.clickhouse import EmbeddedClickHouse
from metering.embedded.kafka import EmbeddedKafka
from metering.testing import ClickHouseUnderTest
from schemas.errors import RunError
from tests.support.fault_numbers import EVENTS, seeds
from tests.support.fault_proof import prove
from tests.support.fault_stack import Sender, fault_stack_of, made_events
from tests.support.invariants import wait_for
from tests.support.made_billing import close, store_world
from tests.support.made_usage import UsageTables, usage_tables
from tests.support.plain_log import made_log
from tests.support.small_disk import SmallDisk, small_disk

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 512 * MIB) as one:
        yield one


@pytest.fixture(scope="module")
def closed_january(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as tables:
        store_world(tables)
        close(tables.client)
        yield tables


@pytest.mark.parametrize("format_", list(ExportFormat))
def test_f15_an_export_to_a_full_disk(closed_january: UsageTables, disk: SmallDisk, format_: ExportFormat) -> None:
    """F15. An export to a full disk says so and leaves the earlier file as it was; with room it is written whole."""
    folder = disk.folder / "export"
    folder.mkdir()
    file = folder / FILE_NAMES[format_]
    (run,) = runs.frozen(closed_january.client, "2013-01")
    focus = FocusOptions(provider="Us")

    def export() -> bytes:
        write_files(Several([Documents(closed_january.client, run)]), {format_: file}, totals=Totals(), focus=focus)
        return file.read_bytes()

    whole = export()
    with disk.full(), pytest.raises(RunError) as caught:
        export()

    assert str(file) in str(caught.value)
    assert [one.name for one in folder.iterdir()] == [file.name]
    assert file.read_bytes() == whole
    assert export() == whole


@pytest.mark.parametrize("seed", seeds())
def test_f15_a_worker_whose_clickhouse_has_a_full_disk(service_settings: Settings, disk: SmallDisk, seed: int) -> None:
    """F15. A worker whose ClickHouse has no room left waits, says so, and goes on by itself once there is room."""
    log = made_log(seed, EVENTS // 2, prefix="room")
    half = len(log) // 2
    with EmbeddedClickHouse(disk.folder / "clickhouse") as server:
        settings = msgspec.structs.replace(
            service_settings,
            clickhouse_url=server.url,
            clickhouse_username="default",
            clickhouse_password="",
        )
        ensure_database(settings)
        with fault_stack_of(settings) as stack:
            worker = stack.worker()
            stack.produce(log[:half])
            stack.settle(worker)
            with disk.full(server.pid):
                stack.produce(log[half:])
                wait_for("a refused insert", lambda: "waiting for a service" in worker.said)
                time.sleep(1.0)
                stood = stack.folded_count()
                assert worker.returncode is None, worker.said
            stack.settle(worker)

            assert stood < len(log)
            assert worker.terminate() == 0
            prove(stack, log)


@pytest.mark.parametrize("seed", seeds())
def test_f15_a_broker_with_a_full_disk(service_settings: Settings, disk: SmallDisk, seed: int) -> None:
    """F15. While the broker's disk is full the gateway answers 503; started with room it has all that was accepted."""
    log = made_events(seed, EVENTS // 2, prefix="disk")
    half = len(log) // 2
    broker = EmbeddedKafka(disk.folder / "kafka", log_path=disk.folder.parent / "kafka.log")
    broker.start()
    try:
        settings = msgspec.structs.replace(
            service_settings,
            kafka_servers=broker.bootstrap,
        )
        with fault_stack_of(settings) as stack:
            stack.gateway(kafka_delivery_timeout_s=2.0)
            worker = stack.worker()
            sender = Sender(stack)
            sender.send(log[:half])
            stack.settle(worker)
            later = Sender(stack)
            with disk.full(broker.pid):
                later.start(log[half:])
                wait_for("an answer that the log takes nothing", lambda: later.answers[503])
                broker.kill()
            broker.start()
            later.join()
            # Its log directory gone, a worker may end with 70; whoever supervises it starts another.
            workers = [worker] if worker.returncode is None else [stack.worker()]
            stack.settle(*workers)

            assert set(later.answers) <= {0, 200, 503}
            assert workers[0].terminate() in {0, 70, 75}, workers[0].said
            prove(stack, log, [*sender.accepted, *later.accepted], overlaps=True)
    finally:
        broker.kill()
