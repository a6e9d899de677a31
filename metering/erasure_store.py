"""Who was erased, as ClickHouse keeps it: a log of erasures whose places are claimed with insert tokens."""

from __future__ import annotations

import enum
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from metering.clock import Clock
from schemas.catalog import Catalog
from schemas.erasure import NOBODY, Erasures
from schemas.errors import ErasureUnderWayError, InvariantViolationError, RequestError

_COLUMNS: Final = ("number", "customer", "state", "subjects", "at", "by")


class ErasureState(enum.Enum):
    """How far an erasure is; of several states of one, the last listed here counts."""

    CLAIMED = "claimed"
    ABANDONED = "abandoned"
    ERASING = "erasing"
    ERASED = "erased"

    @property
    def is_finished(self) -> bool:
        """Whether nobody has to wait for it."""
        return self in {ErasureState.ABANDONED, ErasureState.ERASED}


_ORDER: Final = tuple(ErasureState)


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure in its furthest state. `subjects` are pseudonyms."""

    number: int
    customer: str
    state: ErasureState
    subjects: tuple[str, ...]


def listed(client: Client) -> list[Erasure]:
    """Every erasure in its furthest state, in the order of the log.

    Raises InvariantViolationError when two stand at one place.
    """
    rows = client.query("SELECT DISTINCT number, customer, state, subjects FROM erasures").result_rows
    found: dict[int, Erasure] = {}
    for number, customer, state, subjects in rows:
        one = Erasure(number=number, customer=customer, state=ErasureState(state), subjects=tuple(subjects))
        other = found.setdefault(number, one)
        if (other.customer, other.subjects) != (one.customer, one.subjects):
            raise InvariantViolationError(
                f"place {number} of the log of erasures is held twice",
                where="erasures",
                fix="The insert token of erasures did not hold: check its non_replicated_deduplication_window",
            )
        if _ORDER.index(one.state) > _ORDER.index(other.state):
            found[number] = one
    return [found[number] for number in sorted(found)]


def read(client: Client) -> Erasures:
    """Whose records are to be stored without personal data. Those of an erasure under way are among them."""
    log = [one for one in listed(client) if one.state is not ErasureState.ABANDONED]
    if not log:
        return NOBODY
    unfinished = next((one.customer for one in log if not one.state.is_finished), "")
    subjects = frozenset(subject for one in log for subject in one.subjects)
    return Erasures(key=key(client), subjects=subjects, unfinished=unfinished)


def unfinished(client: Client) -> Erasure | None:
    """The erasure that is under way, or was broken off."""
    return next((one for one in listed(client) if not one.state.is_finished), None)


def refuse_while_erasing(client: Client, what: str) -> None:
    """Raise ErasureUnderWayError while a customer is being erased: what reads then sees rows twice, or not at all."""
    found = unfinished(client)
    if found is not None:
        raise ErasureUnderWayError(found.customer, what)


def key(client: Client) -> bytes:
    """The key of all pseudonyms. Raises InvariantViolationError unless there is exactly one."""
    rows = client.query("SELECT DISTINCT key FROM erasure_keys").result_rows
    if len(rows) != 1:
        raise InvariantViolationError(
            f"there are {len(rows)} keys for pseudonyms, expected one",
            where="erasure_keys",
            fix="Restore it from a backup",
        )
    return bytes.fromhex(rows[0][0])


def make_key(client: Client, clock: Clock) -> bytes:
    """The key of all pseudonyms, made now if there is none; of two that are made at once, one wins."""
    if not client.query("SELECT count() FROM erasure_keys").result_rows[0][0]:
        client.insert(
            "erasure_keys",
            [(secrets.token_hex(32), clock.now())],
            column_names=("key", "made_at"),
            settings={"insert_deduplication_token": "erasure-key"},
        )
    return key(client)


def claim(client: Client, customer: str, subjects: Sequence[str], *, clock: Clock, by: str) -> Erasure:
    """Begin to erase a customer, or go on with what was begun: returns the erasure that holds the place.

    Raises RequestError while another customer is being erased.
    """
    begun = unfinished(client)
    if begun is None:
        number = len(listed(client)) + 1
        wanted = Erasure(
            number=number, customer=customer, state=ErasureState.CLAIMED, subjects=tuple(sorted(set(subjects)))
        )
        enter(client, wanted, ErasureState.CLAIMED, clock=clock, by=by, token=f"erasure-{number}")
        begun = listed(client)[number - 1]
    if begun.customer != customer:
        raise RequestError(
            f"customer {begun.customer} is being erased; one at a time",
            where="erasures",
            fix=f"Run it again once that is done; if it was broken off, `metering erase {begun.customer}` finishes it",
        )
    return begun


def enter(client: Client, one: Erasure, state: ErasureState, *, clock: Clock, by: str, token: str = "") -> None:
    """Write down that an erasure has entered a state; a second time changes nothing."""
    client.insert(
        "erasures",
        [(one.number, one.customer, state.value, list(one.subjects), clock.now(), by)],
        column_names=_COLUMNS,
        settings={"insert_deduplication_token": token or f"erasure-{one.number}-{state.value}"},
    )


def without_erased(client: Client, catalog: Catalog) -> Catalog:
    """The catalog as it may be stored: with pseudonyms in the place of erased subjects."""
    return read(client).without_names(catalog)
