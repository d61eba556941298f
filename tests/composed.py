"""What deploy/compose says, as docker would read it, for tests of its parts and of the whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "compose"
RECIPE = ROOT / "deploy" / "recipes" / "cross-account.toml"

Tree = dict[str, Any]


def read(name: str) -> Tree:
    """Read a YAML file of the folder."""
    found: Tree = yaml.safe_load((FOLDER / name).read_text())
    return found


COMPOSE = read("compose.yaml")
SERVICES: Tree = COMPOSE["services"]


def example() -> dict[str, str]:
    """Read .env.example as docker does, and fill in what is left to the reader."""
    lines = [line for line in (FOLDER / ".env.example").read_text().splitlines() if "=" in line]
    pairs = [line.split("=", 1) for line in lines if not line.startswith("#")]
    return {name: value.strip("'") or name.lower() for name, value in pairs}


def environment(service: str) -> dict[str, str]:
    """Give a container's variables as the example sets them."""
    values = example()
    return {
        name: re.sub(r"\$\{(\w+)[^}]*\}", lambda match: values[match[1]], str(value))
        for name, value in SERVICES[service]["environment"].items()
    }


def mounted(service: str) -> dict[str, str]:
    """Give what is mounted, by its place in the container."""
    return {place.split(":")[1]: place.split(":")[0] for place in SERVICES[service]["volumes"]}
