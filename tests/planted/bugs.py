"""Small breakages of the code, each of which some test must catch."""

from __future__ import annotations

from typing import Final

import msgspec

SIMULATION: Final = "tests/simulation/test_simulated_world.py::test_seeded_worlds_are_safe_and_converge"
DECIDE: Final = "tests/aggregators/test_decide_batches.py"
FOLD: Final = "tests/aggregators/test_fold_states.py"
PLAIN: Final = "tests/aggregators/test_rebuild_plain.py"
QUANTITY: Final = "tests/schemas/test_quantity_exactness.py"
AUDIT: Final = "tests/faults/test_audit_repair.py"
OBSTACLES: Final = "tests/billing_export/test_close_obstacles.py"
CRASH: Final = "tests/aggregators/test_flush_crash.py"
PAUSES: Final = "tests/aggregators/test_pauses.py"
ISOLATION: Final = "tests/metering/test_security_isolation.py"


class Bug(msgspec.Struct, frozen=True, kw_only=True):
    """`old` stands once in `file` and becomes `new`; one of `tests` must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def bug(name: str, file: str, old: str, new: str, *tests: str) -> Bug:
    return Bug(name=name, file=file, old=old, new=new, tests=tests)


BUGS: Final = (
    bug(
        "the ledger is written before what it vouches for",
        "aggregators/flush.py",
        'STEPS: Final = ("events", "members", "rollups", "dead_letters_topic", "dead_letters", "positions")',
        'STEPS: Final = ("positions", "events", "members", "rollups", "dead_letters_topic", "dead_letters")',
        SIMULATION,
    ),
    bug(
        "rollups are written before members",
        "aggregators/flush.py",
        '"events", "members", "rollups"',
        '"events", "rollups", "members"',
        SIMULATION,
    ),
    bug(
        "dead letters are kept after the ledger",
        "aggregators/flush.py",
        '"dead_letters_topic", "dead_letters", "positions")',
        '"positions", "dead_letters_topic", "dead_letters")',
        SIMULATION,
    ),
    bug(
        "an offset that a state includes is folded again",
        "aggregators/fold.py",
        "elif group.events.offsets[group.rows[0]] <= state.position:",
        "elif group.events.offsets[group.rows[0]] < 0:",
        SIMULATION,
    ),
    bug(
        "the last offset of a state is folded again",
        "aggregators/state.py",
        "if offsets[row] > position]",
        "if offsets[row] >= position]",
        SIMULATION,
        FOLD,
    ),
    bug(
        "the digest is replaced instead of added to",
        "aggregators/state.py",
        "group.rows), state.digest) % DIGEST_MODULUS",
        "group.rows), 0) % DIGEST_MODULUS",
        SIMULATION,
    ),
    bug(
        "a digest grows beyond 128 bits",
        "schemas/rollup.py",
        "DIGEST_MODULUS: Final = 1 << 128",
        "DIGEST_MODULUS: Final = 1 << 120",
        SIMULATION,
    ),
    bug(
        "of equal times the first offset is the latest",
        "aggregators/state.py",
        "or time_us >= state.latest_time_us:",
        "or time_us > state.latest_time_us:",
        SIMULATION,
    ),
    bug(
        "the least value is the greatest",
        "aggregators/state.py",
        "if state.value_min is None or least < state.value_min:",
        "if state.value_min is None or least > state.value_min:",
        SIMULATION,
    ),
    bug(
        "changed states are forgotten before they are written",
        "aggregators/fold.py",
        "            if day not in keep:\n",
        "            if day not in ():\n",
        SIMULATION,
        "tests/aggregators/test_flush_crash.py",
    ),
    bug(
        "a repeat is looked for at later offsets as well",
        "aggregators/dedupe.py",
        "            if other.offset > mine.offset:\n                continue\n",
        "",
        SIMULATION,
        DECIDE,
    ),
    bug(
        "an event read a second time is its own repeat",
        "aggregators/dedupe.py",
        "            if other.offset == mine.offset:\n                return None\n",
        "",
        SIMULATION,
        DECIDE,
    ),
    bug(
        "identities are joined without their lengths",
        "aggregators/dedupe.py",
        'return b"%d:%b%d:%b" % (len(subject_bytes), subject_bytes, len(source_bytes), source_bytes)',
        'return b"%b%b" % (subject_bytes, source_bytes)',
        DECIDE,
        "tests/aggregators/test_store_expressions.py",
    ),
    bug(
        "the filter of identities forgets when it grows",
        "aggregators/dedupe.py",
        "self._filters.append(Bloom(self._capacity, FALSE_POSITIVE_RATE))",
        "self._filters = [Bloom(self._capacity, FALSE_POSITIVE_RATE)]",
        SIMULATION,
    ),
    bug(
        "what a worker has accepted is not put into its filter",
        "aggregators/decide.py",
        "        self._identities.update(accepted.keys)\n",
        "",
        SIMULATION,
    ),
    bug(
        "what is not flushed yet is forgotten",
        "aggregators/decide.py",
        "        self._unflushed.append(accepted)\n",
        "",
        SIMULATION,
    ),
    bug(
        "the next life begins at the ledger's last offset",
        "aggregators/partition.py",
        "self.next_offset = decision.last + 1",
        "self.next_offset = decision.last + 2",
        SIMULATION,
    ),
    bug(
        "windows begin a second late",
        "aggregators/state.py",
        "self.window_s = time_s - time_s % WINDOW_S",
        "self.window_s = time_s - (time_s - 1) % WINDOW_S",
        SIMULATION,
    ),
    bug(
        "quantities are floats on the way",
        "schemas/quantity.py",
        "return Decimal(text) or ZERO ",
        "return Decimal(repr(float(text))) or ZERO ",
        QUANTITY,
    ),
    bug(
        "a thirteenth decimal is let through",
        "schemas/quantity.py",
        "DECIMALS_MAX: Final = 12",
        "DECIMALS_MAX: Final = 13",
        QUANTITY,
    ),
    bug(
        "sums may round",
        "schemas/quantity.py",
        "EXACT: Final = Context(prec=80, traps=[Inexact, Rounded, ",
        "EXACT: Final = Context(prec=28, traps=[",
        QUANTITY,
    ),
    bug(
        "an insert token does not name its rows",
        "aggregators/store.py",
        'token = f"{table}-{hashlib.sha256(block).hexdigest()}"',
        'token = f"{table}"',
        CRASH,
    ),
    bug(
        "a rollup row of an older state replaces a newer one",
        "schemas/clickhouse/0002_rollups.sql",
        "ENGINE = ReplacingMergeTree(position)",
        "ENGINE = ReplacingMergeTree",
        "tests/aggregators/test_pipeline_takeover.py",
    ),
    bug(
        "a rollup row is added to the one before instead of taking its place",
        "schemas/clickhouse/0002_rollups.sql",
        "ENGINE = ReplacingMergeTree(position)",
        "ENGINE = SummingMergeTree",
        "tests/aggregators/test_pipeline_takeover.py",
    ),
    bug(
        "a worker goes on though another one claimed where a catalog begins",
        "aggregators/catalog_starts.py",
        "        if winner != one:\n",
        "        if winner.number != one.number:\n",
        "tests/aggregators/test_catalog_starts.py",
    ),
    bug(
        "a catalog that was claimed and has no ledger row begins at the ledger's end",
        "aggregators/store.py",
        "next_offset=following[partition].get(newest, known[newest]),",
        "next_offset=max([known[newest], *following[partition].values()]),",
        "tests/aggregators/test_catalog_starts.py",
        SIMULATION,
    ),
    bug(
        "a worker that takes a paused partition over reads it on",
        "aggregators/pauses.py",
        "if number in ends and not one.is_over}",
        "if number in ends and one.is_over}",
        PAUSES,
    ),
    bug(
        "a partition that was just resumed takes what was fetched before",
        "aggregators/pauses.py",
        "        if batch.start > offset:\n",
        "        if batch.start < offset:\n",
        PAUSES,
    ),
    bug(
        "a restart forgets how much was rejected",
        "aggregators/pauses.py",
        "following=end.next_offset, rejected=rejected\n",
        "following=end.next_offset, rejected=[]\n",
        PAUSES,
    ),
    bug(
        "a close bills events that were accepted twice",
        "billing_export/event_store.py",
        "SELECT count() > uniqExact(xxh3(subject, source, id)) FROM",
        "SELECT count() < uniqExact(xxh3(subject, source, id)) FROM",
        OBSTACLES,
    ),
    bug(
        "a close bills a meter that was not filled from history",
        "billing_export/obstacles.py",
        "            if since < until:\n",
        "            if since < 0:\n",
        OBSTACLES,
    ),
    bug(
        "a correction that makes less is not billed",
        "billing_export/adjust.py",
        "    if not more and not due:\n",
        "    if more < 0 or (not more and not due):\n",
        "tests/simulation/test_simulated_bills.py",
    ),
    bug(
        "what a killed export left half written stays in the folder",
        "billing_export/manifest.py",
        "remove_abandoned(folder / name for name in (*FILE_NAMES.values(), MANIFEST, CHECKSUMS))",
        "remove_abandoned(())",
        "tests/billing_export/test_export_folder.py",
    ),
    bug(
        "an audit looks over holes in the ledger",
        "aggregators/audit.py",
        "row.first > row.reached + 1:",
        "row.first > row.reached + 1_000_000:",
        AUDIT,
    ),
    bug(
        "a question forgets whose usage it is about",
        "metering/usage/owners.py",
        'conditions.append("one.subject IN {owned:Array(String)}")',
        "conditions = []",
        ISOLATION,
    ),
    bug(
        "a customer's key asks about everybody",
        "metering/usage/restricted.py",
        "customers=(customer,), by=parameters.by or by",
        "by=parameters.by or by",
        ISOLATION,
    ),
    bug(
        "a customer's key sends events of another",
        "ingest/foreign.py",
        "if owner is None or owner.id != customer:",
        "if owner is None:",
        "tests/ingest/test_gateway_keys.py::test_a_customers_key_sends_that_customers_subjects_alone",
    ),
    bug(
        "the producer does not wait for all copies",
        "ingest/producer.py",
        '"acks": "all",',
        '"acks": "1",',
        "tests/ingest/test_record_format.py",
    ),
    bug(
        "a key that comes twice is taken for plain",
        "aggregators/plain_events.py",
        "f'{one} = 1' for one in counts",
        "f'{one} >= 1' for one in counts",
        f"{PLAIN}::test_an_odd_event_sends_its_own_day_to_python_and_no_other",
    ),
    bug(
        "of equal times ClickHouse takes the first event for the latest",
        "aggregators/plain_states.py",
        "bitShiftLeft(toUInt128(time_us), 64) + toUInt128(offset)",
        "bitShiftLeft(toUInt128(time_us + 1), 64) - toUInt128(offset)",
        f"{PLAIN}::test_a_plain_log_is_folded_by_clickhouse_alone",
    ),
    bug(
        "a name in another object is taken for the one on the way",
        "aggregators/plain_events.py",
        'f" AND position(tail, {name}) < position(tail, {following})"',
        '""',
        f"{PLAIN}::test_unusual_but_plain_events_are_folded_by_clickhouse",
    ),
)
