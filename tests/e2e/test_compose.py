"""What deploy/compose starts works together: MariaDB for MySQL, s3flow as its image runs it, Prometheus.

The files are those that are mounted; only the names of hosts and the ports are this machine's.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tests import mariadb, servers
from tests.composed import FOLDER, RECIPE, ROOT, environment, mounted, read
from tests.e2e.program import Program, Running

OBJECTS = 30
OLD_QUERIES = {
    "SELECT status, COUNT(*) FROM document_logs GROUP BY status": (("success", OBJECTS),),
    "SELECT file_key, status, moved_at FROM document_logs WHERE status = 'success' "
    "ORDER BY moved_at DESC LIMIT 10": 10,
}


@pytest.fixture
def database() -> Iterator[mariadb.MariaDb]:
    """Give a server with the user and the schema that the image would make."""
    told = environment("mysql")
    password = environment("s3flow")["MYSQL_DSN"].partition("@tcp(")[0].partition(":")[2]
    with mariadb.running() as server, contextlib.closing(server.connect()) as root:
        with root.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {told['MYSQL_DATABASE']}")
            cursor.execute(f"CREATE USER {told['MYSQL_USER']}@'%' IDENTIFIED BY '{password}'")
            cursor.execute(f"GRANT ALL ON {told['MYSQL_DATABASE']}.* TO {told['MYSQL_USER']}@'%'")
        yield server


@pytest.fixture
def program(
    tmp_path: Path, moto_server: servers.Server, database: mariadb.MariaDb
) -> Iterator[Program]:
    """Give s3flow with the mounted configuration and the container's variables."""
    told = environment("s3flow")
    with contextlib.closing(moto_server.client()) as client:
        for side in ("SRC", "DST"):
            told[f"{side}_BUCKET"] = servers.make_bucket(moto_server)
            told[f"S3FLOW__ENDPOINTS__{side}__URL"] = moto_server.url
        for number in range(OBJECTS):
            client.put_object(Bucket=told["SRC_BUCKET"], Key=f"doc/{number}", Body=b"some bytes")
    told["MYSQL_DSN"] = told["MYSQL_DSN"].replace("mysql:3306", f"127.0.0.1:{database.port}")
    told["S3FLOW__DAEMON__LISTEN"] = "127.0.0.1:0"
    told["S3FLOW__DAEMON__REPORTS"] = str(tmp_path / "reports")
    made = Program.written(tmp_path, RECIPE.read_text(), told)
    yield made
    made.end()


def listening(running: Running) -> str:
    """Wait for the listener; give its address."""

    def entries() -> list[str]:
        return [str(each["address"]) for each in running.logged() if each["event"] == "listening"]

    running.until(entries)
    return entries()[0]


def healthy(address: str) -> bool:
    """Run the image's own check."""
    [check] = re.findall(
        r"HEALTHCHECK.*?CMD (\[.*?\])\n", (ROOT / "Dockerfile").read_text(), re.DOTALL
    )
    python, *words = json.loads(check)
    assert python == "python"
    words = [word.replace("127.0.0.1:9440", address) for word in words]
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_objects_move_and_everybody_sees_it(program: Program, database: mariadb.MariaDb) -> None:
    running = program.start("run")
    address = listening(running)
    running.until(lambda: program.flow()["objects"]["verified"] == OBJECTS)
    assert healthy(address)
    assert program.flow()["methods"] == {"server_copy": OBJECTS}
    schema = environment("mysql")["MYSQL_DATABASE"]
    with (
        contextlib.closing(database.connect(database=schema)) as connection,
        connection.cursor() as cursor,
    ):
        for query, wanted in OLD_QUERIES.items():
            cursor.execute(query)
            rows = cursor.fetchall()
            assert (len(rows) if isinstance(wanted, int) else rows) == wanted
    assert list((program.folder / "reports").glob("transfer_summary_*.log"))
    running.stop()
    running.wait(0)
    shown = running.out.read_text() + running.err.read_text()
    assert environment("s3flow")["DST_SECRET_KEY"] not in shown
    assert "change-me" not in shown
    assert not healthy(address)


def test_health_says_that_the_database_is_away(program: Program, database: mariadb.MariaDb) -> None:
    running = program.start("run")
    address = listening(running)
    running.until(lambda: program.flow()["objects"]["verified"] == OBJECTS)

    def says() -> dict[str, Any]:
        with urlopen(f"http://{address}/healthz") as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    database.stop()
    running.until(lambda: says()["status"] == "degraded")
    assert "change-me" not in json.dumps(says())
    assert healthy(address), "docker would restart it, which helps nobody"
    database.start()
    running.until(lambda: says()["status"] == "ok")
    running.stop()
    running.wait(0)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="apt-get install prometheus")
def test_prometheus_scrapes_it_and_answers_the_dashboard(program: Program, tmp_path: Path) -> None:
    running = program.start("run")
    address = listening(running)
    with prometheus(tmp_path / "prometheus", address) as url:

        def ask(path: str) -> Any:
            with urlopen(f"{url}/api/v1/{path}") as answer:
                return json.load(answer)["data"]

        def query(text: str) -> list[Any]:
            found: list[Any] = ask(f"query?query={quote(text)}")["result"]
            return found

        running.until(lambda: query(f's3flow_objects_total{{outcome="verified"}} == {OBJECTS}'))
        [target] = [t for t in ask("targets")["activeTargets"] if t["labels"]["job"] == "s3flow"]
        assert (target["health"], target["lastError"]) == ("up", "")
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 5
        panels = json.loads((ROOT / "deploy/grafana/s3flow.json").read_text())["panels"]
        answered = [
            query(re.sub(r"\$(flow|instance)", ".*", text.replace("$__rate_interval", "1m")))
            for text in (target["expr"] for panel in panels for target in panel["targets"])
        ]
        assert len([rows for rows in answered if rows]) >= 5
    running.stop()
    running.wait(0)


def ready(url: str) -> bool:
    """Say whether the server has got over its start."""
    try:
        urlopen(url).close()
    except URLError:  # it is not there yet, or says 503
        return False
    return True


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run Prometheus with the files that are mounted, scraping *target* each second."""
    folder.mkdir()
    for place, source in mounted("prometheus").items():
        if place.startswith("/etc/prometheus/"):
            shutil.copy(FOLDER / source, folder / Path(place).name)
    config = read("prometheus.yml")
    config["global"] = dict.fromkeys(config["global"], "1s")
    for job in config["scrape_configs"]:
        if job["job_name"] == "s3flow":
            job["static_configs"] = [{"targets": [target]}]
            job["basic_auth"]["password_file"] = str(folder / "password")
    told = environment("s3flow")["S3FLOW__DAEMON__LISTEN_PASSWORD"]
    (folder / "password").write_text(told)
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    listen = f"127.0.0.1:{servers.free_port()}"
    command = (
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={listen}",
    )
    process = servers.spawn(command, folder)
    try:
        servers.wait_until(lambda: ready(f"http://{listen}/-/ready"), process, folder / "log")
        yield f"http://{listen}"
    finally:
        servers.end(process)
