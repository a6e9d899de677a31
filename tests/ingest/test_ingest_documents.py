"""docs/events.md and docs/ingest.md say what the code does: tables are generated, examples are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from metering.clock import SystemClock
from metering.config import Settings, variable_of
from schemas.usage_event import IDENTITY_BYTES_MAX, NESTING_MAX, REASONS, decode_event

DOCS = Path(__file__).parents[2] / "docs"
EVENTS = (DOCS / "events.md").read_text(encoding="utf-8")
INGEST = (DOCS / "ingest.md").read_text(encoding="utf-8")

CONSOLE = re.findall(r"```console\n(.*?)```", INGEST, re.DOTALL)
EXAMPLES = [
    tuple(part.split("\n", 1)) for block in CONSOLE for part in re.split(r"^\$ ", block, flags=re.MULTILINE) if part
]
CURL = [(command, output) for command, output in EXAMPLES if command.startswith("curl ")]
METERING = [(command, output) for command, output in EXAMPLES if command.startswith("metering ")]
[CALLS_CSV] = [output for command, output in EXAMPLES if command == "cat calls.csv"]


def test_the_reasons_are_those_of_the_code(tmp_path: Path) -> None:
    table = "".join(f"| `{reason}` | {meaning} |\n" for reason, meaning in REASONS.items())
    begin, end = "<!-- reasons: generated from schemas/usage_event.py -->\n", "<!-- /reasons -->"
    head, rest = EVENTS.split(begin)
    expected = head + begin + "\n| reason | meaning |\n|---|---|\n" + table + "\n" + end + rest.split(end)[1]
    (tmp_path / "events.md").write_text(expected, encoding="utf-8")

    assert expected == EVENTS, f"copy {tmp_path / 'events.md'} to docs/events.md"


def test_the_limits_named_are_those_of_the_code() -> None:
    assert f"1 to {IDENTITY_BYTES_MAX} bytes" in EVENTS
    assert f"at most {NESTING_MAX} levels deep" in EVENTS
    settings = {variable_of(name) for name in Settings.__struct_fields__}
    assert set(re.findall("METERING_[A-Z_]+", EVENTS + INGEST)) <= settings


def test_every_example_is_an_event_and_the_corrections_name_what_they_correct() -> None:
    events = [decode_event(example.encode()) for example in re.findall(r"```json\n(.*?)```", EVENTS, re.DOTALL)]

    assert [(event.subject, event.id, event.corrects) for event in events] == [
        ("customer-7", "r-1", None),
        ("customer-7", "c-1", ("urn:shop:api", "r-1")),
        ("customer-7", "c-2", ("urn:shop:api", "r-2")),
    ]


def test_the_kafka_example_writes_a_record_that_the_gateway_would_write_alike(
    gateway: Any, log: Any, kafka_settings: Settings
) -> None:
    [program] = re.findall(r"```python\n(.*?)```", EVENTS, re.DOTALL)
    program = program.replace("127.0.0.1:19092", kafka_settings.kafka_bootstrap)

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    [(partition, _, key, value)] = log.records()
    assert decode_event(value).subject.encode() == key
    same = json.loads(value)
    answer = gateway.post(
        json.dumps({**same, "type": "ping"}).encode(), "application/json", params={"positions": "true"}
    )
    assert answer.json()["positions"][0][0] == partition


@pytest.mark.parametrize(("command", "output"), CURL, ids=range(len(CURL)))
def test_a_request_of_the_document_is_answered_as_it_says(gateway: Any, command: str, output: str) -> None:
    words = shlex.split(command)
    [url] = [word for word in words if word.startswith("http://")]
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1]

    answer = httpx.post(url.replace("http://127.0.0.1:18080", gateway.url), headers=headers, content=body.encode())

    assert without_place(answer.json()) == without_place(json.loads(output))
    assert list(answer.json()) == list(json.loads(output))


def without_place(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without what differs from log to log."""
    return {name: value for name, value in answer.items() if name not in {"epoch", "positions"}}


@pytest.mark.parametrize(("command", "output"), METERING, ids=range(len(METERING)))
def test_a_command_of_the_document_prints_what_it_says(gateway: Any, tmp_path: Path, command: str, output: str) -> None:
    (tmp_path / "calls.csv").write_text(CALLS_CSV)
    program = "from metering.cli import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", program, *shlex.split(command)[1:]],
        cwd=tmp_path,
        env={**os.environ, "METERING_GATEWAY_URL": gateway.url, "PYTHONPATH": str(DOCS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout + done.stderr == output
    assert done.returncode == (0 if "--dry-run" in command else 1)


def test_every_code_of_the_gateway_is_in_the_table() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / "ingest").glob("*.py"))
    codes = set(re.findall(r'HTTPStatus\.[A-Z_]+,\s+"([a-z_]+)"', sources)) | {
        "partly_acknowledged",
        "not_acknowledged",
    }

    missing = {code for code in codes if f"`{code}`" not in INGEST} - {
        "internal_error",
        "invalid_request",
        "unavailable",
    }
    assert missing == {"not_ready"}


def test_the_client_example_runs(kafka_settings: Settings, running_gateway_of: Any, log: Any) -> None:
    [program] = re.findall(r"```python\n(.*?)```", INGEST, re.DOTALL)

    with running_gateway_of(kafka_settings, clock=SystemClock()) as gateway:
        program = program.replace("http://127.0.0.1:18080", gateway.url)
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    recorded, voided = [(key, value) for _, _, key, value in log.records()]
    assert recorded[0] == voided[0] == b"customer-7"
    assert recorded[1].endswith(b'"data":{"bytes":1024,"cost":0.015}}')
    assert decode_event(voided[1]).corrects == ("urn:shop:api", "r-0")
