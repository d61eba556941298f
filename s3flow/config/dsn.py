"""Reads where the state is kept: "sqlite:///…", "mysql://…", or the form that Go's MySQL driver takes.

No message repeats any of the text: a mistyped address may show its password anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote

from s3flow.config.units import parse_duration
from s3flow.state.address import MySqlAddress, SqliteAddress, StateAddress, Tls

SQLITE = "sqlite:///"
_URLS = ("mysql://", "mariadb://")
_FORM = '"mysql://user:password@host:3306/database"'
_PORT = 3306
_CONNECT_SECONDS = 10.0
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GO_PLACE = re.compile(r"(?P<net>[^()/@]*)(?:\((?P<at>.*)\))?", re.DOTALL)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# https://dev.mysql.com/doc/refman/8.4/en/identifiers.html: 64 characters, and none that ends in a
# space. Slashes and the like are allowed there, and here the sign of a password that was cut.
_DATABASE = re.compile(r"[^\x00/\\@:?#\s]{1,64}")
_TLS: Mapping[str, Tls] = {
    **dict.fromkeys(("true", "1", "required"), "required"),
    **dict.fromkeys(("false", "0", "off"), "off"),
    **dict.fromkeys(("skip-verify", "unverified"), "unverified"),
    "preferred": "preferred",
}
# What Go's driver knows and makes no difference here: how it talks to its own program, what s3flow
# sets itself (utf8mb4, UTC, prepared on neither side), or limits that it takes from the server.
# https://github.com/go-sql-driver/mysql#parameters
_HARMLESS = {
    *("allowallfiles", "allownativepasswords", "charset", "checkconnliveness", "clientfoundrows"),
    *("collation", "columnswithalias", "compress", "connectionattributes", "interpolateparams"),
    *("loc", "maxallowedpacket", "multistatements", "parsetime", "readtimeout"),
    *("rejectreadonly", "timetruncate", "time_zone", "writetimeout"),
}
_TAKEN = ("tls", "ca", "unix_socket", "connect_timeout")


class _Parts(NamedTuple):
    user: str
    password: str
    host: str
    port: int
    unix_socket: str
    database: str


@dataclass(frozen=True, slots=True)
class State:
    """What a setting says: the *address*, the parameters that were *ignored*, all its *secrets*."""

    address: StateAddress
    ignored: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show no secret."""
        return f"State({self.address})"


def parse_state(text: str) -> State:
    """Read the setting. Raises `ValueError` that says what is missing or wrong, never its value."""
    if text.startswith(SQLITE) and len(text) > len(SQLITE):
        return State(SqliteAddress(Path(text.removeprefix(SQLITE))))
    if _CONTROL.search(text):
        raise ValueError(f"has control characters: write {_FORM}, and them percent-encoded (%0A)")
    if text.startswith(_URLS):
        return _url(text)
    before, slash, _ = text.rpartition("/")
    if slash and "@" in before and not text.startswith("sqlite:"):
        return _go(text)
    raise ValueError(
        'is not a state database: write "sqlite:////var/lib/s3flow/state.db" (absolute), '
        f'"sqlite:///state.db" (beside the configuration) or {_FORM}'
    )


# --- mysql://user:password@host:3306/database?tls=true -----------------------------------------


def _url(text: str) -> State:
    if "#" in text:
        raise ValueError("has a #, which no such address has: in a password it is written %23")
    head, _, query = text.partition("://")[2].partition("?")
    authority, _, database = head.partition("/")
    login, _, place = authority.rpartition("@")
    if "(" in place:
        raise ValueError(
            f"is half a URL and half Go's form: write {_FORM}, or leave the mysql:// out"
        )
    user, _, password = login.partition(":")
    values = dict(_parameters(query))
    socket = values.pop("unix_socket", "")
    host, port = _host_and_port(place, 'in a password, "/", "?" and "@" are percent-encoded')
    if not host and not socket:
        raise ValueError(f"names no host: write {_FORM}, or ?unix_socket=/path")
    if host not in {"", "localhost"} and socket:
        raise ValueError("names a host and a unix_socket: keep one of the two")
    parts = _Parts(
        _decoded(user, "user"),
        _decoded(password, "password"),
        "" if socket else host,
        port,
        _absolute(socket, "unix_socket"),
        _decoded(database, "database"),
    )
    found, ignored = _completed(parts, values)
    if ignored:
        raise ValueError(f"has an unknown parameter: there are {', '.join(_TAKEN)}")
    return State(found, (), _secrets(parts.password, password))


def _decoded(text: str, what: str) -> str:
    if _ESCAPE.search(text):
        raise ValueError(f"has a % in its {what} that begins no escape: write it as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"has a {what} that is not UTF-8 behind its escapes") from None


# --- user:password@tcp(host:3306)/database?parseTime=true --------------------------------------


def _go(text: str) -> State:
    """Read Go's form, by its rules: the last slash, and the last @ before it, are what count.

    Only parameters and the database's name have escapes; everything else means itself.
    """
    head, _, tail = text.rpartition("/")
    login, _, place = head.rpartition("@")
    user, _, password = login.partition(":")
    database, _, query = tail.partition("?")
    found = _GO_PLACE.fullmatch(place)
    net, at = (found["net"], found["at"] or "") if found else ("", "")
    if found is None or net not in {"", "tcp", "unix"} or (at and not net):
        raise ValueError(
            "has no place that is known: Go's form is user:password@tcp(host:3306)/database or "
            "user:password@unix(/path)/database; in a parameter, / is written %2F"
        )
    socket = at or "/tmp/mysql.sock" if net == "unix" else ""  # noqa: S108 -- the driver's default
    host, port = ("", _PORT) if socket else _host_and_port(at or "127.0.0.1", "")
    path = _absolute(socket, "unix(…)")
    parts = _Parts(user, password, host, port, path, _decoded(database, "database"))
    values = dict(_parameters(query))
    values.pop("unix_socket", None)  # the driver's users name it in the place
    if "timeout" in values:
        values["connect_timeout"] = values.pop("timeout")
    address, ignored = _completed(parts, values)
    return State(address, ignored, _secrets(password))


# --- both ---------------------------------------------------------------------------------------


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        if name in seen:
            raise ValueError("has a parameter twice: keep one")
        seen.add(name)
        yield name, _decoded(value, "parameters")


def _host_and_port(place: str, hint: str) -> tuple[str, int]:
    host, port = place, ""
    if place.startswith("["):
        host, bracket, rest = place[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("has an IPv6 address that is not written as [::1]:3306")
        port = rest[1:]
    elif ":" in place:
        host, _, port = place.rpartition(":")
        if ":" in host:
            raise ValueError("has several colons in its host: an IPv6 address is written [::1]")
    usable = not port or (port.isascii() and port.isdigit() and len(port) < 6)
    if not usable or (port and not 0 < int(port) < 65_536):
        raise ValueError(f"has a port that is no number up to 65535{'; ' if hint else ''}{hint}")
    if any(sign in host for sign in "%()@/ "):
        raise ValueError("has a host that cannot be one")
    return host, int(port) if port else _PORT


def _absolute(path: str, what: str) -> str:
    if path and not path.startswith("/"):
        raise ValueError(f"has a path in {what} that is not absolute")
    return path


def _completed(parts: _Parts, values: dict[str, str]) -> tuple[MySqlAddress, tuple[str, ...]]:
    """Put the parameters in; give the names of those that are not known."""
    if not parts.user:
        raise ValueError(f"names no user: write {_FORM}")
    if not parts.database:
        raise ValueError(f"names no database: write {_FORM}")
    if _DATABASE.fullmatch(parts.database) is None:
        raise ValueError(
            "has a database name with a slash, a space or the like, or over 64 characters; if that "
            'is part of the password, percent-encode "/", "?" and "@" there'
        )
    ca = _absolute(values.pop("ca", ""), "ca")
    # On the way to a socket of this machine nobody listens.
    usual: Literal["off", "preferred"] = "off" if parts.unix_socket else "preferred"
    tls = _tls(values.pop("tls", ""), "required" if ca else usual)
    if ca and tls != "required":
        raise ValueError("names a ca without tls=true: only then is the server's name checked")
    address = MySqlAddress(
        **parts._asdict(),
        tls=tls,
        ca_file=Path(ca) if ca else None,
        connect_timeout=_seconds(values.pop("connect_timeout", "")),
    )
    return address, tuple(_named(name) for name in values if name.lower() not in _HARMLESS)


def _tls(value: str, usual: Tls) -> Tls:
    if not value:
        return usual
    try:
        return _TLS[value.lower()]
    except KeyError:
        raise ValueError("has a tls that is none of true, skip-verify, preferred, false") from None


def _seconds(value: str) -> float:
    if not value:
        return _CONNECT_SECONDS
    try:
        seconds = parse_duration(value)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError('has a time to connect that is no duration: write "10s"')
    return seconds


def _named(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else "one whose name is no word"


def _secrets(*forms: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(form for form in forms if form))
