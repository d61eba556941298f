"""A plain `pip install` brings everything that s3flow imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
BROUGHT_ALONG = {
    "botocore": "aiobotocore",
    "pydantic_core": "pydantic",
}  # imported by us, and what surely installs it


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"].get("mysql", [])]
    declared = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in needed}
    modules = sorted((ROOT / "s3flow").rglob("*.py"))
    assert len(modules) > 50
    undeclared = {}
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names}:
                known = name in sys.stdlib_module_names or name == "s3flow"
                if not known and BROUGHT_ALONG.get(name, name) not in declared:
                    undeclared[name] = str(path.relative_to(ROOT))
    assert undeclared == {}
