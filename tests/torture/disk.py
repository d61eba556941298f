"""A disk that may lose its power: what was written, what of it was made durable, what a crash may leave.

A file's bytes are durable as of its last sync, its name as of the last sync of its directory: POSIX
promises no more. What came after may be there in part and in any order; a rename is there or not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

SECTOR = 512
ROOT = 0


class Made(NamedTuple):
    """A new name for a new node."""

    folder: int
    name: bytes
    node: int
    is_folder: bool


class Wrote(NamedTuple):
    """Bytes at an offset."""

    node: int
    offset: int
    data: bytes


class Cut(NamedTuple):
    """A new size."""

    node: int
    size: int


class Told(NamedTuple):
    """An extended attribute, or the time of the last change as "mtime"."""

    node: int
    name: str
    value: bytes | int


class Renamed(NamedTuple):
    """A node got another name, in place of what had it."""

    node: int
    folder: int
    name: bytes
    to_folder: int
    to_name: bytes


class Removed(NamedTuple):
    """A name is gone."""

    node: int
    folder: int
    name: bytes


class Synced(NamedTuple):
    """A file or directory was made durable; *only_data*: fdatasync. None: the whole disk was."""

    node: int | None
    only_data: bool = False


Naming: TypeAlias = Made | Renamed | Removed
Op: TypeAlias = Naming | Wrote | Cut | Told | Synced


@dataclass(slots=True)
class File:
    """Bytes as programs see them, as they are durable, and how the ones came from the others."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    dirty: list[Wrote | Cut] = field(default_factory=list)
    facts: dict[str, bytes | int] = field(default_factory=dict)
    durable_facts: dict[str, bytes | int] = field(default_factory=dict)

    def sync(self, *, only_data: bool = False) -> None:
        """Make it durable."""
        if self.dirty:
            self.durable = bytes(self.data)
            self.dirty = []
        if not only_data:
            self.durable_facts = dict(self.facts)


@dataclass(slots=True)
class Folder:
    """Names, as for `File`."""

    names: dict[bytes, int] = field(default_factory=dict)
    durable: dict[bytes, int] = field(default_factory=dict)
    dirty: list[Naming] = field(default_factory=list)

    def sync(self, *, only_data: bool = False) -> None:
        """Make it durable."""
        self.durable = dict(self.names)
        self.dirty = []


class Leaf(NamedTuple):
    """A file of a tree."""

    data: bytes
    facts: Mapping[str, bytes | int]


Tree: TypeAlias = dict[bytes, Leaf | None]  # by path below the root; None: a directory


class Loss(StrEnum):
    """What a power loss does to what was not made durable."""

    ALL = "all of it is lost"
    NONE = "none of it is lost"
    BYTES = "names stay, bytes become zeros"
    SHORT = "names stay, bytes are as they were"
    NAMES = "bytes stay, names are lost"
    ANY = "each of it is lost or not"


@dataclass(slots=True)
class Disk:
    """Files and directories by number, the root being 0."""

    nodes: dict[int, File | Folder] = field(default_factory=lambda: {ROOT: Folder()})
    last: int = ROOT

    # --- what programs do --------------------------------------------------------------------------

    def apply(self, op: Op) -> None:
        """Let an operation happen."""
        match op:
            case Made(folder, name, node, is_folder):
                self.nodes[node] = Folder() if is_folder else File()
                self.last = max(self.last, node)
                self._name(folder, op)
                self.folder(folder).names[name] = node
            case Renamed(node, folder, name, to_folder, to_name):
                assert folder == to_folder, "a rename between directories: not what s3flow does"
                self._name(folder, op)
                names = self.folder(folder).names
                del names[name]
                names[to_name] = node
            case Removed(_, folder, name):
                self._name(folder, op)
                del self.folder(folder).names[name]
            case Wrote(node) | Cut(node):
                file = self.file(node)
                file.dirty.append(op)
                _change(file.data, op)
            case Told(node, name, value):
                self.file(node).facts[name] = value
            case Synced(None):
                for each in self.nodes.values():
                    each.sync()
            case Synced(int(node), only_data):
                self.nodes[node].sync(only_data=only_data)

    def _name(self, folder: int, op: Naming) -> None:
        self.folder(folder).dirty.append(op)

    def folder(self, node: int) -> Folder:
        """Give a directory."""
        found = self.nodes[node]
        assert isinstance(found, Folder)
        return found

    def file(self, node: int) -> File:
        """Give a file."""
        found = self.nodes[node]
        assert isinstance(found, File)
        return found

    def find(self, path: Sequence[bytes], start: int = ROOT) -> int | None:
        """Give the node at a path."""
        node: int | None = start
        for name in path:
            found = None if node is None else self.nodes[node]
            node = found.names.get(name) if isinstance(found, Folder) else None
        return node

    def path_of(self, node: int) -> bytes:
        """Give one path of a node, for people."""
        for path, number in self._walk(durable=False):
            if number == node:
                return path
        return b"(no name)"

    # --- what is left ------------------------------------------------------------------------------

    def tree(self) -> Tree:
        """Give what programs see."""
        found: Tree = {}
        for path, number in self._walk(durable=False):
            node = self.nodes[number]
            found[path] = Leaf(bytes(node.data), node.facts) if isinstance(node, File) else None
        return found

    def after(self, loss: Loss, draw: random.Random) -> Tree:
        """Give what a power loss may leave."""
        found: Tree = {}
        left: dict[int, Leaf] = {}  # one file under two names is one file
        pending = [(b"", ROOT)]
        while pending:
            below, number = pending.pop()
            for name, child in _names_left(self.folder(number), loss, draw).items():
                path = below + b"/" + name if below else name
                node = self.nodes[child]
                if isinstance(node, Folder):
                    found[path] = None
                    pending.append((path, child))
                    continue
                if child not in left:
                    left[child] = Leaf(_bytes_left(node, loss, draw), _facts(node, loss, draw))
                found[path] = left[child]
        return found

    @property
    def dirty(self) -> int:
        """Count what a power loss could take."""
        return sum(len(node.dirty) for node in self.nodes.values())

    def _walk(self, *, durable: bool) -> Iterator[tuple[bytes, int]]:
        pending = [(b"", ROOT)]
        while pending:
            below, number = pending.pop()
            folder = self.folder(number)
            for name, child in (folder.durable if durable else folder.names).items():
                path = below + b"/" + name if below else name
                yield path, child
                if isinstance(self.nodes[child], Folder):
                    pending.append((path, child))


def planted(tree: Tree) -> Disk:
    """Give a disk with a tree on it, all of it durable."""
    disk = Disk()
    at = {b"": ROOT}
    for path in sorted(tree):
        above, _, name = path.rpartition(b"/")
        leaf = tree[path]
        node = at[path] = disk.last + 1
        disk.apply(Made(at[above], name, node, leaf is None))
        if leaf is not None:
            disk.apply(Wrote(node, 0, leaf.data))
            disk.file(node).facts.update(leaf.facts)
    disk.apply(Synced(None))
    return disk


def _names_left(folder: Folder, loss: Loss, draw: random.Random) -> dict[bytes, int]:
    if loss in (Loss.NONE, Loss.BYTES, Loss.SHORT):
        return folder.names
    left = dict(folder.durable)
    for op in folder.dirty:
        if loss in (Loss.ALL, Loss.NAMES) or draw.random() < 0.5:
            continue
        match op:
            case Made(_, name, node):
                left[name] = node
            case Renamed(node, _, name, _, to_name):
                if left.get(name) == node:
                    del left[name]
                left[to_name] = node
            case Removed(node, _, name):
                if left.get(name) == node:
                    del left[name]
    return left


def _bytes_left(file: File, loss: Loss, draw: random.Random) -> bytes:
    if not file.dirty or loss in (Loss.NONE, Loss.NAMES):
        return bytes(file.data)
    if loss in (Loss.ALL, Loss.SHORT):
        return file.durable
    data = bytearray(file.durable)
    for op in file.dirty:
        if isinstance(op, Cut):
            if loss is Loss.BYTES or draw.random() < 0.5:
                _change(data, op)
        elif loss is Loss.BYTES or draw.random() < 0.3:
            _change(data, op._replace(data=bytes(len(op.data))))  # the size grew, and nothing else
        elif draw.random() < 0.5:
            _change(
                data, op._replace(data=op.data[: draw.randint(0, len(op.data)) // SECTOR * SECTOR])
            )
        else:
            _change(data, op)
    return bytes(data)


def _facts(file: File, loss: Loss, draw: random.Random) -> Mapping[str, bytes | int]:
    lost = loss is Loss.ALL or (loss is Loss.ANY and draw.random() < 0.5)
    return file.durable_facts if lost else file.facts


def _change(data: bytearray, op: Wrote | Cut) -> None:
    if isinstance(op, Cut):
        del data[op.size :]
        data.extend(bytes(op.size - len(data)))
    elif op.data:
        data.extend(bytes(max(op.offset - len(data), 0)))
        data[op.offset : op.offset + len(op.data)] = op.data
