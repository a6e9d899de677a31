"""The product on two shards of real engines; `tests/support/clickhouse_nodes.py` says what they have a stand-in for."""

# ruff: noqa: S608 - statements are made of constants
from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.httpclient import HttpClient

import metering.clickhouse
from aggregators.erase import Erasing
from aggregators.erase_rows import delete_rows
from aggregators.rebuild import Rebuild
from billing_export.verify import verify_period
from metering import catalog_store, cluster_client
from metering.catalog_file import parse_catalog
from metering.clickhouse import connect, ensure_database
from metering.clock import FixedClock
from metering.cluster_client import Layout, delete_where, read_layout, refuse_other_shape
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from metering.usage.answer import answer
from metering.usage.recount import recount
from schemas.errors import RequestError, SettingError
from schemas.usage_query import By, Cut, Position, UsageQuery
from tests.support.clickhouse_nodes import CLUSTER, Nodes, client_class, hand_on, two_shards
from tests.support.made_billing import CATALOG as BILLED_TEXT
from tests.support.made_billing import CLOCK, JANUARY, LINES, at, close, fold
from tests.support.made_usage import UsageTables, usage_tables
from tests.support.pipeline_rig import NOW, CrashError, Life, check, crash_in, life
from tests.support.plain_log import CATALOG, expected, made_log

VIEWS = (
    "usage_15m",
    "usage_monthly",
    "kpi_active_users",
    "business_facts",
    "usage_other",
    "pipeline_freshness",
)
"""Views that read spread tables: states and members, events without corrections, overflows, events with the ledger."""

MADE_LOG = made_log(1, 200, prefix="plain")
BILLED = parse_catalog(BILLED_TEXT)
BOTH = msgspec.structs.replace(BILLED, meters=(*BILLED.meters, *CATALOG.meters), event_types=CATALOG.event_types)
SPLIT = (at("2013-01-01T05:07"), at("2013-01-15T12:00:30"))
"""A span that begins and ends inside windows: the members of both subjects have to be told apart by name."""


def costs_and_many_values(tables: UsageTables) -> None:
    """What campaigns cost, one of them taken back, and days that had more values of a dimension than a meter takes."""
    cost = '{"type": "sales.cost", "data": {"amount": "1.5", "currency": "EUR"}}'
    campaigns = [f"campaign-{number}" for number in range(6)]
    tables.client.insert(
        "events",
        [(one, "/crm", "1", "sales.cost", NOW, "facts", 0, offset, cost) for offset, one in enumerate(campaigns)],
        column_names=["subject", "source", "id", "type", "time", "epoch", "partition", "offset", "raw"],
    )
    tables.client.insert(
        "corrections",
        [("campaign-3", "/crm", "1", "facts", 0, 9)],
        column_names=["subject", "source", "id", "epoch", "partition", "offset"],
    )
    names = [f"many-{number}" for number in range(6)]
    tables.client.insert(
        "group_overflows",
        [("x", one, NOW.date(), "kind", ["a", "other"]) for one in names],
        column_names=["meter", "subject", "day", "dimension", "kept"],
    )
    tables.client.insert(
        "rollups",
        [("x", one, NOW, {"kind": "other"}, 3) for one in names],
        column_names=["meter", "subject", "window_start", "dimensions", "events_count"],
    )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_shards(tmp_path_factory.mktemp("nodes")) as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(metering.clickhouse, "ClusterClient", client_class(found))
        yield found


@pytest.fixture(scope="module")
def worlds(nodes: Nodes, clickhouse: ClickHouseUnderTest) -> Iterator[tuple[UsageTables, UsageTables]]:
    """One server's tables, and a cluster's: a log folded by two workers, then a month to bill.

    The first worker dies between rollups and ledger; while the second is at work, a shard is away.

    The two subjects of one customer of the month are on different shards.
    """
    settings = nodes.settings("spread")
    ensure_database(settings)
    client = connect(settings)
    migrate(client, cluster=CLUSTER)
    hand_on(nodes, "spread")
    with usage_tables(clickhouse) as alone:
        spread = UsageTables(client, settings)
        for tables in (alone, spread):
            catalog_store.apply(tables.client, CATALOG, clock=FixedClock(NOW), applied_by="test")
            crash_in(tables.settings, "plain", "rollups", 2, lambda one: one.run(MADE_LOG, seed=1), flush_events_max=30)
            with life(tables.settings, "plain", flush_events_max=70) as worker:
                if tables is spread:
                    run_while_a_shard_is_away(nodes, worker, tables.client)
                else:
                    worker.run(MADE_LOG, batch_max=60, seed=2)
            catalog_store.apply(tables.client, BOTH, clock=CLOCK, applied_by="test")
            # The log before is nobody's usage of the month's meters, and the ledger made up here: both count as filled.
            filled = [
                (one.name, 1, *place, 1000)
                for one in BILLED.meters
                for place in (("plain", 0), ("plain", 1), ("log-1", 0))
            ]
            columns = ["meter", "meter_version", "epoch", "partition", "until"]
            tables.client.insert("meter_fills", filled, column_names=columns)
            fold(tables, JANUARY)
            costs_and_many_values(tables)
        yield alone, spread
    client.close()


def run_while_a_shard_is_away(nodes: Nodes, worker: Life, client: Client) -> None:
    """The worker gets the log while half the cluster is dead: it waits, and goes on where it was."""
    starts = worker.take_over(0, 1)
    with nodes.away(1):
        with pytest.raises(DatabaseError):
            client.query("SELECT count() FROM rollups")
        for number, start in starts.items():
            worker.put([one for one in MADE_LOG if one.partition == number and one.offset >= start])
        deadline_s = time.monotonic() + 120
        while not worker.store.waiting_for:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    worker.drain()


@pytest.fixture
def spread(worlds: tuple[UsageTables, UsageTables]) -> UsageTables:
    return worlds[1]


def rows(client: Client, statement: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in client.query(statement).result_rows]


def of_each_node(nodes: Nodes, statement: str) -> list[list[tuple[object, ...]]]:
    """What a tool without any setting of ours gets from each node."""
    found = []
    for node in (0, 1):
        anybody = nodes.plain_client("spread", node)
        found.append(rows(anybody, statement))
        anybody.close()
    return found


def test_a_log_comes_to_what_it_must_though_a_worker_died_and_a_shard_was_away(
    spread: UsageTables,
) -> None:
    check(spread.client, "plain", expected(MADE_LOG))


@pytest.mark.usefixtures("worlds")
@pytest.mark.parametrize("table", ["events", "rollups", "members", "dead_letters"])
def test_each_row_is_on_one_shard_and_each_shard_has_some(nodes: Nodes, table: str) -> None:
    first, second = of_each_node(nodes, f"SELECT DISTINCT cityHash64(tuple(*)) FROM {table}_local")

    assert first
    assert second
    assert not {*first} & {*second}


def test_what_is_answered_is_on_the_shards_and_in_no_queue(nodes: Nodes, spread: UsageTables) -> None:
    """The ledger is written next, and says that all of it is there."""
    names = [f"quick-{number}" for number in range(20)]
    spread.client.insert(
        "rollups", [("x", one, NOW) for one in names], column_names=["meter", "subject", "window_start"]
    )

    first, second = of_each_node(nodes, "SELECT subject FROM rollups_local WHERE startsWith(subject, 'quick-')")

    assert first
    assert second
    assert sorted(first + second) == sorted((one,) for one in names)


def test_a_row_that_is_written_again_replaces_itself_on_its_shard(spread: UsageTables) -> None:
    columns = ["meter", "subject", "window_start", "position"]
    for position in (5, 9, 7):
        again = [("x", f"again-{number}", NOW, position) for number in range(9)]
        spread.client.insert("rollups", again, column_names=columns)

    found = rows(spread.client, "SELECT position FROM rollups FINAL WHERE startsWith(subject, 'again-')")

    assert found == [(9,)] * 9


def test_rows_of_a_subject_are_taken_out_on_every_shard(spread: UsageTables) -> None:
    gone, kept = [f"gone-{number}" for number in range(9)], [f"kept-{number}" for number in range(9)]
    written = [("x", one, NOW) for one in (*gone, *kept)]
    spread.client.insert("rollups", written, column_names=["meter", "subject", "window_start"])

    delete_rows(spread.client, gone)

    left = rows(spread.client, "SELECT subject FROM rollups WHERE match(subject, '^(gone|kept)-') ORDER BY subject")
    assert left == [(one,) for one in kept]


def test_a_month_is_closed_and_verified_on_two_shards_as_on_one_server(
    worlds: tuple[UsageTables, UsageTables],
) -> None:
    done = []
    for tables in worlds:
        close(tables.client)
        done.append(verify_period(tables.client, "2013-01"))

    alone, spread = done
    assert alone.differences == spread.differences == ()
    assert (spread.lines_count, spread.events_count) == (alone.lines_count, alone.events_count)
    found = rows(worlds[1].client, "SELECT customer, charge, dimensions['region'], amount FROM line_items FINAL")
    assert set(found) == {(line[0], line[1], line[2], Decimal(line[5])) for line in LINES}
    assert len(found) == len(LINES)


def test_wrong_rollups_are_found_and_mended_on_two_shards_as_on_one_server(
    worlds: tuple[UsageTables, UsageTables],
) -> None:
    one_more = "SELECT * REPLACE (events_count + 1 AS events_count) FROM rollups FINAL WHERE meter = 'calls'"
    found = []
    for tables in worlds:
        tables.client.command(f"INSERT INTO rollups {one_more}")
        connected = partial(connected_to, tables.settings)
        catalog = catalog_store.load(tables.client, 2)
        found.append(Rebuild(connected, catalog, ["calls", "users"]).run(write=True))
        assert Rebuild(connected, catalog, ["calls", "users"]).run(write=False).is_same
        assert rows(tables.client, "SELECT name FROM system.databases WHERE match(name, '_rebuild_')") == []

    alone, spread = found
    assert spread.events_plain == 0
    assert spread == msgspec.structs.replace(alone, events_plain=0)
    [rollups] = [one for one in spread.differences if one.table == "rollups"]
    assert rollups.surplus > 40


def test_a_single_event_is_taken_out_of_the_shard_that_has_it(spread: UsageTables) -> None:
    columns = ["subject", "source", "id", "epoch", "partition", "offset"]
    doubled = [(subject, "/crm", "1", "doubled", partition, 7) for subject in ("s1", "s2") for partition in (0, 1)]
    spread.client.insert("events", doubled, column_names=columns)

    for place in (("s1", 1), ("s2", 0)):
        where = "epoch = 'doubled' AND subject = {subject:String} AND partition = {partition:UInt32}"
        delete_where(spread.client, "events", where, dict(zip(("subject", "partition"), place, strict=True)))

    asked = "SELECT subject, partition FROM events WHERE epoch = 'doubled' ORDER BY subject"
    assert rows(spread.client, asked) == [("s1", 0), ("s2", 1)]
    delete_where(spread.client, "events", "epoch = {epoch:String}", {"epoch": "doubled"})
    assert rows(spread.client, asked) == []


def test_an_erasure_is_refused_before_it_changes_anything(spread: UsageTables) -> None:
    eraser = Erasing(
        connect=lambda: spread.client,
        clock=CLOCK,
        by="test",
        workers=lambda: 0,
        sleep=lambda _seconds: None,
        workers_wait_s=1.0,
        settle_s=0.0,
    )

    with pytest.raises(RequestError, match="an erasure cannot be made on a cluster"):
        eraser.erase("acme")

    assert rows(spread.client, "SELECT count() FROM erasures") == [(0,)]


def connected_to(settings: Settings, database: str | None) -> Client:
    return connect(settings, database=database)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_answers_whoever_asks_any_node_as_one_server_does(
    nodes: Nodes, worlds: tuple[UsageTables, UsageTables], view: str
) -> None:
    unlike = " EXCEPT (flushed_at)" if view == "pipeline_freshness" else ""
    asked = f"SELECT *{unlike} FROM {view} ORDER BY ALL"
    alone = rows(worlds[0].client, asked)

    assert of_each_node(nodes, asked) == [alone, alone]


@pytest.mark.parametrize(
    ("meter", "by", "cut"),
    [
        ("sum", By.SUBJECT, None),
        ("sum", By.CUSTOMER, 5),
        ("unique_count", By.CUSTOMER, None),
        ("unique_count", By.EVERYTHING, 5),
    ],
)
def test_usage_is_answered_as_one_server_does(
    worlds: tuple[UsageTables, UsageTables], meter: str, by: By, cut: int | None
) -> None:
    place = None if cut is None else Cut(positions=(Position(epoch="log-1", partition=0, offset=cut),))
    question = UsageQuery(meter=meter, by=by, cut=place, start=SPLIT[0], end=SPLIT[1], group_by=("region",))
    for ask in (answer, recount):
        alone, spread = (ask(tables.client, catalog_store.load(tables.client, 2), question) for tables in worlds)
        assert spread == alone
        assert spread


def test_an_insert_waits_for_every_node_that_holds_the_table(
    spread: UsageTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []

    def inserted(_client: HttpClient, table: str, _columns: object, _block: object, settings: Any, *_: object) -> None:
        sent.append((table, str(settings["insert_quorum"])))

    def inserted_columns(_client: HttpClient, context: Any) -> None:
        sent.append((context.table.strip("`"), str(context.settings["insert_quorum"])))

    monkeypatch.setattr(cluster_client, "read_layout", lambda *_: Layout(replicas=3, nodes=6))
    monkeypatch.setattr(HttpClient, "raw_insert", inserted)
    monkeypatch.setattr(HttpClient, "data_insert", inserted_columns)
    client = connect(spread.settings)

    client.raw_insert("rollups", ["meter"], b"", {"optimize_on_insert": 0}, "ArrowStream")
    client.raw_insert("line_items", insert_block=b"", fmt="JSONEachRow", settings={})
    client.insert("events", [("s",)], column_names=["subject"])
    client.insert("runs", [("r",)], column_names=["run"], settings={"insert_deduplication_token": "claim"})
    client.close()

    assert client.get_client_setting("insert_quorum") == "3"
    assert sent == [("rollups", "3"), ("line_items", "6"), ("events", "3"), ("runs", "6")]


def test_the_cluster_is_asked_again_after_an_insert_that_failed(
    spread: UsageTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(client: Client, cluster: str) -> Layout:
        asked.append(cluster)
        return read_layout(client, cluster)

    monkeypatch.setattr(cluster_client, "read_layout", counted)
    client = connect(spread.settings)
    line = b'{"epoch": "asked", "partition": 0, "offset": 1, "state": "paused"}'

    client.raw_insert("partition_pauses", insert_block=line, fmt="JSONEachRow")
    with pytest.raises(DatabaseError):
        client.raw_insert("partition_pauses", insert_block=b"{nothing", fmt="JSONEachRow")
    client.raw_insert("partition_pauses", insert_block=line, fmt="JSONEachRow")
    client.close()

    assert asked == [CLUSTER] * 2


def test_a_worker_that_lacks_the_setting_ends_before_it_writes(spread: UsageTables) -> None:
    lacking = Life(msgspec.structs.replace(spread.settings, clickhouse_cluster=""), "lacking")

    with pytest.raises(CrashError):
        lacking.take_over(0)
    lacking.stop()

    assert isinstance(lacking.fatal[0], SettingError)
    assert "are those of a cluster" in str(lacking.fatal[0])


def test_the_cluster_says_how_many_nodes_it_has(spread: UsageTables) -> None:
    assert read_layout(spread.client, CLUSTER) == Layout(replicas=1, nodes=2)


def test_a_cluster_that_nobody_defined_is_an_error(nodes: Nodes) -> None:
    other = msgspec.structs.replace(nodes.settings("default"), clickhouse_cluster="another")

    with pytest.raises(SettingError, match="knows no cluster 'another'"):
        connect(other)


def test_tables_of_the_other_shape_are_refused(worlds: tuple[UsageTables, UsageTables]) -> None:
    alone, spread = worlds

    refuse_other_shape(alone.client, "")
    refuse_other_shape(spread.client, CLUSTER)
    with pytest.raises(SettingError, match="are those of one server"):
        migrate(alone.client, cluster=CLUSTER)
    with pytest.raises(SettingError, match="are those of a cluster"):
        migrate(spread.client)
