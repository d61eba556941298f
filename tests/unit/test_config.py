"""The configuration: what is written is what runs, and what is wrong is told in one go."""

from __future__ import annotations

import base64
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from s3flow.config import DaemonSettings, FlowSettings, LocalEndpoint, S3Endpoint, Settings, load
from s3flow.config.prices import PriceSettings
from s3flow.config.units import parse_duration, parse_size
from s3flow.model import GIB, MIB, Filters, Flow, Place
from s3flow.policies import Mode, Overwrite, TagPolicy
from s3flow.state.address import SqliteAddress
from tests.unit.config_kit import CANARY, DST, EXAMPLE, NAS, SRC, Folder, flow, folder

__all__ = ["folder"]  # a fixture


# --- the example ----------------------------------------------------------------------------------


def written(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_example_shows_every_setting_with_its_default() -> None:
    tables = tomllib.loads(EXAMPLE.read_text())
    settings = load(EXAMPLE, {})
    pairs: list[tuple[dict[str, Any], BaseModel]] = [
        (tables["daemon"], settings.daemon),
        (tables["prices"], settings.prices),
        (tables["endpoints"]["src"], settings.endpoints["src"]),
        (tables["endpoints"]["nas"], settings.endpoints["nas"]),
        (tables["flows"][0], settings.flows[0]),
    ]
    assert set(tables) == written(Settings)
    models = [DaemonSettings, PriceSettings, S3Endpoint, LocalEndpoint, FlowSettings]
    for (table, loaded), model in zip(pairs, models, strict=True):
        assert isinstance(loaded, model)
        assert set(table) == written(model)
        for name, field in model.model_fields.items():
            if field.default is not PydanticUndefined:
                assert getattr(loaded, name) == field.default, name


def test_example_explains_every_setting() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if " = " in line and line[0] != "#"]
    wordless = {"type", "name"}
    for line in lines:
        name = line.split(" = ", maxsplit=1)[0]
        assert name in wordless or " # " in line, f"{name} has no comment"


def test_flow_settings_and_flow_have_the_same_defaults(folder: Folder) -> None:
    settings = folder.load(SRC, DST, flow("src:bucket/a/", "dst:other/b/"))
    assert settings.flow_specs() == [
        Flow(name="one", source=Place("src", "bucket", b"a/"), target=Place("dst", "other", b"b/"))
    ]


# --- what is written is what runs -----------------------------------------------------------------


def test_every_setting_of_a_flow_reaches_the_engine(folder: Folder) -> None:
    settings = folder.load(
        SRC,
        DST,
        flow(
            "src:logs-*/2024/",
            "dst:",
            'mode = "copy"\nevery = "10m"\noverwrite = "never"\ntags = "drop"',
            'include = ["*.gz"]\nexclude = ["tmp/*"]\nmin_size = 1\nmax_size = "1GiB"',
            'min_age = "1h30m"\nmax_age = "7d"\nstorage_classes = ["STANDARD"]',
            'exclude_buckets = ["logs-old"]\nstorage_class = "STANDARD_IA"',
            'storage_class_map = { GLACIER_IR = "STANDARD" }',
            'rewrite = [{ from = "old/", to = "new/" }]\nmultipart_threshold = "16MiB"',
            'part_size = "8MiB"\nlanes = 2\nmax_attempts = 3\nconcurrency = 4',
            'max_bytes_per_s = "50MiB"\nmax_requests_per_s = 100',
        ),
    )
    assert settings.flow_specs() == [
        Flow(
            name="one",
            source=Place("src", "logs-*", b"2024/"),
            target=Place("dst", "{bucket}", b""),
            filters=Filters(
                include=("*.gz",),
                exclude=("tmp/*",),
                min_size=1,
                max_size=GIB,
                min_age=5400.0,
                max_age=7 * 86_400.0,
                storage_classes=("STANDARD",),
            ),
            overwrite=Overwrite.NEVER,
            mode=Mode.COPY,
            every=600.0,
            tags=TagPolicy.DROP,
            storage_class="STANDARD_IA",
            storage_class_map={"GLACIER_IR": "STANDARD"},
            rewrite=(("old/", "new/"),),
            exclude_buckets=("logs-old",),
            multipart_threshold=16 * MIB,
            part_size=8 * MIB,
            lanes=2,
            max_attempts=3,
            concurrency=4,
            max_bytes_per_s=50 * MIB,
            max_requests_per_s=100,
        )
    ]


@pytest.mark.parametrize(
    ("source", "target", "place"),
    [
        ("src:b", "nas:", Place("nas", "", b"")),
        ("src:b", "nas:some/dir/", Place("nas", "", b"some/dir/")),
        ("src:b", "nas:{bucket}/x/", Place("nas", "{bucket}", b"x/")),
        ("src:*", "nas:", Place("nas", "{bucket}", b"")),
        ("src:*", "nas:{bucket}/", Place("nas", "{bucket}", b"")),
        ("src:log-[ab]", "dst:", Place("dst", "{bucket}", b"")),
        ("src:*", "dst:{bucket}/p/", Place("dst", "{bucket}", b"p/")),
        ("src:b/x", "dst:c", Place("dst", "c", b"")),
        ("src:b/é/", "dst:c//ü/", Place("dst", "c", "/ü/".encode())),
    ],
)
def test_targets(folder: Folder, source: str, target: str, place: Place) -> None:
    [spec] = folder.load(SRC, DST, NAS, flow(source, target)).flow_specs()
    assert spec.target == place


def test_relative_paths_are_meant_from_the_files_folder(folder: Folder) -> None:
    settings = folder.load(
        '[daemon]\nstate = "sqlite:///state/s3flow.db"\n',
        '[endpoints.nas]\ntype = "local"\npath = "archive"\n',
        '[endpoints.src]\ntype = "s3"\nca_file = "ca.pem"\n',
    )
    assert settings.daemon.state_address == SqliteAddress(folder.path / "state/s3flow.db")
    nas, src = settings.endpoints["nas"], settings.endpoints["src"]
    assert isinstance(nas, LocalEndpoint)
    assert isinstance(src, S3Endpoint)
    assert nas.root == folder.path / "archive"
    assert src.ca_file == str(folder.path / "ca.pem")


def test_listener_can_be_switched_off(folder: Folder) -> None:
    assert folder.load('[daemon]\nlisten = "off"\n').daemon.listen == ""
    assert folder.load('[daemon]\nlisten = ""\n').daemon.listen == ""


def test_remote_listener_needs_a_password(folder: Folder) -> None:
    text = '[daemon]\nlisten = "0.0.0.0:9440"\n'
    loaded = folder.load(text + 'listen_password = "${SECRET}"\n', SECRET=CANARY)
    assert loaded.daemon.listen == "0.0.0.0:9440"
    login = base64.b64encode(f"s3flow:{CANARY}".encode()).decode()
    assert loaded.secrets() == [CANARY, login]
    [short] = folder.problems(text + 'listen_password = "0815-abc"\n')
    assert "daemon.listen_password: has fewer than 12 characters" in short
    assert "0815" not in short
    [colon] = folder.problems(text + f'listen_password = "{CANARY}"\nlisten_user = "a:b"\n')
    assert "daemon.listen_user" in colon
    [problem] = folder.problems(text)
    assert problem.startswith("daemon.listen: '0.0.0.0:9440' can be reached from other machines")
    assert "set daemon.listen_password" in problem
    for loopback in ("127.0.0.1:0", "[::1]:9440", "localhost:9440", "127.1.2.3:1"):
        assert folder.load(f'[daemon]\nlisten = "{loopback}"\n').daemon.listen == loopback
    [gone] = folder.problems(text + "allow_remote_metrics = true\n")
    assert "daemon.allow_remote_metrics: is no setting any more: remove it, and set" in gone


# --- the environment ------------------------------------------------------------------------------


def test_variables_in_strings(folder: Folder) -> None:
    settings = folder.load(
        '[endpoints.src]\ntype = "s3"\naccess_key_id = "${KEY}"\nsecret_access_key = "${SECRET}"\n',
        DST,
        flow("src:${STAGE}-data/${STAGE}/", "dst:x", 'include = ["${STAGE}*", "$${STAGE}"]'),
        KEY="AKIA1",
        SECRET=CANARY,
        STAGE="prod",
    )
    src = settings.endpoints["src"]
    assert isinstance(src, S3Endpoint)
    assert src.secret_access_key.get_secret_value() == CANARY
    assert settings.secrets() == [CANARY]
    [spec] = settings.flow_specs()
    assert spec.source == Place("src", "prod-data", b"prod/")
    assert spec.filters.include == ("prod*", "${STAGE}")


def test_missing_variable_names_key_and_variable(folder: Folder) -> None:
    text = '[endpoints.src]\ntype = "s3"\nurl = "${WHERE}"\nprofile = "${not a name}"\n'
    assert folder.problems(text) == [
        "endpoints.src.url: the environment variable WHERE is not set",
        "endpoints.src.profile: has ${…} around what is no name of a variable: write ${NAME}",
    ]


def test_environment_overrides_the_file(folder: Folder) -> None:
    text = "[daemon]\nconcurrency = 3\nmax_requests_per_s = 5\n"
    text += '[endpoints.my-src]\ntype = "s3"\nregion = "eu-west-1"\n'
    settings = folder.load(
        text,
        S3FLOW__DAEMON__CONCURRENCY="8",
        S3FLOW__ENDPOINTS__MY_SRC__SECRET_ACCESS_KEY=CANARY,
        S3FLOW__ENDPOINTS__MY_SRC__ACCESS_KEY_ID="AKIA1",
        S3FLOW__ENDPOINTS__MY_SRC__VERIFY_TLS="false",
    )
    assert (settings.daemon.concurrency, settings.daemon.max_requests_per_s) == (8, 5)
    src = settings.endpoints["my-src"]
    assert isinstance(src, S3Endpoint)
    assert (src.region, src.verify_tls) == ("eu-west-1", False)
    assert src.secret_access_key.get_secret_value() == CANARY
    assert any("verify_tls" in warning for warning in settings.warnings)


def test_variables_that_set_nothing_are_told(folder: Folder) -> None:
    problems = folder.problems(
        "",
        S3FLOW__DEAMON__CONCURRENCY="1",
        S3FLOW__DAEMON__CONCURENCY="1",
        S3FLOW__FLOWS__0__EVERY="1m",
    )
    assert problems == [
        "S3FLOW__DEAMON__CONCURRENCY: is not a setting; did you mean S3FLOW__DAEMON?",
        "S3FLOW__FLOWS__0__EVERY: flows cannot be set one by one here: use ${VAR} in the file",
        "S3FLOW__DAEMON__CONCURENCY: is not a setting; did you mean concurrency?",
    ]


def test_the_process_environment_is_not_read(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3FLOW__DAEMON__CONCURRENCY", "7")
    monkeypatch.setenv("DAEMON", "{}")
    assert folder.load("").daemon == DaemonSettings()
    assert Settings().daemon == DaemonSettings()


# --- sizes and durations --------------------------------------------------------------------------


UNITS = {"": 1, "B": 1, "KB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20}
UNITS |= {"GB": 10**9, "GiB": 2**30, "TB": 10**12, "TiB": 2**40}
SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


@given(st.integers(0, 9_000), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_sizes(number: int, unit: str, gap: str) -> None:
    text = f"{number}{gap if unit else ''}{unit}"
    assert parse_size(text) == parse_size(text.lower()) == number * UNITS[unit]


@given(st.integers(0, 2**63 - 1))
def test_plain_sizes(number: int) -> None:
    assert parse_size(number) == parse_size(str(number)) == number


def test_fractions_of_sizes() -> None:
    assert parse_size("1.5GiB") == 3 * GIB // 2
    assert parse_size("0.1KB") == 100
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_size("0.5B")


@given(st.dictionaries(st.sampled_from(sorted(SECONDS)), st.integers(0, 99), min_size=1))
def test_durations(parts: dict[str, int]) -> None:
    text = "".join(f"{number}{unit}" for unit, number in parts.items())
    assert parse_duration(text) == sum(number * SECONDS[unit] for unit, number in parts.items())


@given(st.floats(0, 1e6))
def test_plain_durations(seconds: float) -> None:
    assert parse_duration(seconds) == seconds


@pytest.mark.parametrize("parse", [parse_size, parse_duration])
@given(value=st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none()))
def test_anything_else_is_a_value_error(parse: Any, value: object) -> None:
    try:
        result = parse(value)
    except ValueError:
        return  # the one refusal that settings expect; any other exception fails the test
    assert result >= 0
    assert not isinstance(value, bool)


@pytest.mark.parametrize("bad", ["", "MiB", "-1", "1 2", "64M", "1e3", "٣", "1_000", 2**63, -1])
def test_refused_sizes(bad: object) -> None:
    with pytest.raises(ValueError):
        parse_size(bad)


@pytest.mark.parametrize("bad", ["", "s", "-1s", "1h 2", "1h2h", "1x", "10 minutes", "99999999d"])
def test_refused_durations(bad: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(bad)


def test_the_example_loads_from_anywhere(tmp_path: Path) -> None:
    copy = tmp_path / "config.toml"
    shutil.copy(EXAMPLE, copy)
    assert load(copy, {}).flow_specs() == load(EXAMPLE, {}).flow_specs()
