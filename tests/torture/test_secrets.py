"""The programme in small: canaries in one world, and ears that are known to hear."""

from __future__ import annotations

import base64
import random
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest

from s3flow.secrecy import Secrets
from tests.torture.canaries import Cage, canary
from tests.torture.programme import Broken
from tests.torture.secrets import World, haunt

SECRET = canary(random.Random(7))
IN_FORMS = {
    "whole": SECRET,
    "a part": SECRET[10:18],
    "quoted": quote(SECRET, safe=""),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 amid more": base64.b64encode(b"u:" + SECRET.encode() + b"!").decode(),
    "hex": SECRET.encode().hex(),
}


@pytest.mark.parametrize("form", IN_FORMS)
def test_a_canary_is_heard_in_all_forms_and_hidden_in_them(form: str) -> None:
    cage = Cage({"one": SECRET})
    said = f"before {IN_FORMS[form]} after"
    assert cage.heard(said.encode()).startswith("one: ")
    hidden = Secrets([SECRET]).without(said)
    assert cage.heard(hidden.encode()) == ""
    assert hidden.startswith("before ")
    assert "***" in hidden
    assert hidden.endswith(" after")


def test_other_words_are_left_alone() -> None:
    words = "The key AKIAOTHER may not s3:PutObject on arn:aws:s3:::bucket/key"
    assert Cage({"one": SECRET}).heard(words.encode()) == ""
    assert Secrets([SECRET, "short"]).without(words) == words
    assert Secrets(["short"]).without("a short word") == "a short word"


ASKED = ("sync", "status --json", "doctor", "audit export", "state export --output out")


@pytest.mark.parametrize(("which", "seed"), [(1, 5), pytest.param(2, 7, marks=pytest.mark.long)])
def test_no_canary_is_heard_whatever_fails(tmp_path: Path, which: int, seed: int) -> None:
    told: Counter[str] = Counter()
    haunt(World(tmp_path, seed, "", told, which), asked=ASKED)
    assert told["answers that gossip"] > 0
    assert told["questions to the API"] == 15
    assert told["tracebacks of an abort"] == 1
    assert told["breakdowns"] == 1
    assert told["mistakes in the configuration"] > 1
    assert told["files searched"] > 5


def test_a_secret_that_leaks_is_found(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="a secret is in what `sync` printed"):
        haunt(World(tmp_path, 5, "leaked-secret", Counter(), 1), asked=("sync",))
