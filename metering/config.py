"""Every setting, typed and documented; each is read from the variable `METERING_` + its name in capitals.

`docs/settings.md` is generated from this module and tested for drift.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from schemas.errors import SettingError

PREFIX = "METERING_"
FILE_SUFFIX = "_FILE"
FOR_TESTS = frozenset({"METERING_CHARGE_CASES", "METERING_STRIPE_MOCK"})
"""Variables that tests read and that are no settings."""

Port = Annotated[int, Meta(ge=1, le=65_535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings. Units stand last in a name; sizes are bytes, times are seconds unless the name says otherwise."""

    data_dir: Annotated[
        Path, Meta(description="Folder of the embedded stack: Kafka's log, ClickHouse's tables, process logs.")
    ] = Path(".metering")

    kafka_servers: Annotated[
        str, Meta(description="Bootstrap servers of an outside Kafka, `host:port,…`. Empty: the embedded Kafka.")
    ] = ""
    kafka_port: Annotated[Port, Meta(description="Port of the embedded Kafka on 127.0.0.1.")] = 19_092
    kafka_security_protocol: Annotated[
        str,
        Meta(
            pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$",
            description="How to talk to Kafka: in the clear or with TLS, with or without a user.",
        ),
    ] = "PLAINTEXT"
    kafka_sasl_mechanism: Annotated[
        str,
        Meta(
            pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$",
            description="How the user proves itself, with a SASL protocol.",
        ),
    ] = "SCRAM-SHA-512"
    kafka_username: Annotated[str, Meta(description="SASL user name.")] = ""
    kafka_password: Annotated[str, Meta(description="SASL password. Secret.", extra={"secret": True})] = ""
    kafka_ca_file: Annotated[str, Meta(description="CA certificates to trust for Kafka's TLS, a PEM file.")] = ""
    kafka_cert_file: Annotated[
        str, Meta(description="Certificate to show to Kafka, a PEM file; for brokers that ask for one.")
    ] = ""
    kafka_key_file: Annotated[str, Meta(description="Private key of that certificate, a PEM file.")] = ""
    kafka_partitions: Annotated[
        int, Meta(ge=1, le=10_000, description="Partitions of `usage.events.v1` when it is created.")
    ] = 4
    kafka_replication_factor: Annotated[
        int, Meta(ge=1, le=32_767, description="Copies of each partition when a topic is created; 3 on a cluster.")
    ] = 1
    kafka_retention_days: Annotated[
        int, Meta(ge=1, description="How long the log is kept; also the horizon within which a repeat is recognised.")
    ] = 45
    kafka_delivery_timeout_s: Annotated[
        float,
        Meta(gt=0, description="How long a record may wait for Kafka's acknowledgement before it counts as failed."),
    ] = 10.0

    clickhouse_url: Annotated[
        str, Meta(description="`http(s)://host:port` of an outside ClickHouse. Empty: the embedded engine.")
    ] = ""
    clickhouse_port: Annotated[
        Port, Meta(description="Port of the embedded ClickHouse HTTP interface on 127.0.0.1.")
    ] = 18_123
    clickhouse_database: Annotated[
        str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]{0,62}$", description="Database that holds every table and view.")
    ] = "metering"
    clickhouse_cluster: Annotated[
        str,
        Meta(
            pattern="^([A-Za-z_][A-Za-z0-9_-]{0,62})?$",
            description="Name of a ClickHouse cluster, as its `remote_servers` have it: tables are replicated, and"
            " spread over its shards by subject. Empty: one server. See [cluster](cluster.md).",
        ),
    ] = ""
    clickhouse_username: Annotated[str, Meta(description="ClickHouse user.")] = "default"
    clickhouse_password: Annotated[str, Meta(description="ClickHouse password. Secret.", extra={"secret": True})] = ""
    clickhouse_ca_file: Annotated[
        str, Meta(description="CA certificates to trust for an `https` ClickHouse, a PEM file. Empty: the usual ones.")
    ] = ""
    clickhouse_timeout_s: Annotated[float, Meta(gt=0, description="How long one query may take.")] = 60.0
    query_rows_max: Annotated[int, Meta(ge=1, description="Most rows in an answer of `GET /v1/usage`.")] = 100_000
    query_read_rows_max: Annotated[
        int, Meta(ge=0, description="Most rows that ClickHouse may read for one question over HTTP; 0 is no limit.")
    ] = 1_000_000_000
    query_time_s_max: Annotated[
        int, Meta(ge=0, description="Longest that ClickHouse may work on one question over HTTP; 0 is no limit.")
    ] = 30
    query_memory_bytes_max: Annotated[
        int, Meta(ge=0, description="Most memory ClickHouse may take for one question over HTTP; 0 is no limit.")
    ] = 4 * 1024 * 1024 * 1024

    gateway_host: Annotated[str, Meta(description="Address the gateway binds to.")] = "127.0.0.1"
    gateway_port: Annotated[Port, Meta(description="Port the gateway binds to.")] = 18_080
    gateway_url: Annotated[
        str, Meta(description="Where `metering ingest` and the SDK send events. Empty: the local gateway.")
    ] = ""
    gateway_tls_cert_file: Annotated[
        str, Meta(description="The gateway's certificate with its chain, a PEM file. Given: it speaks HTTPS only.")
    ] = ""
    gateway_tls_key_file: Annotated[str, Meta(description="Private key of that certificate, a PEM file.")] = ""
    gateway_ca_file: Annotated[
        str, Meta(description="CA certificates `metering ingest` trusts for the gateway, a PEM file. Empty: the usual.")
    ] = ""
    head_bytes_max: Annotated[
        int, Meta(ge=1024, description="Largest head of a request: its first line and headers.")
    ] = 64 * 1024
    body_bytes_max: Annotated[int, Meta(ge=1, description="Largest request body as sent.")] = 8 * 1024 * 1024
    body_inflated_bytes_max: Annotated[int, Meta(ge=1, description="Largest request body once inflated.")] = (
        32 * 1024 * 1024
    )
    batch_events_max: Annotated[int, Meta(ge=1, description="Most events in one request.")] = 10_000
    event_bytes_max: Annotated[int, Meta(ge=256, description="Largest single event, as JSON.")] = 256 * 1024
    event_nesting_max: Annotated[
        int, Meta(ge=2, le=128, description="Deepest nesting of an event that the gateway takes, its braces included.")
    ] = 128
    event_ahead_s_max: Annotated[
        int, Meta(ge=0, description="How far an event's time may be ahead of the time Kafka wrote it down.")
    ] = 3_600
    event_age_s_max: Annotated[
        int, Meta(ge=0, description="How old an event may be when Kafka writes it down; 0 means any age.")
    ] = 0

    entitlements_interval_s: Annotated[
        float, Meta(gt=0, description="How often the gateway asks what was used, for entitlements.")
    ] = 1.0
    entitlements_stale_s_max: Annotated[
        float, Meta(gt=0, description="How old what it knows may be; then entitlements are 503.")
    ] = 5.0
    entitlements_max: Annotated[
        int, Meta(ge=1, description="Most pairs of customer and meter that a gateway holds entitlements of.")
    ] = 500_000

    keys_required: Annotated[
        str,
        Meta(
            pattern="^(auto|always|never)$",
            description="Whether the gateway asks for an API key: `always`, `never`, or `auto`: unless it listens on"
            " this machine alone, no pepper is set and no key was ever made.",
        ),
    ] = "auto"
    key_pepper: Annotated[
        str,
        Meta(
            pattern="^(.{32,})?$",
            description="What keys are hashed with, 32 characters or more, the same for every part. Secret.",
            extra={"secret": True},
        ),
    ] = ""
    keys_stale_s_max: Annotated[
        float,
        Meta(gt=0, description="How long a gateway that cannot read the keys goes on with those it knows; then 503."),
    ] = 3_600.0
    key_requests_per_s_max: Annotated[
        float, Meta(ge=0, description="Requests a second that one key may make to one gateway; 0 is no limit.")
    ] = 0.0
    key_events_per_s_max: Annotated[
        float, Meta(ge=0, description="Events a second that one key may send to one gateway; 0 is no limit.")
    ] = 0.0
    api_key: Annotated[
        str,
        Meta(
            pattern="^[!-~]*$",
            description="The key that `metering ingest` and the SDK send. Secret.",
            extra={"secret": True},
        ),
    ] = ""

    dashboard_host: Annotated[str, Meta(description="Address the dashboard binds to.")] = "127.0.0.1"
    dashboard_port: Annotated[Port, Meta(description="Port the dashboard binds to.")] = 18_082
    dashboard_session_s: Annotated[int, Meta(ge=60, description="How long a sign-in to the dashboard lasts.")] = 28_800
    dashboard_fresh_s: Annotated[float, Meta(gt=0, description="How old what is counted beside a page may be.")] = 30.0

    portal_host: Annotated[str, Meta(description="Address `metering portal` binds to.")] = "127.0.0.1"
    portal_port: Annotated[Port, Meta(description="Port `metering portal` binds to.")] = 18_083
    portal_url: Annotated[
        str,
        Meta(
            description="`http(s)://host[:port]` under which customers reach the portal; it stands in links. Empty: the"
            " dashboard on this machine, which serves the portal, too."
        ),
    ] = ""
    portal_secret: Annotated[
        str,
        Meta(
            pattern="^(.{32,})?$",
            description="What links to the portal are signed with, 32 characters or more. Empty: no portal. Secret.",
            extra={"secret": True},
        ),
    ] = ""
    portal_secret_before: Annotated[
        str,
        Meta(
            pattern="^(.{32,})?$",
            description="The secret before the present one: links signed with it are taken, too. Secret.",
            extra={"secret": True},
        ),
    ] = ""

    flush_events_max: Annotated[int, Meta(ge=1, description="A worker flushes once it holds this many events…")] = (
        50_000
    )
    flush_interval_s: Annotated[float, Meta(gt=0, description="…or once its oldest unflushed event is this old.")] = 0.5
    worker_metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of a worker's `/metrics`, `/healthz` and `/readyz`; 0 is off.")
    ] = 18_081
    worker_metrics_host: Annotated[str, Meta(description="Address a worker's metrics bind to.")] = "127.0.0.1"
    worker_stuck_s_max: Annotated[
        float, Meta(gt=0, description="A worker that holds events and flushes none for this long ends itself.")
    ] = 300.0
    audit_interval_s: Annotated[
        float,
        Meta(ge=0, description="How often a worker audits what its partitions got since it last did; 0: never."),
    ] = 3_600.0
    dead_letters_max: Annotated[
        int, Meta(ge=0, description="A partition is paused when more of its last records were rejected; 0 is never…")
    ] = 1_000
    dead_letters_percent_max: Annotated[
        int, Meta(ge=0, le=100, description="…and when these are more than this many percent of its last records.")
    ] = 50
    dead_letters_window_records: Annotated[
        int, Meta(ge=1, le=1_000_000, description="How many records of a partition its last ones are.")
    ] = 10_000
    state_keys_max: Annotated[
        int, Meta(ge=1_000, description="Rollup keys a worker keeps in memory; the least recently used are read back.")
    ] = 500_000

    alerts_interval_s: Annotated[
        float, Meta(gt=0, description="How often `metering alerts` looks at what was used.")
    ] = 1.0
    alerts_lease_s: Annotated[
        float, Meta(gt=0, description="How long a `metering alerts` that went silent keeps another from taking over.")
    ] = 60.0
    alerts_webhook_url: Annotated[str, Meta(description="Where alerts are posted. Empty: to Kafka alone.")] = ""
    alerts_webhook_secret: Annotated[
        str, Meta(description="What these requests are signed with. Secret.", extra={"secret": True})
    ] = ""
    alerts_metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of the `/metrics` of `metering alerts`; 0 is off.")
    ] = 0
    alerts_metrics_host: Annotated[str, Meta(description="Address these bind to.")] = "127.0.0.1"

    grace_s: Annotated[
        int, Meta(ge=0, description="How long after a period's end it may be closed, so that late events still count.")
    ] = 86_400

    delivery_timeout_s: Annotated[
        float, Meta(gt=0, description="How long an export waits for one answer of Stripe, AWS or a webhook.")
    ] = 10.0
    delivery_attempts_max: Annotated[
        int, Meta(ge=1, description="How often an export tries a request that is not answered, before it stops.")
    ] = 6
    delivery_pause_s: Annotated[
        float, Meta(gt=0, description="Pause before an export tries again for the first time; it doubles each time.")
    ] = 0.5
    delivery_lease_s: Annotated[
        float, Meta(gt=0, description="How long an export that went silent keeps others from taking its place.")
    ] = 300.0
    stripe_api_key: Annotated[str, Meta(description="Stripe's API key. Secret.", extra={"secret": True})] = ""
    stripe_url: Annotated[str, Meta(description="Address in place of Stripe's own, for a proxy or a mock.")] = ""
    aws_product_code: Annotated[str, Meta(description="Product code of the listing at AWS Marketplace.")] = ""
    aws_region: Annotated[str, Meta(description="AWS region that usage is reported to.")] = "us-east-1"
    aws_access_key_id: Annotated[
        str, Meta(description="AWS access key. Empty: credentials from where boto3 always looks.")
    ] = ""
    aws_secret_access_key: Annotated[
        str, Meta(description="Secret of that access key. Secret.", extra={"secret": True})
    ] = ""
    aws_url: Annotated[str, Meta(description="Address in place of AWS's own, for a proxy or a mock.")] = ""
    webhook_url: Annotated[str, Meta(description="Where `metering export --to webhook` posts lines.")] = ""
    webhook_secret: Annotated[
        str, Meta(description="What webhook requests are signed with. Secret.", extra={"secret": True})
    ] = ""
    focus_provider: Annotated[str, Meta(description="Who sells, as FOCUS exports name it: your company.")] = ""
    focus_service_category: Annotated[
        str, Meta(description="Service category of FOCUS 1.2 that your product belongs to.")
    ] = "Other"

    log_level: Annotated[str, Meta(description="`debug`, `info`, `warning` or `error`.")] = "info"

    @property
    def kafka_bootstrap(self) -> str:
        """Where Kafka is: the outside servers, or the embedded ones."""
        return self.kafka_servers or f"127.0.0.1:{self.kafka_port}"

    @property
    def clickhouse_address(self) -> str:
        """Where ClickHouse's HTTP interface is: outside, or embedded."""
        return self.clickhouse_url or f"http://127.0.0.1:{self.clickhouse_port}"

    @property
    def gateway_address(self) -> str:
        """Where the gateway is, as a URL without a path."""
        scheme = "https" if self.gateway_tls_cert_file else "http"
        return self.gateway_url or f"{scheme}://127.0.0.1:{self.gateway_port}"

    def __rich_repr__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Every setting with its value, or `…` for a secret: whoever prints settings does not print those."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            yield name, "…" if value and name in secret_names() else value

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


def variable_of(name: str) -> str:
    """The environment variable of a setting: `data_dir` → `METERING_DATA_DIR`."""
    return PREFIX + name.upper()


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from the environment (`os.environ` unless given).

    `METERING_X_FILE` names a file that holds the value of `METERING_X`, for secrets.
    Raises SettingError for a value that cannot be used and for a METERING_ variable that is no setting.
    """
    environ = os.environ if environ is None else environ
    hints = get_type_hints(Settings, include_extras=True)
    values: dict[str, Any] = {}
    for variable, given in environ.items():
        text = given
        if not variable.startswith(PREFIX) or variable in FOR_TESTS:
            continue
        name = variable[len(PREFIX) :].lower()
        if name not in hints and variable.endswith(FILE_SUFFIX) and name[: -len(FILE_SUFFIX)] in hints:
            name, text = name[: -len(FILE_SUFFIX)], _read_secret(variable, text)
        if name not in hints:
            raise SettingError("is not a setting", where=variable, fix="See docs/settings.md for the names")
        values[name] = _value(name, text, hints[name], variable)
    return Settings(**values)


def load_setting(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """One setting alone, for a library inside somebody else's program, whose other variables are not its business."""
    variable = variable_of(name)
    environ = os.environ if environ is None else environ
    return getattr(
        load_settings({key: environ[key] for key in (variable, variable + FILE_SUFFIX) if key in environ}), name
    )


@cache
def secret_names() -> frozenset[str]:
    """The settings whose values must never be shown."""
    return frozenset(
        name
        for name, hint in get_type_hints(Settings, include_extras=True).items()
        for meta in getattr(hint, "__metadata__", ())
        if isinstance(meta, Meta) and (meta.extra or {}).get("secret")
    )


def _value(name: str, text: str, hint: Any, variable: str) -> Any:
    try:
        value = Path(text) if name == "data_dir" else msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as error:
        raise SettingError(str(error), where=variable, fix="See docs/settings.md for what it takes") from error
    if name.endswith("_url") and "@" in urlsplit(text).netloc:
        # Addresses stand in logs and errors, so a password must not be in one.
        raise SettingError("holds a user or a password", where=variable, fix="Give them in settings of their own")
    return value


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingError(f"cannot read {path}: {error.strerror}", where=variable) from error
