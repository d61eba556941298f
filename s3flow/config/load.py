"""Reads the TOML file and the environment, once, and reports everything that is wrong at once."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError, TomlConfigSettingsSource

from s3flow.config.checks import combination_problems, combination_warnings
from s3flow.config.dsn import SQLITE
from s3flow.config.problems import Loc, describe, path_of, place_of, unknown_variable
from s3flow.config.settings import Settings
from s3flow.errors import ConfigError

PREFIX = "S3FLOW__"
_SECRETS = {"secret_access_key", "session_token", "customer_key", "listen_password"}
_VARIABLE = re.compile(r"\$?\$\{([^}]*)\}")
_QUOTED = re.compile(r"'[^']{4,}'|\"[^\"]{4,}\"")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Tree = dict[str, Any]  # what TOML is: the library's own type


class _Environment(EnvSettingsSource):
    """The variables of the mapping that `load` was given, rather than the process's own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(
            Settings, case_sensitive=False, env_prefix=PREFIX, env_nested_delimiter="__"
        )

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items()}


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read *path*, put the environment over it, check the whole.

    Raises `ConfigError` with one line per problem. No message ever holds a secret's value.
    """
    file = _read(path)
    literal_secrets = [place for place, text in _strings(file) if _literal_secret(place, text)]
    overrides, problems = _overrides(environ, file)
    dynamic = {place for place, text in _strings(file) if "${" in text}
    missing = _interpolate(file, environ)
    problems += [f"{path}: {path_of(place)}: {what}" for place, what in missing.items()]
    merged = _merge(file, overrides)
    _anchor(merged, path.absolute().parent)
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        origin = _Origin(path, overrides, dynamic)
        for detail in error.errors(include_url=False):
            if place_of(detail) not in missing:
                problems.append(origin.line(detail))
        settings = None
    if settings is not None and not problems:
        problems = [f"{path}: {line}" for line in combination_problems(settings)]
    if settings is None or problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    warnings = [*_exposed(path, literal_secrets), *combination_warnings(settings)]
    settings._warnings = tuple(f"{path}: {line}" for line in warnings)  # noqa: SLF001 -- ours
    settings._folder = path.absolute().parent  # noqa: SLF001
    return settings


def _read(path: Path) -> Tree:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file: write one (config.example.toml shows all)")
    try:
        data: Tree = TomlConfigSettingsSource(Settings, toml_file=path).toml_data
    except tomllib.TOMLDecodeError as error:
        # The parser's message gives line and column; what it quotes may be a secret in a wrong place.
        said = _QUOTED.sub("…", str(error))
        raise ConfigError(f"{path}: not valid TOML: {said}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return data


def _overrides(environ: Mapping[str, str], file: Tree) -> tuple[Tree, list[str]]:
    names = [name for name in environ if name.upper().startswith(PREFIX)]
    problems = []
    for name in names:
        head, *rest = name.upper().removeprefix(PREFIX).split("__")
        if head.lower() not in Settings.model_fields:
            problems.append(unknown_variable(name, PREFIX))
        elif head == "FLOWS" and rest:
            problems.append(
                f"{name}: flows cannot be set one by one here: use ${{VAR}} in the file"
            )
    try:
        found: Tree = _Environment({name: environ[name] for name in names})()
    except SettingsError as error:
        # The cause holds the value; the message of the error itself names only the setting.
        return {}, [*problems, f"{PREFIX}*: {error}"]
    if problems:
        found.pop("flows", None)
    endpoints = found.get("endpoints")
    if isinstance(endpoints, dict):
        found["endpoints"] = _spelled(endpoints, file.get("endpoints"))
    return found, problems


def _spelled(endpoints: Tree, known: object) -> Tree:
    """Give endpoints the file's names: variables have neither small letters nor hyphens."""
    names = known if isinstance(known, dict) else {}
    spelling = {re.sub(r"[.-]", "_", name).lower(): name for name in names}
    return {spelling.get(name, name): value for name, value in endpoints.items()}


def _strings(node: object, loc: Loc = ()) -> Iterator[tuple[Loc, str]]:
    if isinstance(node, str):
        yield loc, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _strings(value, (*loc, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _strings(value, (*loc, index))


def _interpolate(file: Tree, environ: Mapping[str, str]) -> dict[Loc, str]:
    """Put variables into the strings of *file*, in place; give what is missing, by location."""
    missing: dict[Loc, str] = {}
    for loc, text in list(_strings(file)):
        if "${" not in text:
            continue
        parent: Any = file
        for step in loc[:-1]:
            parent = parent[step]
        parent[loc[-1]] = _VARIABLE.sub(_replacer(loc, environ, missing), text)
    return missing


def _replacer(
    loc: Loc, environ: Mapping[str, str], missing: dict[Loc, str]
) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if match[0].startswith("$$"):  # $${…} stands for a literal ${…}
            return match[0][1:]
        if name in environ:
            return environ[name]
        if _NAME.fullmatch(name):
            missing[loc] = f"the environment variable {name} is not set"
        else:
            missing[loc] = "has ${…} around what is no name of a variable: write ${NAME}"
        return match[0]

    return replace


def _merge(under: Tree, over: Tree) -> Tree:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(below or {}, value) if both else value
    return merged


def _anchor(data: Tree, folder: Path) -> None:
    """Make relative paths absolute: they are meant from the configuration's folder."""
    daemon = data.get("daemon")
    if isinstance(daemon, dict):
        state = daemon.get("state")
        if isinstance(state, str) and state.startswith(SQLITE) and state != SQLITE:
            file = folder / state.removeprefix(SQLITE)
            data["daemon"] = {**daemon, "state": f"{SQLITE}{file}"}
    endpoints = data.get("endpoints")
    if not isinstance(endpoints, dict):
        return
    for name, endpoint in list(endpoints.items()):
        if isinstance(endpoint, dict):
            paths = {key: endpoint.get(key) for key in ("path", "ca_file")}
            absolute = {k: str(folder / v) for k, v in paths.items() if isinstance(v, str) and v}
            endpoints[name] = {**endpoint, **absolute}


class _Origin:
    """Knows whether a value came from the file, through ${…}, or from a variable."""

    def __init__(self, path: Path, overrides: Tree, dynamic: set[Loc]) -> None:
        self._path = path
        self._overridden = {loc for loc, _ in _strings(overrides)}
        self._dynamic = dynamic

    def line(self, detail: Any) -> str:
        loc = place_of(detail)
        if loc in self._overridden:
            variable = PREFIX + "__".join(re.sub(r"[.-]", "_", str(step)).upper() for step in loc)
            return f"{variable}: {describe(detail, showable=False)}"
        showable = not any(place[: len(loc)] == loc for place in self._dynamic)
        return f"{self._path}: {path_of(loc)}: {describe(detail, showable=showable)}"


def _literal_secret(loc: Loc, text: str) -> bool:
    if not text or "${" in text:
        return False
    if loc == ("daemon", "state"):  # an address with a login
        return "@" in text and not text.startswith(SQLITE)
    return bool(loc) and loc[-1] in _SECRETS


def _exposed(path: Path, literal_secrets: list[Loc]) -> Iterator[str]:
    if literal_secrets and path.stat().st_mode & stat.S_IROTH:
        names = ", ".join(path_of(loc) for loc in literal_secrets)
        yield f"everybody on this machine can read {names}: chmod 600, or write ${{VAR}} instead"
