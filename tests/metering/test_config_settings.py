"""Settings: each from its variable, typed, or an error that names the variable."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest
from rich.pretty import pretty_repr

from metering.config import Settings, load_setting, load_settings, secret_names, variable_of
from schemas.errors import SettingError

SECRET = re.compile("password|pepper|secret|api_key")
"""What the name of a setting that is a secret has in it."""


def test_nothing_set_gives_the_defaults() -> None:
    assert load_settings({}) == Settings()
    assert load_settings({"PATH": "/bin", "HOME": "/root"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("METERING_DATA_DIR", "/var/lib/metering", "data_dir", Path("/var/lib/metering")),
        ("METERING_KAFKA_PARTITIONS", "12", "kafka_partitions", 12),
        ("METERING_FLUSH_INTERVAL_S", "0.25", "flush_interval_s", 0.25),
        ("METERING_CLICKHOUSE_URL", "https://ch:8443", "clickhouse_url", "https://ch:8443"),
        ("METERING_CLICKHOUSE_PASSWORD", "5", "clickhouse_password", "5"),
        ("METERING_EVENT_AGE_S_MAX", "0", "event_age_s_max", 0),
    ],
)
def test_a_variable_sets_its_setting(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(load_settings({variable: text}), name) == value
    assert variable_of(name) == variable


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("METERING_KAFKA_PARTITIONS", "many"),
        ("METERING_KAFKA_PARTITIONS", "0"),
        ("METERING_KAFKA_PARTITIONS", "1.5"),
        ("METERING_KAFKA_PARTITIONS", ""),
        ("METERING_KAFKA_PORT", "65536"),
        ("METERING_FLUSH_INTERVAL_S", "0"),
        ("METERING_FLUSH_INTERVAL_S", "nan"),
        ("METERING_CLICKHOUSE_DATABASE", "metering; DROP DATABASE x"),
        ("METERING_CLICKHOUSE_DATABASE", "métering"),
        ("METERING_EVENT_BYTES_MAX", "255"),
        ("METERING_KAFKA_PARTITION", "4"),
        ("METERING_", "4"),
        ("METERING_KEYS_REQUIRED", "perhaps"),
        ("METERING_KEY_PEPPER", "short"),
        ("METERING_CLICKHOUSE_URL", "https://ada:canary@ch:8443"),
        ("METERING_GATEWAY_URL", "https://canary@gateway"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_the_variable(variable: str, text: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({variable: text})

    assert caught.value.where == variable
    assert caught.value.exit_code == 2
    assert "canary" not in str(caught.value)


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n", encoding="utf-8")

    assert load_settings({"METERING_KAFKA_PASSWORD_FILE": str(tmp_path / "secret")}).kafka_password == "hush"


def test_a_secret_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({"METERING_KAFKA_PASSWORD_FILE": str(tmp_path / "absent")})

    assert caught.value.where == "METERING_KAFKA_PASSWORD_FILE"


def test_a_setting_whose_name_ends_in_file_is_itself() -> None:
    assert load_settings({"METERING_KAFKA_CA_FILE": "/etc/ca.pem"}).kafka_ca_file == "/etc/ca.pem"


def test_every_setting_has_a_description_and_passwords_are_marked_as_secret() -> None:
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        metas = [one for one in get_args(hint) if isinstance(one, msgspec.Meta)]
        assert any(one.description for one in metas), name
        assert any((one.extra or {}).get("secret") for one in metas) == bool(SECRET.search(name))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().kafka_port = 1  # type: ignore[misc]


def test_settings_that_are_printed_do_not_show_a_secret() -> None:
    secrets = {name: f"canary-{name}".ljust(40, "x") for name in secret_names()}
    settings = load_settings({variable_of(name): text for name, text in secrets.items()})

    assert {"kafka_password", "clickhouse_password", "key_pepper", "api_key"} <= set(secrets)
    for shown in (str(settings), repr(settings), pretty_repr(settings), f"{settings}"):
        assert "canary" not in shown
        assert "kafka_port=19092" in shown


def test_one_setting_is_read_whatever_else_is_set() -> None:
    environ = {"METERING_API_KEY": "mk_1_2", "METERING_OF_ANOTHER_PROGRAM": "x"}

    assert load_setting("api_key", environ) == "mk_1_2"
    assert load_setting("api_key", {}) == ""
