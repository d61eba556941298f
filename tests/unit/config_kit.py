"""Configurations in a folder, and what loading them says."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3flow.config import Settings, load
from s3flow.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
CANARY = "canary-8c1f0b"

SRC = '[endpoints.src]\ntype = "s3"\n'
DST = '[endpoints.dst]\ntype = "s3"\nurl = "http://127.0.0.1:9000"\n'
NAS = '[endpoints.nas]\ntype = "local"\npath = "/mnt/archive"\n'


def flow(source: str, target: str, *lines: str, name: str = "one") -> str:
    """Write a flow's table."""
    head = f'[[flows]]\nname = "{name}"\nsource = "{source}"\ntarget = "{target}"\n'
    return head + "\n".join(lines) + "\n"


class Folder:
    """A folder with one configuration, and what loading it says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "config.toml"

    def load(self, *text: str, **environ: str) -> Settings:
        self.file.write_text("".join(text))
        return load(self.file, environ)

    def problems(self, *text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(*text, **environ)
        return [line.removeprefix(f"{self.file}: ") for line in str(caught.value).splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)
