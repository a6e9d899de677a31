"""Keys are made, listed, replaced and ended; what is stored is of no use to a thief, and the log says who did it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ingest.key_watch import StoredKeys
from metering import audit_log, catalog_store, keys_store
from metering.audit_log import Action
from metering.cli import build_app
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings, variable_of
from metering.keys import KeyRefusedError, KeyRing, Scope, fingerprint, hmac_of, name_of, new_key
from metering.migrate import migrate
from schemas.catalog import Catalog, Customer
from schemas.errors import RequestError, SettingError

PEPPER = "a pepper of thirty-two letters.."
NOW = datetime(2013, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def client(service_settings: Settings) -> Iterator[Client]:
    one = connect(service_settings)
    migrate(one)
    yield one
    one.close()


def create(client: Client, clock: FixedClock, **more: Any) -> Any:
    options: dict[str, Any] = {"name": "checkout", "scopes": [Scope.INGEST], **more}
    return keys_store.create(client, pepper=PEPPER, clock=clock, by="ada@engine", **options)


def test_what_is_stored_of_a_key_cannot_be_used_as_one(client: Client, clock: FixedClock) -> None:
    made, text = create(client, clock, customer="acme", expires_at=NOW + timedelta(days=1))

    (stored,) = keys_store.load(client)
    everything = str([client.query(f"SELECT * FROM {table}").result_rows for table in ("api_keys", "audit_log")])  # noqa: S608

    assert stored == made
    assert text.startswith(f"mk_{made.key}_")
    assert text.rpartition("_")[2] not in everything
    assert KeyRing([stored], PEPPER).principal(text, NOW).customer == "acme"
    for wrong in (stored.hmac, made.key, f"mk_{made.key}_{stored.hmac}"):
        with pytest.raises(KeyRefusedError):
            KeyRing([stored], PEPPER).principal(wrong, NOW)


def test_with_another_pepper_no_key_is_taken(client: Client, clock: FixedClock) -> None:
    made, text = create(client, clock)

    with pytest.raises(KeyRefusedError, match="not known"):
        KeyRing([made], "another pepper of the same length").principal(text, NOW)
    assert fingerprint(PEPPER) != fingerprint("another pepper of the same length")
    assert fingerprint(PEPPER) not in hmac_of(PEPPER, "x")


def test_of_several_ends_the_earliest_counts_and_nothing_takes_it_back(client: Client, clock: FixedClock) -> None:
    old, _ = create(client, clock)
    new, _ = keys_store.rotate(
        client, old, pepper=PEPPER, old_ends_at=NOW + timedelta(hours=1), clock=clock, by="ada@engine"
    )
    rotating = keys_store.find(client, old.key)
    keys_store.revoke(client, rotating, clock=clock, by="ada@engine")
    revoked = keys_store.find(client, old.key)
    keys_store.revoke(client, revoked, clock=clock, by="ada@engine")

    assert (new.replaces, new.scopes, new.name) == (old.key, old.scopes, old.name)
    assert [rotating.state(NOW), rotating.state(NOW + timedelta(hours=1))] == ["valid", "rotated"]
    assert revoked.state(datetime(1971, 1, 1, tzinfo=UTC)) == "revoked"  # whatever a gateway's clock says
    assert keys_store.find(client, old.key).state(NOW) == "revoked"
    with pytest.raises(RequestError, match="is revoked"):
        keys_store.rotate(client, revoked, pepper=PEPPER, old_ends_at=NOW, clock=clock, by="ada@engine")


def test_a_gateway_reads_the_keys_again_only_when_one_was_made_or_ended(
    service_settings: Settings, client: Client, clock: FixedClock
) -> None:
    stored = StoredKeys(service_settings)
    first = stored.load()
    made, _ = create(client, clock)
    after_making, unchanged = stored.load(), stored.load()
    keys_store.revoke(client, made, clock=clock, by="ada@engine")
    after_ending = stored.load()

    assert first == []
    assert after_making == [made]
    assert unchanged is None
    assert after_ending is not None
    assert [one.ended for one in after_ending] == ["revoked"]


def test_the_last_use_never_goes_back(service_settings: Settings, client: Client) -> None:
    stored = StoredKeys(service_settings)
    for seconds in (5, 9, 2):
        stored.note_uses({"one": NOW + timedelta(seconds=seconds)})
    stored.note_uses({})

    assert keys_store.last_uses(client) == {"one": NOW + timedelta(seconds=9)}


def test_the_audit_log_says_who_did_what_to_which_key(client: Client, clock: FixedClock) -> None:
    made, _ = create(client, clock)
    clock.move_to(NOW + timedelta(seconds=1))
    keys_store.revoke(client, made, clock=clock, by="grace@engine")

    found = audit_log.entries(client)

    assert [(one.at, one.by, one.action, one.object) for one in found] == [
        (NOW + timedelta(seconds=1), "grace@engine", "key.revoked", made.key),
        (NOW, "ada@engine", "key.created", made.key),
    ]
    assert audit_log.entries(client, action=Action.KEY_CREATED) == found[1:]
    with pytest.raises(ValueError, match="detail of key"):
        audit_log.record(client, Action.KEY_CREATED, "x", {"long": "x" * 70_000}, clock=clock, by="ada")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"pepper": ""}, SettingError),
        ({"scopes": []}, RequestError),
        ({"scopes": [Scope.ADMIN], "customer": "acme"}, RequestError),
        ({"expires_at": NOW}, RequestError),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    client: Client, clock: FixedClock, changes: dict[str, Any], error: type[Exception]
) -> None:
    options = {"pepper": PEPPER, "name": "x", "scopes": [Scope.INGEST], **changes}

    with pytest.raises(error):
        keys_store.create(client, clock=clock, by="ada@engine", **options)

    assert keys_store.load(client) == []


@given(st.text() | st.builds(lambda left, right: f"mk_{left}_{right}", st.text(), st.text(max_size=300)))
def test_whatever_is_presented_is_refused_in_order(presented: str) -> None:
    with pytest.raises(KeyRefusedError):
        KeyRing([], PEPPER).principal(presented, NOW)


def test_the_name_of_a_key_is_what_stands_between() -> None:
    name, text = new_key()

    assert name_of(text) == name
    assert len(text) == 3 + 16 + 1 + 43
    assert [name_of(one) for one in ("", "mk", "mk_", f"mk_{name}", f"mk_{name}_", f"xy_{name}_z", "a" * 999)] == [
        ""
    ] * 7


def test_the_commands_make_list_rotate_and_revoke(
    service_settings: Settings, client: Client, clock: FixedClock
) -> None:
    catalog_store.apply(
        client, Catalog(customers=(Customer(id="acme", subjects=("s1",)),)), clock=clock, applied_by="test"
    )
    names = ("clickhouse_url", "clickhouse_username", "clickhouse_password", "clickhouse_database")
    env = {variable_of(name): str(getattr(service_settings, name)) for name in names}
    env[variable_of("key_pepper")] = PEPPER

    def run(*words: str, **more: str) -> Any:
        return CliRunner().invoke(build_app(["keys"]), ["keys", *words], env={**env, **more})

    made = run(
        "create", "portal", "--scope", "query", "--scope", "export", "--customer", "acme", "--expires-in-days", "9"
    )
    text = made.stdout.strip()
    (listed,) = json.loads(run("list", "--json").stdout)
    table = run("list").stdout
    rotated = json.loads(run("rotate", text, "--overlap-days", "0.5", "--json").stdout)
    run("revoke", rotated["key"])
    after = {one["key"]: one["state"] for one in json.loads(run("list", "--all", "--json").stdout)}
    unknown = run("create", "portal", "--scope", "query", "--customer", "nobody")
    unpeppered = run("create", "portal", "--scope", "query", METERING_KEY_PEPPER="")
    other_pepper = run("list", METERING_KEY_PEPPER="x" * 32).stdout

    assert made.stdout == f"{text}\n"
    assert "shown this once" in made.stderr
    assert (listed["scopes"], listed["customer"], listed["state"]) == (["export", "query"], "acme", "valid")
    assert listed["key"] in table
    assert text not in table + str(listed)
    assert rotated["replaces"] == listed["key"]
    assert name_of(rotated["secret"]) == rotated["key"]
    assert after == {listed["key"]: "valid", rotated["key"]: "revoked"}
    assert isinstance(unknown.exception, RequestError)
    assert isinstance(unpeppered.exception, SettingError)
    assert f"not taken with it: {listed['key']}" in other_pepper
