"""The house rules that no linter knows, and the files that ship beside the code."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "s3flow"
MODULES = sorted(PACKAGE.rglob("*.py"))
RECIPES = sorted((ROOT / "deploy" / "recipes").glob("*.toml"))
DASHBOARD = ROOT / "deploy" / "grafana" / "s3flow.json"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
TOP_LEVEL = {
    *("pyproject.toml", "s3flow", "tests", "deploy", "Dockerfile", "config.example.toml"),
    *("Makefile", "README.md", "LICENSE"),
}
MAX_FILE = 400
MAX_FUNCTION = 60
FORBIDDEN_MODULES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
FORBIDDEN_ENDINGS = ("Manager", "Handler", "Helper", "Processor")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)


def _tracked() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [name for name in listed.stdout.split("\0") if name]


def _nodes() -> Iterator[tuple[str, ast.AST]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            yield str(path.relative_to(ROOT)), node


def test_files_are_short_enough_to_read() -> None:
    files = [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert len(lengths) > len(MODULES) > 0, "no module was found"
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}


def test_functions_are_short_enough_to_read() -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, node in _nodes()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert lengths, "no function was found"
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}


def test_names_say_what_things_are() -> None:
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert names & FORBIDDEN_MODULES == set()
    classes = [f"{path} {node.name}" for path, node in _nodes() if isinstance(node, ast.ClassDef)]
    assert classes, "no class was found"
    assert [name for name in classes if name.endswith(FORBIDDEN_ENDINGS)] == []


def test_every_module_says_what_it_is_for() -> None:
    written = {str(path.relative_to(ROOT)): path.read_text() for path in MODULES}
    silent = [
        name for name, text in written.items() if text and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="not a git checkout: nothing says what is ours"
)
def test_the_top_level_stays_small() -> None:
    entries = {name.split("/")[0] for name in _tracked()}
    assert entries & TOP_LEVEL, "git listed nothing"
    assert {name for name in entries if not name.startswith(".")} - TOP_LEVEL == set()


def test_every_make_target_says_what_it_does() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    targets = [line for line in lines if re.match(r"[a-z][a-z-]*:", line)]
    assert targets, "no target was found"
    assert [line for line in targets if "## " not in line] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_load(recipe: Path) -> None:
    config = pytest.importorskip("s3flow.config", exc_type=ModuleNotFoundError)
    variables = set(re.findall(r"\$\{(\w+)\}", recipe.read_text()))
    values = {name: name.lower().replace("_", "-") for name in variables}
    if "MYSQL_DSN" in values:
        values["MYSQL_DSN"] = "user:password@tcp(host:3306)/database?parseTime=true"
    settings = config.load(recipe, values)
    assert settings.flow_specs()
    assert not settings.warnings


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 3


def _expressions() -> list[str]:
    """Give the dashboard's queries as Prometheus gets them: with Grafana's variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    return [
        re.sub(r"\$(flow|instance)", ".*", q.replace("$__rate_interval", "5m")) for q in queries
    ]


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    if importlib.util.find_spec("s3flow.observe.metrics") is None:
        pytest.skip("s3flow.observe.metrics is not there yet")
    source = "".join(path.read_text() for path in (PACKAGE / "observe").glob("*.py"))
    asked = set(re.findall(r"\bs3flow_\w+", RULES.read_text() + "\n".join(_expressions())))
    assert len(asked) > 10
    # The client library makes the endings of counters, histograms and infos by itself.
    bare = {re.sub(r"_(total|info|bucket|sum|count)$", "", name) for name in asked}
    assert {name for name in bare if name not in source} == set()


@needs_promtool
def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(_expressions())]
    assert rules
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    _promtool("check", "rules", file)


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    _promtool("check", "rules", RULES)
    _promtool("test", "rules", RULES.with_name("rules_test.yml"))


def _promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
