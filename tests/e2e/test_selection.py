"""Which objects a flow takes, and under which names they arrive."""

from __future__ import annotations

import uuid

from tests.demo.compare import keys_of
from tests.e2e.conftest import Stage
from tests.e2e.content import digests_of_folder
from tests.servers import make_bucket


def arrived(stage: Stage) -> set[str]:
    return set(keys_of(stage.theirs, stage.target))


def test_filters_leave_out_what_they_name(stage: Stage) -> None:
    for key, size in {
        "in/a.txt": 10,
        "in/b.log": 10,
        "in/deep/c.txt": 10,
        "in/secret/d.txt": 10,
        "in/tiny.txt": 1,
        "in/huge.txt": 100,
        "out/e.txt": 10,
    }.items():
        stage.put(key, b"x" * size)
    program = stage.program(
        {
            "source": f"ours:{stage.source}/in/",
            "target": f"theirs:{stage.target}/to/",
            "include": ["*.txt"],
            "exclude": ["secret/*"],
            "min_size": 5,
            "max_size": "50",
        }
    )
    program.run("sync")
    assert arrived(stage) == {"to/a.txt", "to/deep/c.txt"}
    flow = program.flow()
    assert flow["objects"] == flow["objects"] | {"listed": 6, "verified": 2, "skipped": 4}
    assert sum(flow["reasons"].values()) == 4


def test_what_a_filter_let_out_is_taken_when_it_goes(stage: Stage) -> None:
    stage.put("a.txt")
    stage.put("b.log")
    stage.program({"exclude": ["*.log"]}).run("sync")
    assert arrived(stage) == {"a.txt"}
    program = stage.program({})
    program.run("sync")
    assert arrived(stage) == {"a.txt", "b.log"}
    assert program.flow()["objects"]["skipped"] == 0


def test_a_pattern_takes_every_bucket_that_matches(stage: Stage) -> None:
    run = f"s3flow-test-{uuid.uuid4().hex[:12]}"
    buckets = [make_bucket(stage.server, 0, name=f"{run}-{name}") for name in ("one", "two", "log")]
    for bucket in buckets:
        stage.ours.put_object(Bucket=bucket, Key="k", Body=bucket.encode())
    flow = {"source": f"ours:{run}-*", "target": "nas:{bucket}/all/", "exclude_buckets": ["*-log"]}
    program = stage.program(flow)
    program.run("sync")
    assert set(digests_of_folder(stage.nas)) == {f"{run}-one/all/k", f"{run}-two/all/k"}
    assert (stage.nas / f"{run}-one" / "all" / "k").read_text() == f"{run}-one"
    assert program.flow()["objects"]["verified"] == 2


def test_overwrite_never_keeps_what_is_there(stage: Stage) -> None:
    stage.put("there", b"new words")
    stage.put("missing", b"new words")
    stage.theirs.put_object(Bucket=stage.target, Key="there", Body=b"old")
    (stage.nas / "there").write_bytes(b"old")
    program = stage.program(
        {"name": "s3", "overwrite": "never"},
        {"name": "disk", "target": "nas:", "overwrite": "never"},
    )
    program.run("sync")
    for flow in program.status().values():
        assert flow["objects"] == flow["objects"] | {"verified": 1, "skipped": 1}
        assert flow["reasons"] == {"target_exists": 1}
    assert stage.there("there") == (stage.nas / "there").read_bytes() == b"old"
    assert stage.there("missing") == (stage.nas / "missing").read_bytes() == b"new words"


def test_overwrite_always_copies_again_and_changed_replaces(stage: Stage) -> None:
    stage.put("k", b"words")
    stage.theirs.put_object(Bucket=stage.target, Key="k", Body=b"other")
    program = stage.program({"overwrite": "always"})
    program.run("sync")
    assert stage.there("k") == b"words"
    stage.theirs.put_object(Bucket=stage.target, Key="k", Body=b"meddled with")
    program.run("sync")
    assert stage.there("k") == b"words"


def test_keys_are_rewritten(stage: Stage) -> None:
    for key in ("old/a", "old/b/c", "new", "other"):
        stage.put(key, key.encode())
    rules = [{"from": "old/b/", "to": "B/"}, {"from": "old/", "to": "moved/"}]
    stage.program({"rewrite": rules, "target": f"theirs:{stage.target}/x/"}).run("sync")
    assert arrived(stage) == {"x/moved/a", "x/B/c", "x/new", "x/other"}
    assert stage.there("x/B/c") == b"old/b/c"
