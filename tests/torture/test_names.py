"""Adversarial names in small: one set of objects through all routes, and the rules for any bytes."""

from __future__ import annotations

import os
import pty
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3flow.commands.output import written
from s3flow.errors import NameRefused, NameTooLong
from s3flow.observe.text import shown
from s3flow.stores.local.paths import split
from tests.torture import names
from tests.torture.names_corpus import KEYS, refused_on_disk
from tests.torture.programme import Task

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
PIECES = st.sampled_from(["/", "//", ".", "..", ".s3flow-", "a", "é" * 128, "x" * 255, "\0", " "])
PATHS = TEXTS | st.lists(PIECES, min_size=1, max_size=6).map("".join) | st.sampled_from(KEYS)


# The seed found a CSV of the audit trail that acted on the terminal that it was shown on, and a
# report whose JSON had controls and overrides of direction as they are.
def test_names_arrive_everywhere_or_are_refused_by_rule(tmp_path: Path) -> None:
    counts = names.run(Task(tmp_path, seed=1, rounds=1))
    assert counts["objects"] == 4 * names.OBJECTS
    assert counts["refused"] > 3
    assert counts["log lines"] > counts["objects"]


@pytest.mark.long
def test_names_arrive_with_a_server_for_the_state(tmp_path: Path) -> None:
    assert names.run(Task(tmp_path, seed=2, rounds=3, state="mysql"))["rounds"] == 3


@given(PATHS)
@example("a\0b")
@example("/")
def test_a_folder_refuses_what_the_rule_says_and_keeps_the_rest_as_it_is(key: str) -> None:
    if reason := refused_on_disk(key):
        with pytest.raises((NameRefused, NameTooLong)) as refused:
            split("bucket", key.encode())
        assert refused.value.reason == reason
        return
    folder, name = split("bucket", key.encode())
    assert folder + b"/" + name == b"bucket/" + key.encode()
    assert not {b"", b".", b".."} & {*folder.split(b"/")}


@given(st.binary(max_size=60) | PATHS.map(str.encode))
def test_what_is_shown_of_a_key_acts_on_nothing(key: bytes) -> None:
    text = shown(key)
    assert not [char for char in text if unicodedata.category(char) in names.UNSEEN]
    text.encode()


def test_a_terminal_is_shown_what_could_act_on_it_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pty.openpty()
    with os.fdopen(here, "rb", buffering=0) as shows, os.fdopen(there, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with written(None) as out:
            out.write('"\x1b[2J\x9b31m\u202e","é"\n')
        terminal.flush()
        assert shows.read(1000).decode() == '"\\x1b[2J\\x9b31m\\u202e","é"\r\n'


def test_a_file_gets_everything_as_it_is(tmp_path: Path) -> None:
    with written(tmp_path / "out") as out:
        out.write("\x1b[2J\r\n\u202e")
    assert (tmp_path / "out").read_bytes().decode() == "\x1b[2J\r\n\u202e"
