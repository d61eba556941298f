"""README.md promises commands, settings and answers: each of them exists as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from s3flow.cli import app
from s3flow.config import load
from s3flow.model import Flow, Place, Verdict
from s3flow.observe.money import Money
from s3flow.observe.progress import Moving, Thawing, as_json, snapshot
from s3flow.process import Ending
from s3flow.records import Hold
from tests.e2e.conftest import Stage

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def command_lines() -> list[list[str]]:
    shown = [line for block in blocks("console") for line in block.splitlines()]
    inline = re.findall(r"`s3flow [^`]*`", README)
    lines = [line.removeprefix("$ ").partition("#")[0] for line in shown]
    words = [shlex.split(line) for line in [*lines, *(line.strip("`") for line in inline)]]
    return [line[1:] for line in words if line[:1] == ["s3flow"]]


@pytest.mark.parametrize("block", blocks("toml"))
def test_configurations_load(block: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(block.replace("/mnt/archive", str(tmp_path)))
    settings = load(config, dict.fromkeys(re.findall(r"\$\{(\w+)\}", block), "value"))
    assert settings.flow_specs()
    assert not settings.warnings


def test_there_is_a_configuration_to_load() -> None:
    assert blocks("toml")


def test_commands_parse() -> None:
    group = typer.main.get_group(app)
    parsed = set()
    for name, *words in command_lines():
        line = [{"FLOW": "flow", "R": "reason"}.get(word, word) for word in words]
        # "[--json] [--watch]": what is optional may be there.
        line = [word.strip("[]") for word in line]
        command = group.commands[name]
        wanted = {option for word in line if word.startswith("-") for option in [word]}
        known = {option for parameter in command.params for option in parameter.opts}
        assert wanted <= known, f"s3flow {name} has no {wanted - known}"
        parsed.add(name)
    assert parsed == set(group.commands), "README does not show every command"


def test_exit_codes_are_those_of_the_program() -> None:
    (text,) = re.findall(r"\*\*Exit codes\*\*:(.*?)\n\n", README, re.DOTALL)
    assert {int(code) for code in re.findall(r"(?:^|·)\s*(\d+)\s", text.strip())} == set(Ending)


def test_status_has_the_shape_that_is_shown(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    program.run("sync")
    (shape,) = re.findall(r"`status --json`: `(.*?)`", README, re.DOTALL)
    flow = program.flow()
    words = set(re.findall(r'"(\w+)"', shape)) - {"flows"}
    assert words == {
        *flow,
        *flow["objects"],
        *flow["scan"],
        *flow["eta_seconds"],
        *flow["states"]["verified"],
        *Moving._fields,
        *Thawing._fields,
        *told_of_a_route(),
        *told_of_deletes(),
        *Money(0.0, 0.0, 0.0, "").as_json(),
        *("archived", "reason", "message", "since"),  # of storage classes, of buckets
    }


def told_of_a_route() -> set[str]:
    """Give what the JSON of a flow whose objects go a known way says of that."""
    flow = Flow(name="one", source=Place("src", "b", b""), target=Place("nas", "", b""))
    route = Verdict("one", "b", "objects", "target", "", 0.0, 0.0)
    [told] = as_json([snapshot(flow, [], [], {}, None, 0.0, routes=[route])])["flows"]
    return set(told["routes"][0])


def test_settings_in_the_table_exist() -> None:
    (table,) = re.findall(r"\| what you want \| setting \|\n(.*?)\n\n", README, re.DOTALL)
    example = (Path(__file__).parents[2] / "config.example.toml").read_text()
    settings = [row.rsplit("|", 2)[1] for row in table.splitlines()]
    named = {
        word
        for code in re.findall(r"`([^`]*)`", " ".join(settings))
        for word in re.findall(r"^(\w+)(?: =|$)", code)
    }
    assert len(named) > 10
    known = set(re.findall(r"^(\w+) +=", example, re.MULTILINE))
    values = {"always", "drop", "dropped", "old"}  # of settings, or an endpoint's name
    assert named - known <= values


def told_of_deletes() -> set[str]:
    """Give what the JSON of a flow says whose deletes are held."""
    flow = Flow(name="one", source=Place("src", "b", b""), target=Place("nas", "", b""))
    [told] = as_json([snapshot(flow, [], [], {}, None, 0.0, held=Hold("why", 0.0))])["flows"]
    return {*told["deletes"], *told["deletes"]["held"]}
