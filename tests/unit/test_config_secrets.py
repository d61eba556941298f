"""Secrets in a configuration: where they may stand, and where they are never shown."""

from __future__ import annotations

import traceback

import pytest

from s3flow.config import load
from s3flow.errors import ConfigError
from tests.unit.config_kit import CANARY, SRC, Folder, folder

__all__ = ["folder"]  # a fixture


def test_literal_secrets_in_a_readable_file_are_a_warning(folder: Folder) -> None:
    text = f'{SRC}access_key_id = "A"\nsecret_access_key = "{CANARY}"\n'
    folder.file.write_text(text)
    folder.file.chmod(0o644)
    [warning] = load(folder.file, {}).warnings
    assert "endpoints.src.secret_access_key" in warning
    assert CANARY not in warning
    folder.file.chmod(0o600)
    assert load(folder.file, {}).warnings == ()
    folder.file.write_text(text.replace(CANARY, "${SECRET}"))
    folder.file.chmod(0o644)
    assert load(folder.file, {"SECRET": CANARY}).warnings == ()


WRONG_PLACES = [
    ("endpoints.src", "secret_access_key", "[{}]"),
    ("endpoints.src", "secret_acces_key", "{}"),
    ("endpoints.src", "url", "{}"),
    ("endpoints.src", "url", "https://user:{}@host"),
    ("endpoints.src", "access_key_id", "[{}]"),
    ("endpoints.src", "type", "{}"),
    ("endpoints.src", "addressing", "{}"),
    ("endpoints.src", "verify_tls", "{}"),
    ("endpoints.src", "connect_timeout", "{}"),
    ("daemon", "concurrency", "{}"),
    ("daemon", "memory", "{}"),
    ("daemon", "state", "{}"),
]


@pytest.mark.parametrize(("table", "key", "shape"), WRONG_PLACES)
@pytest.mark.parametrize("way", ["interpolated", "override"])
def test_no_message_shows_what_a_variable_holds(
    folder: Folder, table: str, key: str, shape: str, way: str
) -> None:
    head = SRC if table != "daemon" else "[daemon]\n"
    if way == "override":
        name = f"S3FLOW__{table}__{key}".replace(".", "__").upper()
        problems = folder.problems(head, "[endpoints.x]\n", **{name: shape.format(CANARY)})
    else:
        head = head.replace('type = "s3"\n', "") if key == "type" else head
        value = shape.format("${SECRET}")
        problems = folder.problems(
            head,
            f'{key} = ["{value}"]\n' if "[" in shape else f'{key} = "{value}"\n',
            SECRET=CANARY,
        )
    assert problems
    assert CANARY not in "\n".join(problems)


@pytest.mark.parametrize("key", ["secret_access_key", "session_token", "secret_acces_key"])
def test_no_message_shows_a_literal_secret(folder: Folder, key: str) -> None:
    problems = folder.problems(SRC, f'{key} = "{CANARY}"\nregin = "x"\nverify_tls = "{{}}"\n')
    assert problems
    assert CANARY not in "\n".join(problems)


def test_bad_json_in_a_variable_is_not_shown(folder: Folder) -> None:
    problems = folder.problems("", S3FLOW__ENDPOINTS='{"src": ' + CANARY)
    assert problems
    assert CANARY not in "\n".join(problems)


def test_settings_do_not_print_their_secrets(folder: Folder) -> None:
    settings = folder.load(SRC, f'access_key_id = "A"\nsecret_access_key = "{CANARY}"\n')
    assert CANARY not in f"{settings!r} {settings}"


def test_the_error_drags_no_secret_along(folder: Folder) -> None:
    """A traceback prints causes and contexts as well."""
    with pytest.raises(ConfigError) as caught:
        folder.load(SRC, f'secret_access_key = ["{CANARY}"]\n')
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(ConfigError) as caught:
        folder.load(SRC, S3FLOW__ENDPOINTS='{"src": ' + CANARY)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
