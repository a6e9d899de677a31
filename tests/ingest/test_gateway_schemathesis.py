"""Everything the OpenAPI document allows, and much that it does not, is asked: nothing is answered with a 5xx.

`make fuzz` asks far more; FUZZ_CASES says how much.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from metering.clock import SystemClock
from metering.config import Settings
from metering.keys import ApiKey, Scope, fingerprint, hmac_of, new_key
from metering.testing import ClickHouseUnderTest
from metering.usage.http import usage_routes
from schemas.catalog import Customer
from tests.support.made_usage import made_catalog, usage_tables

CASES = int(os.environ.get("FUZZ_CASES", "40"))
SEED = int(os.environ.get("FUZZ_SEED", "20130101"))
PEPPER = "p" * 32
MODES = [mode for mode in schemathesis.GenerationMode if mode.value in ("positive", "negative")]


@pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])
def test_nothing_that_is_asked_is_answered_with_an_error_of_ours(
    *,
    kafka_settings: Settings,
    clickhouse: ClickHouseUnderTest,
    running_gateway_of: Any,
    keys: Any,
    mode: schemathesis.GenerationMode,
) -> None:
    text = key_of(keys)
    seen: Counter[int] = Counter()
    with usage_tables(clickhouse) as tables:
        tables.store(made_catalog([Customer(id="acme", subjects=("s1",))]))
        names = ("clickhouse_url", "clickhouse_database", "clickhouse_username", "clickhouse_password")
        where = {name: getattr(tables.settings, name) for name in names}
        keyed = msgspec.structs.replace(kafka_settings, key_pepper=PEPPER, **where)
        routes = usage_routes(keyed, clock=SystemClock())
        with running_gateway_of(keyed, route_handlers=routes, keys=keys) as gateway:
            document = schemathesis.openapi.from_dict(gateway.get("/openapi.json").json())
            for operation in operations_of(document, mode):
                ask(operation, mode, gateway.url, text, seen)
            still_alive = httpx.get(f"{gateway.url}/readyz").status_code

    assert seen.total() >= CASES
    assert len(seen) > 1
    assert still_alive == 200


def operations_of(document: Any, mode: schemathesis.GenerationMode) -> list[Any]:
    """The operations; nothing can be wrong with what is asked of one that takes nothing."""
    found = [one.ok() for one in document.get_all_operations()]
    return [one for one in found if mode.value == "positive" or one.path in ("/v1/events", "/v1/usage")]


def ask(operation: Any, mode: schemathesis.GenerationMode, url: str, key: str, seen: Counter[int]) -> None:
    """Ask one operation of the document CASES times; `seen` counts the statuses."""

    @seed(SEED)
    @settings(
        max_examples=CASES,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        seen[answer.status_code] += 1
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            problem = answer.json()
            assert problem["code"]
            assert problem["detail"]

    one()


def key_of(keys: Any) -> str:
    """A key that may do everything, put among the gateway's."""
    name, text = new_key()
    keys.keys.append(
        ApiKey(
            key=name,
            name="fuzz",
            hmac=hmac_of(PEPPER, text),
            pepper=fingerprint(PEPPER),
            scopes=frozenset(Scope),
            at=SystemClock().now(),
            by="test",
        )
    )
    return text


def test_the_long_run_is_a_target_of_make() -> None:
    assert "FUZZ_CASES=" in (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
