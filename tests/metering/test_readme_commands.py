"""The five steps of README.md, run one after the other on a real stack, print what stands below each of them."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from examples.flights.flights import flights_file
from metering.config import Settings
from metering.embedded.parts import settings_env
from metering.embedded.ports import free_ports
from metering.embedded.supervisor import Supervisor
from metering.prepare import prepare_services
from metering.stack import children

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GATEWAY = "http://127.0.0.1:18080"
STEPS = [
    (command, output)
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    for command, output in re.findall(r"^\$ ([^\n]+)\n((?:(?!\$ )[^\n]*\n)*)", block, re.MULTILINE)
]
[CATALOG] = re.findall(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who follows README.md in a folder of their own, on ports of their own."""

    def __init__(self, folder: Path) -> None:
        kafka, clickhouse, gateway, worker, dashboard = free_ports(5)
        self.folder = folder
        self.settings = Settings(
            data_dir=folder / ".metering",
            kafka_port=kafka,
            clickhouse_port=clickhouse,
            gateway_port=gateway,
            worker_metrics_port=worker,
            dashboard_port=dashboard,
        )
        self.said = io.StringIO()
        self.stack = Supervisor(
            self.settings,
            children(self.settings, python=sys.executable),
            prepare=_prepare,
            console=Console(file=self.said, width=200, soft_wrap=True),
        )
        (folder / "catalog.yaml").write_text(CATALOG, encoding="utf-8")

    def run(self, command: str) -> str:
        """What a command prints."""
        words = shlex.split(command)
        if words[0] == "curl":
            return f"{self._curl(words)}\n"
        if words[0] == "metering":
            words[:1] = [sys.executable, "-m", "metering"]
        env = {**os.environ, **settings_env(self.settings), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=90, check=False)
        return done.stdout + done.stderr

    def _curl(self, words: list[str]) -> str:
        [url] = [word for word in words if word.startswith(GATEWAY)]
        headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        body = words[words.index("-d") + 1] if "-d" in words else None
        url = url.replace(GATEWAY, self.settings.gateway_address)
        return httpx.request("POST" if body else "GET", url, headers=headers, content=body).text


def _prepare(settings: Settings) -> None:
    prepare_services(settings)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    one = Reader(tmp_path_factory.mktemp("readme"))
    with one.stack:
        yield one


def test_every_step_prints_what_the_readme_says(reader: Reader) -> None:
    """One test, because each step needs those before it. The `…` of an output stands for lines left out."""
    steps = [(command, output) for command, output in STEPS if not command.startswith("make ")]
    assert [command.split()[:2] for command, _ in steps if command.startswith("metering ")] == [
        ["metering", name] for name in ("up", "apply", "ingest", "ingest", "usage", "close", "verify", "export")
    ]

    for command, output in steps:
        if command == "metering up":
            assert ready(reader.said.getvalue()) == ready(output)
        elif command == "cat requests.csv":
            (reader.folder / "requests.csv").write_text(output, encoding="utf-8")
        else:
            said = trimmed(reader.run(command))
            for part in trimmed(output).split("…\n"):
                assert part in said, f"after $ {command}"
            assert "…" in output or said == trimmed(output)


def test_the_usage_in_the_readme_is_what_a_plain_count_of_the_flights_gives() -> None:
    [shown] = re.findall(r"^```text\n(336.*?)^```$", README, re.MULTILINE | re.DOTALL)
    rows = re.findall(
        r"^ (2013-\d\d|[A-Z0-9]{2}) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)$", shown, re.MULTILINE
    )
    with zipfile.ZipFile(flights_file()) as archive, archive.open("flights.csv") as file:
        flights = list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")))

    assert len(rows) == 6
    assert shown.startswith(f"{len(flights):,} flights read, ")
    for name, *numbers in rows:
        mine = [one for one in flights if name in (f"{one['year']}-{int(one['month']):02}", one["carrier"])]
        assert [f"{number:,}" for number in plain_count(mine)] == numbers, name


def plain_count(flights: list[dict[str, str]]) -> list[int]:
    """Flights, miles, minutes in the air, aircraft, worst delay; what is empty or NA is no value."""
    values = {
        column: [one[column] for one in flights if one[column] not in ("", "NA")]
        for column in ("distance", "air_time", "tailnum", "dep_delay")
    }
    return [
        len(flights),
        sum(map(int, values["distance"])),
        sum(map(int, values["air_time"])),
        len(set(values["tailnum"])),
        max(map(int, values["dep_delay"])),
    ]


def ready(text: str) -> list[str]:
    """What became ready, in order of the names: gateway and worker start at the same time."""
    return sorted(re.findall(r"^(\w+) ready on ", text, re.MULTILINE)) + re.findall(r"^all ready", text, re.MULTILINE)


def trimmed(text: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
