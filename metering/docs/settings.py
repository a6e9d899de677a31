"""docs/settings.md: every setting of metering/config.py with its variable, default and bounds."""

from __future__ import annotations

from typing import Final, get_type_hints

import msgspec
from msgspec import inspect

from metering.config import FILE_SUFFIX, PREFIX, Settings, variable_of
from metering.docs.markdown import table

SECTIONS: Final = (
    ("The embedded stack", ("data_dir", "kafka_port", "clickhouse_port")),
    ("Kafka", ("kafka_",)),
    ("ClickHouse", ("clickhouse_",)),
    ("Questions over HTTP", ("query_",)),
    ("The gateway", ("gateway_", "head_", "body_", "batch_")),
    ("Entitlements", ("entitlements_",)),
    ("The dashboard", ("dashboard_",)),
    ("The customer portal", ("portal_",)),
    ("Keys", ("key_", "keys_", "api_key")),
    ("Events", ("event_",)),
    ("Workers", ("flush_", "worker_", "audit_", "dead_letters_", "state_")),
    ("Alerts", ("alerts_",)),
    ("Billing", ("grace_",)),
    ("Exports", ("delivery_", "stripe_", "aws_", "webhook_", "focus_")),
    ("Logs", ("log_",)),
)
"""Headings, and the beginnings of the names that stand below each; the first that fits counts."""

_HEAD: Final = f"""\
# Settings

Generated from `metering/config.py` by `make docs`; a test compares.

A setting is an environment variable; there is no settings file. The defaults run the embedded stack. Every part reads
the same settings, so give the same variables to gateway, workers and commands.

`{PREFIX}X{FILE_SUFFIX}` names a file that holds the value of `{PREFIX}X`; that is the way to pass a secret. A value
that cannot be used, and a `{PREFIX}` variable that is no setting, is an error that names it, with exit code 2.

```console
$ METERING_GATEWAY_PORT=eighty metering gateway
error: METERING_GATEWAY_PORT: Expected `int`, got `str`. See docs/settings.md for what it takes
```

Units stand last in a name: `_s` are seconds, `_bytes_max` bytes, `_days` days.
"""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as the document shows it. `takes` is its type and bounds in words."""

    name: str
    description: str
    takes: str
    default: str


def settings() -> list[Setting]:
    """Every setting, in the order of their declaration."""
    defaults = Settings()
    return [
        _setting(name, inspect.type_info(hint), getattr(defaults, name))
        for name, hint in get_type_hints(Settings, include_extras=True).items()
    ]


def settings_markdown() -> str:
    """The document. Pure. Raises LookupError for a setting that belongs under no heading."""
    sections: dict[str, list[Setting]] = {title: [] for title, _ in SECTIONS}
    for one in settings():
        sections[_title(one.name)].append(one)
    parts = [_HEAD]
    for title, members in sections.items():
        rows = [(f"`{variable_of(one.name)}`", one.description, one.takes, one.default) for one in members]
        parts.append(f"## {title}\n\n{table(('variable', 'what it says', 'takes', 'default'), rows)}")
    return "\n".join(parts)


def _title(name: str) -> str:
    for title, beginnings in SECTIONS:
        if name.startswith(beginnings):
            return title
    raise LookupError(f"setting {name} belongs under no heading of SECTIONS in metering/docs/settings.py")


def _setting(name: str, described: inspect.Type, default: object) -> Setting:
    if not isinstance(described, inspect.Metadata):
        raise TypeError(f"setting {name} has no description")
    description = (described.extra_json_schema or {})["description"]
    return Setting(name=name, description=description, takes=_takes(described.type), default=_value(default))


def _takes(kind: inspect.Type) -> str:
    """What a setting takes, in words: `1 to 65,535`, `more than 0`, `text`."""
    match kind:
        case inspect.IntType() | inspect.FloatType():
            return _range(kind)
        case inspect.StrType(pattern=str(pattern)):
            return f"`{pattern}`"
        case inspect.StrType():
            return "text"
        case inspect.CustomType():
            return "a path"
        case _:
            raise TypeError(f"no words for {kind}")


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f"more than {kind.gt:,}"
    if kind.ge is None:
        raise TypeError(f"no words for {kind}")
    return f"{kind.ge:,} or more" if kind.le is None else f"{kind.ge:,} to {kind.le:,}"


def _value(default: object) -> str:
    return f"`{default}`" if default != "" else "empty"
