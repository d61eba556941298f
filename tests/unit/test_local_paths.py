"""Names on disk: the written rule, the walk below the root, and two spellings of one name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.errors import Conflict, NameRefused, NameTooLong, PathConflict
from s3flow.stores.local import LocalStore, paths
from tests.contract.kit import ATTRIBUTES, body_of
from tests.unit.local_kit import put, store

__all__ = ["store"]  # a fixture


# --- the rule -------------------------------------------------------------------------------------


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


# --- what is in the way ---------------------------------------------------------------------------


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


# --- directory markers ----------------------------------------------------------------------------


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


# --- two spellings --------------------------------------------------------------------------------


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
