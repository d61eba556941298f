"""The configuration: what is written is what runs, and what is wrong is told in one go."""

from __future__ import annotations

import base64
import shutil
import tomllib
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from s3flow.config import (
    DaemonSettings,
    FlowSettings,
    LocalEndpoint,
    S3Endpoint,
    Settings,
    load,
)
from s3flow.config.prices import PriceSettings
from s3flow.config.units import parse_duration, parse_size
from s3flow.errors import ConfigError
from s3flow.model import GIB, MIB, Filters, Flow, Place
from s3flow.policies import MethodPolicy, Mode, Overwrite, TagPolicy
from s3flow.state.address import SqliteAddress

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


# --- what is wrong is told in one go --------------------------------------------------------------


def test_all_problems_come_at_once(folder: Folder) -> None:
    problems = folder.problems(
        '[daemon]\nconcurency = 3\nlog_level = "loud"\ndrain_timeout = "soon"\nmemory = "1KiB"\n',
        '[endpoints.src]\ntype = "s3"\nregin = "x"\nverify_tls = "maybe"\n',
        '[endpoints.g]\ntype = "gcs"\n[endpoints.f]\ntype = "ftp"\n[endpoints.h]\npath = "x"\n',
        flow("src:a", "nas:", 'overwrite = "sometimes"', "lanes = 0", 'part_size = "3 quux"'),
        '[[flows]]\nname = "two words"\nsource = 3\nevery = 0\n',
        "[zap]\n",
    )
    assert problems == [
        "daemon.memory: '1KiB' is less than 1048576",
        "daemon.drain_timeout: 'soon' is not a duration: write seconds, "
        'or "20s", "10m", "1h30m", "7d"',
        "daemon.log_level: 'loud' is not one of debug, info, warning, error",
        "daemon.concurency: is not a setting; did you mean concurrency?",
        "endpoints.src.verify_tls: 'maybe' is neither true nor false",
        "endpoints.src.regin: is not a setting; did you mean region?",
        "endpoints.g.type: gcs endpoints are not supported by this version",
        "endpoints.f.type: 'ftp' is not a type of endpoint: s3, local",
        'endpoints.h: is missing its type: write type = "s3" or type = "local"',
        "flows[0].overwrite: 'sometimes' is not one of changed, never, always",
        'flows[0].part_size: \'3 quux\' is not a size: write bytes, or "64MiB", "5GB"',
        "flows[0].lanes: 0 is less than 1",
        "flows[1].name: 'two words' is not a name: "
        "use up to 63 letters, digits, dots, hyphens, underscores",
        "flows[1].source: the value is not a string",
        "flows[1].target: is missing",
        "flows[1].every: 0 is not more than 0",
        "zap: is not a setting; known here: daemon, endpoints, flows, prices",
    ]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        load(tmp_path / "nowhere.toml", {})


def test_syntax_errors_name_the_line(folder: Folder) -> None:
    [problem] = folder.problems("[daemon]\nconcurrency = = 3\n")
    assert problem.startswith("not valid TOML: ")
    assert "line 2" in problem


def test_file_that_is_no_utf8(folder: Folder) -> None:
    folder.file.write_bytes(b'[daemon]\nlog_level = "\xff"\n')
    with pytest.raises(ConfigError, match="not UTF-8 at byte 22"):
        load(folder.file, {})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('state = "mysql://u:p@db"', "daemon.state: the value names no database: write"),
        ('state = "sqlite:///"', "daemon.state: the value is not a state database"),
        ('queue = "redis://h"', "daemon.queue: the value is not supported by this version"),
        ('listen = "9440"', "daemon.listen: '9440' is not an address"),
        ("concurrency = true", "daemon.concurrency: True is not a whole number"),
        ("concurrency = 1.5", "daemon.concurrency: 1.5 is not a whole number"),
        ("memory = true", "daemon.memory: True is not a size"),
        ("drain_timeout = nan", "daemon.drain_timeout: nan is out of range"),
        ('log_interval = "0s"', "daemon.log_interval: '0s' is not more than 0"),
    ],
)
def test_daemon_refusals(folder: Folder, text: str, part: str) -> None:
    [problem] = folder.problems(f"[daemon]\n{text}\n")
    assert problem.startswith(part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('url = "minio:9000"', "src.url: the value is not an endpoint"),
        ('url = "http://h/path"', "src.url: the value is not an endpoint"),
        ('url = "http://h:99999"', "src.url: the value is not an endpoint"),
        ('url = "http://u:p@h"', "src.url: the value has credentials in it"),
        ('url = "http://s3.amazonaws.com"', "src.url: the value is AWS without TLS"),
        ('expected_bucket_owner = "12"', "src.expected_bucket_owner: '12' is not an account id"),
        ('access_key_id = "A"', "src.secret_access_key: is missing beside access_key_id"),
        ('secret_access_key = "A"', "src.access_key_id: is missing beside secret_access_key"),
        ('session_token = "A"', "src.session_token: needs access_key_id"),
        ('external_id = "A"', "src.external_id: needs role_arn"),
        (
            'profile = "p"\naccess_key_id = "A"\nsecret_access_key = "B"',
            "src.profile: cannot stand beside access_key_id",
        ),
    ],
)
def test_endpoint_refusals(folder: Folder, text: str, part: str) -> None:
    [problem] = folder.problems(SRC, text + "\n")
    assert problem.startswith(f"endpoints.{part}")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (flow("bucket/x", "nas:"), "flows[0].source: 'bucket/x' names no endpoint"),
        (flow("src:", "nas:"), "flows[0].source: 'src:' names no bucket"),
        (flow("src:{bucket}", "nas:"), "flows[0].source: 'src:{bucket}' has \"{bucket}\""),
        (flow("nop:b", "nas:"), "flows[0].source: there is no endpoint 'nop' (endpoints: src,"),
        (flow("src:b", "nop:"), "flows[0].target: there is no endpoint 'nop'"),
        (flow("nas:b", "dst:b"), "flows[0].source: endpoint 'nas' is local"),
        (flow("src:b", "dst:"), "flows[0].target: 'dst:' names no bucket"),
        (flow("src:*", "dst:one"), "flows[0].target: 'dst:one' would mix the keys"),
        (flow("src:b", "dst:x-{bucket}"), "flows[0].target: 'dst:x-{bucket}' may have"),
        (flow("src:b", "nas:a/../b/"), "flows[0].target: 'nas:a/../b/' has a prefix that no path"),
        (flow("src:b", "nas:/abs/"), "flows[0].target: 'nas:/abs/' has a prefix that no path"),
        (flow("src:b", "dst:b", 'part_size = "4MiB"'), "flows[0].part_size: 4194304 bytes is less"),
        (flow("src:b", "dst:b", 'delete_after = "1d"'), "flows[0].delete_after: needs mode"),
        (flow("src:b", "dst:b", 'mode = "move"', "max_missing = 2"), "flows[0].max_missing:"),
        (
            flow("src:b/a/", "nas:1/", 'mode = "move"')
            + flow("src:b/", "nas:2/").replace('"one"', '"two"'),
            "flows[0].mode: it would delete what flows[1] (two) reads from as well",
        ),
        (
            flow("src:b/", "dst:c/", 'mode = "move"')
            + flow("dst:c/x/", "nas:2/", 'mode = "move"').replace('"one"', '"two"'),
            "flows[1].mode: it would move on what flows[0] (one) looks for before it deletes",
        ),
        (flow("src:b", "dst:b", 'multipart_threshold = "6GiB"'), "flows[0].multipart_threshold:"),
        (flow("src:b", "nas:", "min_size = 2", "max_size = 1"), "flows[0].min_size: is more than"),
        (flow("src:b", "nas:", "max_cost = -1.0"), "flows[0].max_cost:"),
        (flow("src:b", "nas:", "max_cost = inf"), "flows[0].max_cost:"),
        (flow("src:b", "nas:", 'max_cost = "much"'), "flows[0].max_cost:"),
        (flow("src:b", "nas:", 'exclude_buckets = ["x"]'), "flows[0].exclude_buckets: needs"),
        (
            flow("src:b", "nas:b/") + flow("src:c", "nas:c/"),
            "flows[1].name: 'one' is flows[0]'s name already",
        ),
    ],
)
def test_flow_refusals(folder: Folder, text: str, part: str) -> None:
    [problem] = folder.problems(SRC, DST, NAS, text)
    assert problem.startswith(part)


def test_a_flow_may_spend_so_much_in_the_currency_of_the_prices(folder: Folder) -> None:
    prices = '[prices]\ncurrency = "EUR"\n'
    settings = folder.load(prices, SRC, NAS, flow("src:b", "nas:", "max_cost = 12.5"))
    [spec] = settings.flow_specs()
    assert (spec.max_cost, spec.currency) == (12.5, "EUR")


# --- loops and collisions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "lines", "loops"),
    [
        ("src:b", "src:b", "", True),
        ("src:b", "src:b/backup/", "", True),
        ("src:b/in/", "src:b", "", True),
        ("src:b/in", "src:b/incoming/", "", True),
        ("src:b/in/", "src:b/out/", "", False),
        ("src:b", "src:c", "", False),
        ("src:*", "src:{bucket}/", "", True),
        ("src:b", "src:{bucket}/", "", True),
        ("src:b/in/", "src:{bucket}/out/", "", False),
        ("src:b", "aws2:b/x/", "", True),  # bucket names are global on AWS
        ("src:b", "dst:b", "", False),
        ("src:b", "china:b", "", False),
        ("china:b", "china:b/x/", "", True),
    ],
)
def test_flows_that_would_copy_their_own_copies(
    folder: Folder, source: str, target: str, lines: str, loops: bool
) -> None:
    aws2 = '[endpoints.aws2]\ntype = "s3"\nurl = "https://s3.eu-west-1.amazonaws.com"\n'
    china = '[endpoints.china]\ntype = "s3"\nregion = "cn-north-1"\n'
    text = (SRC, DST, aws2, china, flow(source, target, lines))
    if loops:
        [problem] = folder.problems(*text)
        assert "the flow would copy its own copies" in problem
    else:
        folder.load(*text)


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        (("src:a", "dst:x"), ("src:b", "dst:x"), True),
        (("src:a", "dst:x"), ("src:b", "dst:x/sub/"), True),
        (("src:a", "dst:x/1/"), ("src:b", "dst:x/2/"), False),
        (("src:a", "dst:x"), ("src:b", "dst:y"), False),
        (("src:a", "nas:"), ("src:b", "nas:b/"), True),
        (("src:a", "nas:a/"), ("src:b", "nas:b/"), False),
        (("src:a", "nas:{bucket}/"), ("src:b", "nas:a/"), True),
        (("src:*", "nas:"), ("src:b", "nas:other/"), True),
        (("src:logs-*", "nas:"), ("src:data-*", "nas:"), False),
        (("src:logs-*", "nas:"), ("src:b", "nas:b/"), False),
        (("src:logs-*", "nas:"), ("src:*-old", "nas:"), True),
        (("src:a", "nas:x/"), ("src:b", "sub:"), True),
    ],
)
def test_flows_that_would_write_the_same_keys(
    folder: Folder, first: tuple[str, str], second: tuple[str, str], collide: bool
) -> None:
    sub = '[endpoints.sub]\ntype = "local"\npath = "/mnt/archive/x"\n'
    text = (SRC, DST, NAS, sub, flow(*first), flow(*second, name="two"))
    if collide:
        [problem] = folder.problems(*text)
        assert "two flows would write the same keys" in problem
    else:
        folder.load(*text)


def test_excluded_buckets_leave_room_for_another_flow(folder: Folder) -> None:
    everything = flow("src:*", "nas:", 'exclude_buckets = ["special*"]')
    folder.load(SRC, NAS, everything, flow("src:special-1", "nas:special-1/", name="two"))
    folder.load(SRC, flow("src:b", "src:c") + flow("src:c", "src:d", name="two"))
    to_backup = 'exclude_buckets = ["backup"]'
    assert "overlap" in folder.problems(SRC, flow("src:*", "src:{bucket}/", to_backup))[0]


def test_server_only_needs_one_service(folder: Folder) -> None:
    only = 'method = "server-only"'
    aws2 = '[endpoints.aws2]\ntype = "s3"\nregion = "eu-west-1"\n'
    china = '[endpoints.china]\ntype = "s3"\nregion = "cn-north-1"\n'
    again = DST.replace("endpoints.dst", "endpoints.again")
    folder.load(SRC, aws2, flow("src:b", "aws2:c", only))
    folder.load(DST, again, flow("dst:b", "again:c", only))
    for other, target in ((DST, "dst:c"), (NAS, "nas:c/"), (china, "china:c")):
        [problem] = folder.problems(SRC, other, flow("src:b", target, only))
        assert problem.startswith("flows[0].method: ")
        assert "server-first" in problem
        folder.load(SRC, other, flow("src:b", target))


@pytest.mark.parametrize("method", list(MethodPolicy))
def test_the_method_reaches_the_flow(folder: Folder, method: MethodPolicy) -> None:
    settings = folder.load(SRC, flow("src:b", "src:c", f'method = "{method}"'))
    assert settings.flow_specs()[0].method is method


def test_same_url_with_other_keys_is_a_warning(folder: Folder) -> None:
    def account(name: str) -> str:
        keys = f'access_key_id = "{name}"\nsecret_access_key = "{name}-secret"\n'
        return f'[endpoints.{name}]\ntype = "s3"\nurl = "http://127.0.0.1:9000"\n{keys}'

    folder.file.touch(mode=0o600)
    warnings = folder.load(account("one"), account("two"), flow("one:b", "two:b")).warnings
    [warning] = warnings
    assert "are the same place unless one and two see different buckets" in warning


# --- secrets --------------------------------------------------------------------------------------


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
