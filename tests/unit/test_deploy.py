"""What deploy/compose starts fits together: names, variables, files, ports, and what the image needs."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from s3flow.config import DaemonSettings, Settings, load
from s3flow.state.address import MySqlAddress
from tests.composed import (
    COMPOSE,
    FOLDER,
    RECIPE,
    ROOT,
    SERVICES,
    environment,
    example,
    mounted,
    read,
)

DOCKERFILE = (ROOT / "Dockerfile").read_text()
OLD_NAMES = {
    f"{side}_{name}"
    for side in ("SRC", "DST")
    for name in ("ACCESS_KEY", "SECRET_KEY", "REGION", "BUCKET")
} | {"MYSQL_DSN"}
# What the images bring, by their own documentation: checks run inside them.
TOOLS = {"mysql": {"mysqladmin"}, "prom/prometheus": {"wget"}, "grafana/grafana": {"wget"}}


def settings() -> Settings:
    return load(RECIPE, environment("s3flow"))


# --- names ----------------------------------------------------------------------------------------


def test_everything_that_is_named_is_there() -> None:
    used: dict[str, set[str]] = {"networks": set(), "secrets": set(), "volumes": set()}
    for service in SERVICES.values():
        used["networks"] |= set(service["networks"])
        used["secrets"] |= set(service.get("secrets", ()))
        for place in (entry.split(":")[0] for entry in service["volumes"]):
            if place.startswith("."):
                assert (FOLDER / place).resolve().is_file(), place
            else:
                used["volumes"].add(place)
        assert set(service.get("depends_on", ())) <= set(SERVICES)
    assert {kind: set(COMPOSE[kind]) for kind in used} == used


def test_services_wait_for_what_can_tell_that_it_is_ready() -> None:
    waits = {
        (other, need["condition"])
        for service in SERVICES.values()
        for other, need in service.get("depends_on", {}).items()
    }
    assert ("mysql", "service_healthy") in waits
    for name, service in SERVICES.items():
        if "build" in service:
            assert (FOLDER / service["build"] / "Dockerfile").is_file()
            assert "HEALTHCHECK" in DOCKERFILE
            continue
        image, _, tag = service["image"].partition(":")
        assert re.search(r"\d", tag), f"{name}: {tag or 'no tag'} changes under its users"
        kind, command, *_ = service["healthcheck"]["test"]
        assert (kind, command in TOOLS[image]) == ("CMD", True)


def test_services_come_back_and_nothing_is_published_to_others() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    assert "ports" not in SERVICES["s3flow"]
    assert "ports" not in SERVICES["mysql"]
    assert COMPOSE["networks"]["state"] == {"internal": True}
    assert SERVICES["mysql"]["networks"] == ["state"]


def test_every_variable_is_in_the_example_and_the_old_names_are() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text))
    asked |= {secret["environment"] for secret in COMPOSE["secrets"].values()}
    assert asked == set(example())
    assert asked >= OLD_NAMES
    assert set(re.findall(r"\$\{(\w+)\}", RECIPE.read_text())) == OLD_NAMES
    literal = [line for line in text.splitlines() if "PASSWORD" in line and "_FILE" not in line]
    assert [line for line in literal if not re.search(r"environment: |#|: \$\{\w+:\?", line)] == []


def test_no_key_is_misspelt() -> None:
    known = {
        "": {"name", "services", "networks", "volumes", "secrets", "x-service"},
        "service": {
            *("build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image"),
            *("logging", "networks", "ports", "read_only", "restart", "secrets", "security_opt"),
            *("stop_grace_period", "tmpfs", "volumes"),
        },
        "healthcheck": {"test", "interval", "timeout", "retries", "start_period"},
    }
    assert set(COMPOSE) == known[""]
    for service in SERVICES.values():
        assert set(service) <= known["service"]
        assert set(service.get("healthcheck", ())) <= known["healthcheck"]
        for need in service.get("depends_on", {}).values():
            assert set(need) == {"condition"}


# --- s3flow ---------------------------------------------------------------------------------------


def test_the_configuration_loads_with_the_example() -> None:
    assert mounted("s3flow")["/etc/s3flow/config.toml"] == "../recipes/cross-account.toml"
    loaded = settings()
    assert loaded.warnings == ()
    [flow] = loaded.flow_specs()
    assert (flow.source.bucket, flow.target.bucket) == ("src_bucket", "dst_bucket")
    password = example()["METRICS_PASSWORD"]
    login = base64.b64encode(f"s3flow:{password}".encode()).decode()
    shown = {password, login, "change-me", "src_secret_key", "dst_secret_key"}
    assert set(loaded.secrets()) == shown


def test_the_address_of_the_state_is_that_of_the_server() -> None:
    address, values = settings().daemon.state_address, example()
    assert isinstance(address, MySqlAddress)
    assert address.host in SERVICES
    assert address.user == values["MYSQL_USER"]
    assert address.password == values["MYSQL_PASSWORD"]
    assert address.database == values["MYSQL_DATABASE"]
    assert address.tls == "preferred"  # MySQL 8 makes itself a certificate; passwords want it
    shared = set(SERVICES["mysql"]["networks"]) & set(SERVICES["s3flow"]["networks"])
    assert shared == {"state"}


def test_the_image_has_what_the_configuration_needs() -> None:
    [user] = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert user == "10440:10440"
    port = DaemonSettings().listen.rpartition(":")[2]
    assert f"http://127.0.0.1:{port}/healthz" in DOCKERFILE
    assert settings().daemon.listen == f"0.0.0.0:{port}"
    reports = re.search(r"S3FLOW__DAEMON__REPORTS=(\S+)", DOCKERFILE)
    assert reports
    assert any(reports[1].startswith(f"{place}/") for place in mounted("s3flow"))
    load(RECIPE, {**environment("s3flow"), "S3FLOW__DAEMON__REPORTS": reports[1]})


# --- Prometheus and Grafana -----------------------------------------------------------------------


def test_prometheus_finds_s3flow_and_its_rules() -> None:
    config = read("prometheus.yml")
    places = mounted("prometheus")
    for file in config["rule_files"]:
        assert (FOLDER / places[f"/etc/prometheus/{file}"]).resolve().is_file()
    targets = {job["job_name"]: job["static_configs"] for job in config["scrape_configs"]}
    [login] = [job["basic_auth"] for job in config["scrape_configs"] if "basic_auth" in job]
    assert login["username"] == settings().daemon.listen_user
    secret = Path(login["password_file"]).name
    assert secret in SERVICES["prometheus"]["secrets"]
    assert read("compose.yaml")["secrets"][secret] == {"environment": "METRICS_PASSWORD"}
    port = settings().daemon.listen.rpartition(":")[2]
    assert targets["s3flow"] == [{"targets": [f"s3flow:{port}"]}]
    assert set(SERVICES["prometheus"]["networks"]) & set(SERVICES["s3flow"]["networks"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
def test_promtool_takes_the_files_as_they_are_mounted(tmp_path: Path) -> None:
    for place, source in mounted("prometheus").items():
        if place.startswith("/etc/prometheus/"):
            shutil.copy(FOLDER / source, tmp_path / Path(place).name)
    command = ["promtool", "check", "config", tmp_path / "prometheus.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    places = mounted("grafana")
    [source] = yaml.safe_load(
        (FOLDER / places["/etc/grafana/provisioning/datasources/s3flow.yml"]).read_text()
    )["datasources"]
    assert source["type"] == "prometheus"
    url = urlsplit(source["url"])
    [published] = SERVICES["prometheus"]["ports"]
    assert url.hostname == "prometheus"
    assert str(url.port) == published.rpartition(":")[2]
    [provider] = yaml.safe_load(
        (FOLDER / places["/etc/grafana/provisioning/dashboards/s3flow.yml"]).read_text()
    )["providers"]
    folder = provider["options"]["path"]
    home = environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(f"{folder}/")
    dashboard = json.loads((FOLDER / places[home]).read_text())
    # Nothing asks Grafana which source to take: the variable finds the only one there is.
    [variable] = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert variable["query"] == source["type"]
    assert {p["datasource"]["uid"] for p in dashboard["panels"]} == {f"${{{variable['name']}}}"}


# --- docker itself, where its plugin is -----------------------------------------------------------


def _plugin() -> bool:
    if shutil.which("docker") is None:
        return False
    command = ["docker", "compose", "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _plugin(), reason="docker's compose plugin is missing")
def test_docker_compose_reads_it_as_it_is_meant(tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text("".join(f"{name}='{value}'\n" for name, value in example().items()))
    command = ["docker", "compose", "--project-directory", FOLDER, "--env-file"]
    clean = {k: v for k, v in os.environ.items() if k not in example()}
    shown = subprocess.run(
        [*command, env, "config", "--format", "json"],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == ""
    services = json.loads(shown.stdout)["services"]
    assert services["s3flow"]["environment"] == environment("s3flow")
    assert Path(services["s3flow"]["build"]["context"]) == ROOT
    empty = subprocess.run(
        [*command, FOLDER / ".env.example", "config", "--quiet"],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert empty.returncode != 0
    assert "set it in .env" in empty.stderr
