"""Names on disk: the written rule, the walk below the root, and two spellings of one name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.errors import (
    Conflict,
    NameRefused,
    NameTooLong,
    PathConflict,
    TargetUnavailable,
)
from s3flow.stores.local import LocalStore, paths
from tests.contract.kit import ATTRIBUTES, body_of


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    root = tmp_path / "root"
    root.mkdir()
    opened = LocalStore("disk", root)
    yield opened
    await opened.close()


async def put(store: LocalStore, key: bytes, data: bytes, bucket: str = "") -> None:
    """Put and settle."""
    stored = await store.put_object(bucket, key, body_of(data), ATTRIBUTES, md5=None)
    for error in await store.settle([stored]):
        if error is not None:
            raise error


# --- the rule ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (b"", "names no file"),
        (b"/", "names no file"),
        (b"a\0b", "NUL"),
        (b"/a", "component ''"),
        (b"a//b", "component ''"),
        (b"a//", "component ''"),
        (b".", "component '.'"),
        (b"..", "component '..'"),
        (b"../a", "component '..'"),
        (b"a/../b", "component '..'"),
        (b"a/./b", "component '.'"),
        (b"a/..", "component '..'"),
        (b"a/../", "component '..'"),
        (b".s3flow-0123456789abcdef", "unfinished"),
        (b"a/.s3flow-x/b", "unfinished"),
        (b".s3flow-/", "unfinished"),
    ],
)
def test_a_refused_key_is_told_why(store: LocalStore, key: bytes, why: str) -> None:
    with pytest.raises(NameRefused, match=why) as refused:
        store.refuse("", key)
    assert type(refused.value) is NameRefused
    with pytest.raises(NameRefused):
        store.refuse("bucket", key)


def test_a_component_may_have_255_bytes_not_256(store: LocalStore) -> None:
    store.refuse("", b"d/" + b"x" * 255)
    for key in (b"x" * 256, b"x" * 256 + b"/y", b"d/" + b"x" * 256 + b"/"):
        with pytest.raises(NameTooLong, match="256 bytes"):
            store.refuse("", key)


@given(bucket=st.sampled_from(["", "bucket"]), key=st.binary(min_size=1, max_size=40))
def test_what_is_not_refused_names_one_place_below_the_root(bucket: str, key: bytes) -> None:
    try:
        directory, name = paths.split(bucket, key)
    except NameRefused:
        return
    path = directory + b"/" + name if directory else name
    assert path == (bucket.encode() + b"/" + key if bucket else key)
    inside = os.path.normpath(b"/root/" + path)
    assert inside == b"/root/" + path.removesuffix(b"/")


async def test_a_name_of_255_bytes_arrives_for_temporary_names_are_short(store: LocalStore) -> None:
    await put(store, b"x" * 255, b"data")
    assert await store.head_object("", b"x" * 255)


# --- what is in the way --------------------------------------------------------------------------


async def test_links_are_never_followed(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"untouched")
    root = tmp_path / "root"
    (root / "link").symlink_to(outside)
    (root / "file").symlink_to(outside / "victim")
    (root / "nowhere").symlink_to(tmp_path / "missing")
    for key in (b"link/victim", b"link/new", b"file", b"nowhere", b"nowhere/x"):
        with pytest.raises(PathConflict, match="link"):
            await put(store, key, b"attack")
        with pytest.raises(PathConflict):
            await store.create_multipart_upload("", key, ATTRIBUTES, 10)
        assert await store.find("", [key]) == {}
        assert await store.digest("", key, "md5", None) is None
    assert {p.name: p.read_bytes() for p in outside.iterdir()} == {"victim": b"untouched"}
    assert not (tmp_path / "missing").exists()


async def test_a_link_that_appears_later_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    await put(store, b"d/one", b"1")
    (root / "d").rename(outside)
    (root / "d").symlink_to(outside)
    stored = await store.put_object("", b"d/two", body_of(b"2"), ATTRIBUTES, md5=None)
    (error,) = await store.settle([stored])
    assert isinstance(error, Conflict)
    assert [p.name for p in outside.iterdir()] == ["one"]
    assert await store.find("", [b"d/one"]) == {}
    with pytest.raises(PathConflict, match="root/d is a file or a symbolic link"):
        await put(store, b"d/three", b"3")


async def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    store = LocalStore("disk", tmp_path / "link")
    await put(store, b"a/b", b"data")
    assert (tmp_path / "real/a/b").read_bytes() == b"data"
    await store.close()


async def test_a_file_and_a_directory_want_the_same_path(store: LocalStore, tmp_path: Path) -> None:
    await put(store, b"a", b"file")
    with pytest.raises(PathConflict, match="root/a is a file"):
        await put(store, b"a/b", b"below")
    await put(store, b"c/d", b"below")
    with pytest.raises(PathConflict, match="root/c is a directory"):
        await put(store, b"c", b"file")
    assert (tmp_path / "root/a").read_bytes() == b"file"
    assert (tmp_path / "root/c/d").read_bytes() == b"below"


async def test_a_directory_made_before_settling_stays(store: LocalStore, tmp_path: Path) -> None:
    stored = await store.put_object("", b"a", body_of(b"file"), ATTRIBUTES, md5=None)
    await put(store, b"a/b", b"below")
    (error,) = await store.settle([stored])
    assert isinstance(error, PathConflict)
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["a"]
    assert (tmp_path / "root/a/b").read_bytes() == b"below"


# --- directory markers ---------------------------------------------------------------------------


async def test_a_directory_marker_is_the_directory(store: LocalStore, tmp_path: Path) -> None:
    await put(store, b"d/e/", b"")
    assert (tmp_path / "root/d/e").is_dir()
    head = await store.head_object("", b"d/e/")
    assert head is not None
    assert head.size == 0
    found = await store.find("", [b"d/", b"d/e", b"d/e/", b"x/"])
    assert set(found) == {b"d/", b"d/e/"}
    assert await store.digest("", b"d/e/", "md5", None) is not None
    await put(store, b"d/e/f", b"below")
    await put(store, b"d/e/", b"")


async def test_a_directory_marker_has_no_content(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(NameRefused, match="4 bytes"):
        await put(store, b"d/", b"data")
    with pytest.raises(NameRefused, match="takes no bytes"):
        await store.create_multipart_upload("", b"d/", ATTRIBUTES, 4)
    assert list((tmp_path / "root").iterdir()) == []


async def test_a_marker_where_a_file_is_conflicts(store: LocalStore) -> None:
    await put(store, b"d", b"file")
    with pytest.raises(PathConflict):
        await put(store, b"d/", b"")
    assert await store.find("", [b"d/"]) == {}


# --- two spellings -------------------------------------------------------------------------------

SPELLINGS = [
    (b"Name", b"name"),
    ("caf\u00e9".encode(), "cafe\u0301".encode()),
    ("stra\u00dfe".encode(), b"STRASSE"),
    ("\u00c5".encode(), "A\u030a".encode()),
]


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
async def test_the_first_spelling_stays_on_every_run(
    tmp_path: Path, first: bytes, second: bytes
) -> None:
    for _ in range(2):
        store = LocalStore("disk", tmp_path, fold_case=True)
        await put(store, b"d/" + first, b"first")
        with pytest.raises(PathConflict, match="which is there already"):
            await put(store, b"d/" + second, b"second")
        assert set(await store.find("", sorted([b"d/" + first, b"d/" + second]))) == {b"d/" + first}
        await store.close()
    assert [os.fsencode(p.name) for p in (tmp_path / "d").iterdir()] == [first]


@pytest.mark.parametrize(("first", "second"), SPELLINGS)
async def test_directories_are_not_mixed_by_spelling(
    tmp_path: Path, first: bytes, second: bytes
) -> None:
    store = LocalStore("disk", tmp_path, fold_case=True)
    await put(store, first + b"/x", b"first")
    with pytest.raises(PathConflict):
        await put(store, second + b"/y", b"second")
    await store.close()


async def test_of_two_spellings_settled_at_once_the_first_stays(tmp_path: Path) -> None:
    store = LocalStore("disk", tmp_path, fold_case=True)
    stored = [
        await store.put_object("", key, body_of(key), ATTRIBUTES, md5=None)
        for key in (b"new", b"NEW")
    ]
    first, second = await store.settle(stored)
    assert first is None
    assert isinstance(second, PathConflict)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    await store.close()


async def test_spellings_stay_apart_where_the_disk_keeps_them_apart(store: LocalStore) -> None:
    for key in (spelling for pair in SPELLINGS for spelling in pair):
        await put(store, key, key)
    for key in (spelling for pair in SPELLINGS for spelling in pair):
        assert (await store.find("", [key]))[key].size == len(key)


async def test_a_disk_that_folds_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.stat

    def folding(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
        """Look names up as a disk does for which upper and lower case are the same."""
        if dir_fd is not None:
            for entry in os.listdir(dir_fd):  # noqa: PTH208 - by descriptor
                if os.fsencode(entry).lower() == path.lower():
                    path = os.fsencode(entry)
        return real(path, *args, dir_fd=dir_fd, **kwargs)

    monkeypatch.setattr(os, "stat", folding)
    store = LocalStore("disk", tmp_path)
    assert list(tmp_path.iterdir()) == []
    await put(store, b"Name", b"first")
    await put(store, b"Name", b"again")
    with pytest.raises(PathConflict, match="takes it for 'Name'"):
        await put(store, b"name", b"second")
    await put(store, b"other", b"third")
    assert await store.find("", [b"NAME"]) == {}
    await store.close()


# --- the root and the directories below ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_directory_is_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "file":
        root.write_bytes(b"")
    with pytest.raises(TargetUnavailable, match=r"cannot be opened.*make the directory or mount"):
        LocalStore("disk", root)


def test_a_root_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(TargetUnavailable, match="not writable"):
        LocalStore("disk", tmp_path)


def gone(root: Path) -> None:
    """As after an unmount of what the root was in."""
    root.rename(root.with_name("away"))


def replaced(root: Path) -> None:
    """As after an unmount: the bare mount point."""
    gone(root)
    root.mkdir()


@pytest.mark.parametrize("lose", [gone, replaced])
async def test_a_lost_root_blocks_everything_and_its_return_helps(
    store: LocalStore, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    root = tmp_path / "root"
    await put(store, b"d/before", b"1")
    upload_id = await store.create_multipart_upload("", b"d/big", ATTRIBUTES, 4)
    stored = await store.put_object("", b"d/pending", body_of(b"2"), ATTRIBUTES, md5=None)
    lose(root)
    for call in (
        lambda: put(store, b"d/new", b"3"),
        lambda: store.find("", [b"d/before"]),
        lambda: store.head_object("", b"d/before"),
        lambda: store.create_multipart_upload("", b"x", ATTRIBUTES, 4),
        lambda: store.upload_part("", b"d/big", upload_id, 1, 0, body_of(b"data")),
        lambda: store.list_parts("", b"d/big", upload_id),
        lambda: store.list_multipart_uploads("", b""),
        lambda: store.sweep(0),
    ):
        with pytest.raises(TargetUnavailable, match="mount it again"):
            await call()
    (error,) = await store.settle([stored])
    assert isinstance(error, TargetUnavailable)
    if root.exists():
        assert list(root.iterdir()) == []
        root.rmdir()
    (tmp_path / "away").rename(root)
    await put(store, b"d/new", b"3")
    assert set(await store.find("", [b"d/before", b"d/new"])) == {b"d/before", b"d/new"}
    assert sorted(p.name for p in (root / "d").iterdir() if p.suffix != ".parts") == [
        f".s3flow-{upload_id}",
        "before",
        "new",
    ]


async def test_directories_removed_by_somebody_are_made_again(
    store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    await put(store, b"a/b/c/one", b"1")
    for path in (root / "a/b/c/one", root / "a/b/c", root / "a/b"):
        path.unlink() if path.is_file() else path.rmdir()
    await put(store, b"a/b/c/two", b"2")
    assert (root / "a/b/c/two").read_bytes() == b"2"


async def test_a_directory_moved_away_meanwhile_takes_nothing_along(
    store: LocalStore, tmp_path: Path
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    stored = await store.put_object("", b"d/key", body_of(b"data"), ATTRIBUTES, md5=None)
    (root / "d").rename(outside)
    (error,) = await store.settle([stored])
    assert isinstance(error, Conflict)
    assert list(outside.iterdir()) == []
    assert await store.find("", [b"d/key"]) == {}


def open_files() -> int:
    """Count this process's descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_open_directories_are_bounded(store: LocalStore) -> None:
    before = open_files()
    for number in range(paths._CACHED + 100):
        await put(store, b"d%d/e/key" % number, b"1")
    assert open_files() <= before + paths._CACHED + 20
    await store.close()
    assert open_files() <= before + 2


async def test_a_key_of_512_components_arrives(store: LocalStore) -> None:
    key = b"/".join([b"d"] * 512)
    await put(store, key, b"deep")
    assert set(await store.find("", [key])) == {key}
    assert await asyncio.to_thread(store._uploads.unfinished, "", b"") == []


async def test_a_directory_that_was_moved_away_is_not_looked_into(
    store: LocalStore, tmp_path: Path
) -> None:
    await put(store, b"d/key", b"data")
    (tmp_path / "root/d").rename(tmp_path / "elsewhere")
    (tmp_path / "root/d").mkdir()
    assert await store.find("", [b"d/key"]) == {}


def test_a_directory_made_while_its_parent_is_synced_is_still_to_be_synced(tmp_path: Path) -> None:
    directories = paths.Directories(tmp_path, fold_case=False)
    directories.open(b"one/x", make=True)
    before = directories.unsynced_above(b"one/x")
    assert set(before) == {b"", b"one"}
    directories.open(b"two", make=True)  # after the sync of the root, before it was noted
    for path, made in before.items():
        directories.synced(path, made)
    assert set(directories.unsynced_above(b"one/x")) == {b""}
    directories.close()
