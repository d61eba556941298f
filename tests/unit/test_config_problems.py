"""What is wrong in a configuration is told in one go, with its place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3flow.config import load
from s3flow.errors import ConfigError
from s3flow.policies import MethodPolicy
from tests.unit.config_kit import DST, NAS, SRC, Folder, flow, folder

__all__ = ["folder"]  # a fixture


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
