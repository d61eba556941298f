"""Where the state is kept: every form is read as its own rules say, and no message shows a password."""

from __future__ import annotations

import re
import string
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.config import load
from s3flow.config.dsn import parse_state
from s3flow.errors import ConfigError
from s3flow.state.address import MySqlAddress, SqliteAddress

CANARY = "canary-8c1f0b"
# Anything but control characters, which need escapes, and what no UTF-8 can say.
LOGINS = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("@:/?#%&()[]+= '\"\\"),
    max_size=20,
)
USERS = LOGINS.filter(bool)
NAMES = st.text(string.ascii_letters + string.digits + "_-.$", min_size=1, max_size=64)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?", fullmatch=True)
PORTS = st.integers(1, 65_535)


def mysql(text: str) -> MySqlAddress:
    address = parse_state(text).address
    assert isinstance(address, MySqlAddress)
    return address


def problem(text: str) -> str:
    with pytest.raises(ValueError) as caught:
        parse_state(text)
    return str(caught.value)


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (
            "mysql://s3flow:pw@db/moves",
            MySqlAddress("db", 3306, "", "s3flow", "pw", "moves", "preferred"),
        ),
        (
            "mariadb://u@10.0.0.1:3307/d?tls=false",
            MySqlAddress("10.0.0.1", 3307, "", "u", "", "d", "off"),
        ),
        (
            "mysql://u:p%40%2F%3a%25%3F@[fe80::1]:33060/d?tls=true&ca=/etc/ca.pem&connect_timeout=1m",
            MySqlAddress(
                "fe80::1", 33060, "", "u", "p@/:%?", "d", "required", Path("/etc/ca.pem"), 60.0
            ),
        ),
        ("mysql://u:a@b:c@[::1]/d", MySqlAddress("::1", 3306, "", "u", "a@b:c", "d", "preferred")),
        (
            "mysql://u:p@/d?unix_socket=%2Frun%2Fmysqld%2Fmysqld.sock",
            MySqlAddress("", 3306, "/run/mysqld/mysqld.sock", "u", "p", "d", "off"),
        ),
        (
            "mysql://u:p@localhost/d?unix_socket=/s",
            MySqlAddress("", 3306, "/s", "u", "p", "d", "off"),
        ),
        (
            "mysql://u:p@h/d?tls=skip-verify&charset=utf8mb4&parseTime=true",
            MySqlAddress("h", 3306, "", "u", "p", "d", "unverified"),
        ),
        (
            "mysql://u:p@h/d?ca=/ca.pem",
            MySqlAddress("h", 3306, "", "u", "p", "d", "required", Path("/ca.pem")),
        ),
    ],
)
def test_urls(text: str, address: MySqlAddress) -> None:
    assert mysql(text) == address


@given(USERS, LOGINS, HOSTS, PORTS, NAMES)
def test_every_login_comes_back_from_a_url(
    user: str, password: str, host: str, port: int, database: str
) -> None:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    found = parse_state(f"mysql://{login}@{host}:{port}/{database}")
    assert found.address == MySqlAddress(host, port, "", user, password, database, "preferred")
    assert not password or {password, quote(password, safe="")} == set(found.secrets)


# --- Go's form ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (
            "root:secret@tcp(127.0.0.1:3306)/documents?parseTime=true&charset=utf8mb4,utf8&loc=Local",
            MySqlAddress("127.0.0.1", 3306, "", "root", "secret", "documents", "preferred"),
        ),
        (
            "u:p@ss:w/o@rd@tcp(db)/d?tls=skip-verify&timeout=5s",
            MySqlAddress(
                "db", 3306, "", "u", "p@ss:w/o@rd", "d", "unverified", connect_timeout=5.0
            ),
        ),
        (
            "u:p@unix(/tmp/my.sock)/d",
            MySqlAddress("", 3306, "/tmp/my.sock", "u", "p", "d", "off"),
        ),
        ("u@unix/d", MySqlAddress("", 3306, "/tmp/mysql.sock", "u", "", "d", "off")),
        ("u@/d", MySqlAddress("127.0.0.1", 3306, "", "u", "", "d", "preferred")),
        (
            "u:p%41@tcp([de:ad:be:ef::ca:fe]:80)/d?tls=true&loc=US%2FPacific",
            MySqlAddress("de:ad:be:ef::ca:fe", 80, "", "u", "p%41", "d", "required"),
        ),
        ("mysql:p(w@tcp(h)/d", MySqlAddress("h", 3306, "", "mysql", "p(w", "d", "preferred")),
    ],
)
def test_gos_form(text: str, address: MySqlAddress) -> None:
    found = parse_state(text)
    assert found.address == address
    assert found.ignored == ()


@given(USERS.filter(lambda user: ":" not in user), LOGINS, HOSTS, PORTS, NAMES)
def test_every_login_comes_back_from_gos_form(
    user: str, password: str, host: str, port: int, database: str
) -> None:
    text = f"{user}:{password}@tcp({host}:{port})/{database}?parseTime=true"
    found = parse_state(text)
    assert found.address == MySqlAddress(host, port, "", user, password, database, "preferred")
    assert found.secrets == ((password,) if password else ())


def test_what_gos_driver_knows_and_s3flow_does_not_is_named() -> None:
    text = "u:p@tcp(h)/d?parseTime=true&serverPubKey=x&sql_mode=ANSI&a-b=1&loc=Asia%2FKolkata"
    assert parse_state(text).ignored == ("serverPubKey", "sql_mode", "one whose name is no word")


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sqlite:///", "is not a state database"),
        ("sqlite://u@h/x", "is not a state database"),
        ("/var/lib/s3flow/state.db", "is not a state database"),
        ("postgres://h/x", "is not a state database"),
        ("", "is not a state database"),
        ("mysql:///d", "names no host"),
        ("mysql://u:p@/d", "names no host"),
        ("mysql://h/d", "names no user"),
        ("mysql://u:p@h", "names no database"),
        ("mysql://u:p@h/", "names no database"),
        ("mysql://u:p@h:0/d", "has a port"),
        ("mysql://u:p@h:99999/d", "has a port"),
        ("mysql://u:p@h:33x/d", "has a port"),
        ("mysql://u:p@::1/d", "has several colons in its host"),
        ("mysql://u:p@[::1/d", "has an IPv6 address"),
        ("mysql://u:p@h/d?tls=maybe", "has a tls that is none of"),
        ("mysql://u:p@h/d?tls=true&tls=false", "has a parameter twice"),
        ("mysql://u:p@h/d?tls=false&ca=/x", "names a ca without tls=true"),
        ("mysql://u:p@h/d?ca=ca.pem", "has a path in ca that is not absolute"),
        ("mysql://u:p@h/d?tsl=true", "has an unknown parameter: there are tls, ca"),
        ("mysql://u:p@h/d?connect_timeout=0", "has a time to connect"),
        ("mysql://u:p@h/d?unix_socket=/x", "names a host and a unix_socket"),
        ("mysql://u:p@h/d#x", "has a #"),
        ("mysql://u:p%@h/d", "has a % in its password"),
        ("mysql://u:p%ff@h/d", "has a password that is not UTF-8"),
        ("mysql://u:p\n@h/d", "has control characters"),
        ("mysql://u:p@tcp(h:3306)/d", "is half a URL and half Go's form"),
        ("u:p@tcp(h:3306)", "is not a state database"),
        ("u:p@tcp(h:3306)/", "names no database"),
        (":p@tcp(h:3306)/d", "names no user"),
        ("u:p@cloudsql(h)/d", "has no place that is known"),
        ("u:p@tcp(h:3306/d", "has no place that is known"),
        ("u:p@tcp(h)/d?loc=Asia/Kolkata", "has no place that is known"),
        ("u:p@unix(my.sock)/d", "has a path in unix(…) that is not absolute"),
    ],
)
def test_what_is_missing_is_named(text: str, part: str) -> None:
    assert problem(text).startswith(part)


@pytest.mark.parametrize("sign", "/?#%@:()[] ")
def test_a_password_that_was_not_escaped_is_read_whole_or_refused(sign: str) -> None:
    password = f"{CANARY}{sign}{CANARY}"
    try:
        assert mysql(f"mysql://u:{password}@h:3306/d").password == password
    except ValueError as error:
        assert CANARY not in str(error)  # noqa: PT017 -- either is right
        assert sign in "/?#%"


@given(st.text(string.printable + "é\x00", max_size=12), st.text("/?#%@:()[]=& a1", max_size=12))
def test_no_text_gets_out(before: str, after: str) -> None:
    for text in (
        f"mysql://{before}{CANARY}{after}",
        f"mysql://u:{before}{CANARY}{after}@h",
        f"u:{CANARY}{before}@tcp(h{after}",
        f"{before}{CANARY}{after}",
    ):
        try:
            found = parse_state(text)
        except ValueError as error:
            assert CANARY not in str(error)  # noqa: PT017 -- hostile text may be an address
        else:
            password = getattr(found.address, "password", "")
            shown = f"{found!r} {found.address}"
            assert CANARY not in password or password not in shown
            assert found.secrets or not password


# --- in a configuration ---------------------------------------------------------------------------

NASTY = r"p@ss:w/o?r#d%41${HOME}$$ \"'"


def written(folder: Path, line: str) -> Path:
    file = folder / "config.toml"
    file.write_text(f"[daemon]\n{line}\n")
    file.chmod(0o600)
    return file


def test_a_variable_holds_the_whole_address(tmp_path: Path) -> None:
    file = written(tmp_path, 'state = "${MYSQL_DSN}"')
    text = f"mover:{NASTY}@tcp(db:3306)/documents?parseTime=true&sql_mode=ANSI"
    settings = load(file, {"MYSQL_DSN": text})
    assert settings.daemon.state_address == MySqlAddress(
        "db", 3306, "", "mover", NASTY, "documents", "preferred"
    )
    assert settings.secrets() == [NASTY]
    assert NASTY not in f"{settings!r}{settings.warnings}{settings.daemon.state_address}"
    assert settings.warnings == (
        f"{file}: daemon.state: parameters that s3flow does not know are ignored: sql_mode",
    )


def test_a_files_path_is_the_address_too(tmp_path: Path) -> None:
    settings = load(written(tmp_path, 'state = "sqlite:///state.db"'), {})
    assert settings.daemon.state_address == SqliteAddress(tmp_path / "state.db")
    assert settings.secrets() == []


@pytest.mark.parametrize("text", [f"u:{CANARY}@tcp(h)", f"mysql://u:{CANARY}/x@h/d"])
def test_problems_name_the_setting_and_show_no_password(tmp_path: Path, text: str) -> None:
    for line, environ in (
        (f'state = "{text}"', {}),
        ('state = "${MYSQL_DSN}"', {"MYSQL_DSN": text}),
        ("", {"S3FLOW__DAEMON__STATE": text}),
    ):
        with pytest.raises(ConfigError) as caught:
            load(written(tmp_path, line), environ)
        assert CANARY not in str(caught.value)
        assert re.search(r"daemon\.state|DAEMON__STATE", str(caught.value))


def test_a_password_in_a_file_that_all_can_read_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, f'state = "mysql://u:{CANARY}@h/d"')
    file.chmod(0o644)
    [warning] = load(file, {}).warnings
    assert "everybody on this machine can read daemon.state" in warning
    file.write_text('[daemon]\nstate = "sqlite:////a@b"\n')
    assert load(file, {}).warnings == ()
