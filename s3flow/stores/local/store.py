"""The local disk as a `Target`."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from s3flow.crashpoints import passing
from s3flow.errors import BadAnswer, Corrupted, NameRefused, PathConflict, Refused, S3flowError
from s3flow.model import (
    Attributes,
    Limits,
    Listed,
    ObjectInfo,
    Original,
    Part,
    Span,
    Stored,
    Upload,
)
from s3flow.stores.local import files, uploads
from s3flow.stores.local.look import digest_settled, find, look_up, token_of
from s3flow.stores.local.paths import TEMP_PREFIX, Directories, Directory, remove, shown, split
from s3flow.stores.local.settle import Disks, Note, Settlement
from s3flow.stores.local.threads import Threads
from s3flow.stores.local.translate import translate

if TYPE_CHECKING:
    from s3flow.ports import Body

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_NO_LIMIT = 2**63 - 1
_STALE = (errno.ENOENT, errno.ESTALE)  # what an open directory answers that is gone: here, over NFS
TOKEN_HEADER = "x-amz-meta-s3flow-transfer"  # noqa: S105 - it names a source version, no secret


class LocalStore:
    """Objects as files below *root*; `paths` has the rule for their names.

    Raises `TargetUnavailable` when the root cannot be used. *fold_case* overrides what the file
    system says of itself about spellings of a name; *shared*: other processes of ours write here too.
    """

    def __init__(
        self, name: str, root: Path, *, fold_case: bool | None = None, shared: bool = False
    ) -> None:
        self.name = name
        self.service = ""  # copies nothing by itself
        self.limits = Limits(
            min_part_size=1,
            max_part_size=_NO_LIMIT,
            max_parts=10_000,  # as in S3: each one is a line of the journal, and is kept in mind
            max_put_size=_NO_LIMIT,
            max_object_size=_NO_LIMIT,
            carries_headers=False,
            carries_tags=False,
            carries_storage_class=False,
            etags=False,
            paths=True,
        )
        self._directories = Directories(root, fold_case, shared=shared)
        self._threads = Threads(name)
        self._disks = Disks()
        self._uploads = uploads.Uploads(self._directories, self._threads)
        self._unsettled: dict[tuple[str, bytes], Note] = {}
        # Unique to this process by chance, in it by counting: no system call for each object.
        self._temp = TEMP_PREFIX + os.urandom(4).hex().encode()
        self._count = itertools.count()

    async def close(self) -> None:
        """Let go of threads and open directories."""
        await self._threads.close()
        self._directories.close()

    def refuse(self, bucket: str, key: bytes) -> None:
        """Raise `NameRefused` or `NameTooLong` by the rule in `paths`."""
        split(bucket, key)

    async def find(self, bucket: str, keys: Sequence[bytes]) -> Mapping[bytes, Listed]:
        """Look each key up; one that this store refuses is not there."""
        with self._translated(bucket, b""):
            return await self._threads.run(self._find, bucket, keys)

    async def head_object(self, bucket: str, key: bytes) -> ObjectInfo | None:
        """Say what is under the key: settled objects only."""
        with self._translated(bucket, key):
            self._directories.check_root()
            found = look_up(self._directories, bucket, key)
            if found is None:
                return None
            token = token_of(self._directories, bucket, key)
        headers = {TOKEN_HEADER: token} if token else {}
        return ObjectInfo(found.size, "", found.modified, headers=headers)

    async def put_object(
        self, bucket: str, key: bytes, body: Body, attributes: Attributes, *, md5: bytes | None
    ) -> Stored:
        """Write a file under a name of ours; `settle` gives it the key's."""
        path, name = split(bucket, key)
        try:  # not _translated: that costs 1 us, and small objects come by the million
            self._directories.check_root_at_times()
            if not name:
                return await self._put_marker(path, bucket, key, body)
            directory, temp, fd = self._create(path, name)
            note = self._note(directory, name, temp, bucket, key)
            try:
                await self._write(fd, note, body, attributes.modified, md5)
                passing("file.written")
            except BaseException:
                note.discard()
                raise
        except OSError as error:
            raise self._named(error, bucket, key) from error
        return self._stored(note, body.size)

    async def copy_object(
        self,
        original: Original,  # noqa: ARG002
        bucket: str,
        key: bytes,
        *,
        storage_class: str,  # noqa: ARG002
        with_tags: bool,  # noqa: ARG002
        redirect: str = "",  # noqa: ARG002
    ) -> Stored:
        """Refuse: what is to be copied is in a store, and this is a folder."""
        raise Refused(f"{self._at(bucket, key)}: a folder copies nothing by itself")

    async def create_multipart_upload(
        self, bucket: str, key: bytes, attributes: Attributes, size: int
    ) -> str:
        """Begin a file of *size* bytes, and a journal of its parts beside it."""
        path, name = split(bucket, key)
        if not name:
            raise NameRefused(f"{self._at(bucket, key)} is a directory marker and takes no bytes")
        upload_id = uploads.new_id()
        with self._translated(bucket, key):
            self._directories.check_root()
            directory = self._prepare(path, name)
            place = self._place(bucket, key, upload_id)
            await self._uploads.create(directory, place, attributes, size)
        return upload_id

    async def upload_part(
        self, bucket: str, key: bytes, upload_id: str, number: int, offset: int, body: Body
    ) -> Part:
        """Write a part in place; it counts once it is durable and in the journal."""
        with self._translated(bucket, key):
            self._directories.check_root()
            place = self._place(bucket, key, upload_id)
            return await self._uploads.add(place, number, offset, body)

    async def upload_part_copy(
        self,
        original: Original,  # noqa: ARG002
        bucket: str,
        key: bytes,
        upload_id: str,  # noqa: ARG002
        number: int,  # noqa: ARG002
        span: Span,  # noqa: ARG002
    ) -> Part:
        """Refuse, as `copy_object` does."""
        raise Refused(f"{self._at(bucket, key)}: a folder copies nothing by itself")

    async def list_parts(self, bucket: str, key: bytes, upload_id: str) -> list[Part]:
        """Give the parts that the journal has."""
        with self._translated(bucket, key):
            self._directories.check_root()
            return await self._uploads.parts(self._place(bucket, key, upload_id))

    async def complete_multipart_upload(
        self, bucket: str, key: bytes, upload_id: str, parts: Sequence[Part]
    ) -> Stored:
        """Check that the parts make the whole; `settle` gives the file its name."""
        place = self._place(bucket, key, upload_id)
        with self._translated(bucket, key):
            self._directories.check_root()
            directory, inode, size = await self._uploads.complete(place, parts)
        name = split(bucket, key)[1]
        note = self._note(directory, name, place.data, bucket, key)
        note.inode, note.journal = inode, place.journal
        return self._stored(note, size)

    async def abort_multipart_upload(self, bucket: str, key: bytes, upload_id: str) -> None:
        """Remove data and journal."""
        with self._translated(bucket, key):
            await self._uploads.abort(self._place(bucket, key, upload_id))

    async def list_multipart_uploads(self, bucket: str, prefix: bytes) -> list[Upload]:
        """Walk the tree for journals."""
        with self._translated(bucket, prefix):
            self._directories.check_root()
            return await self._threads.run(self._uploads.unfinished, bucket, prefix)

    async def settle(self, stored: Sequence[Stored]) -> list[Exception | None]:
        """Sync, rename, sync again, all in one thread. Settling twice is harmless."""
        notes = [each.settle for each in stored]
        ours = [note for note in notes if isinstance(note, Note)]
        if not ours:
            return [None] * len(notes)
        settlement = Settlement(self._directories, self._disks, ours)
        try:
            answers = iter(await self._threads.run(settlement.run))
        finally:
            for note in ours:
                if note.ended:
                    self._drop(note)
        return [next(answers) if isinstance(note, Note) else None for note in notes]

    async def digest(
        self, bucket: str, key: bytes, algorithm: str, part_size: int | None
    ) -> bytes | None:
        """Hash the file, the unsettled one if there is one. None when there is none."""
        if algorithm not in files.ALGORITHMS or (part_size is not None and algorithm != "md5"):
            return None
        stop = threading.Event()
        note = self._unsettled.get((bucket, key))
        with self._translated(bucket, key):
            if note is not None and note.temp is not None:
                hashed = await self._threads.run_until(
                    stop, files.digest_name, note.directory, note.temp, algorithm, part_size, stop
                )
                if hashed is not None:
                    return hashed  # else it was settled in this moment
            return await self._threads.run_until(
                stop, digest_settled, self._directories, (bucket, key), algorithm, part_size, stop
            )

    async def discard(self, bucket: str, key: bytes, stored: Stored) -> None:
        """Remove the file that *stored* speaks of, unsettled or not; never another one at the key."""
        note = stored.settle
        if not isinstance(note, Note):
            return
        self._drop(note)
        with self._translated(bucket, key):
            await self._threads.run(note.remove)

    async def recognise(self, flow: str, *, written: bool) -> None:
        """Raise `TargetUnavailable` if this is not the folder that *flow* has *written* to.

        What is there is durable afterwards. Directories that a killed process made, and names that it
        gave, may not be: they are not made again, and work relies on them.
        """
        with self._translated("", b""):
            await self._threads.run(self._recognise, flow, written)

    async def flush(self, bucket: str, keys: Sequence[bytes]) -> None:
        """Make durable what others have written under *keys*."""
        with self._translated(bucket, b""):
            await self._threads.run(self._flush, {split(bucket, key)[0] for key in keys})

    async def sweep(self, older_than: float) -> int:
        """Remove leftovers of crashes from before *older_than* (seconds since the epoch).

        Work may go on beside it: what is younger stays.
        """
        stop = threading.Event()
        with self._translated("", b""):
            return await self._threads.run_until(stop, self._sweep, older_than, stop)

    @property
    def mark(self) -> bytes:
        """What the names of files begin with that this process has not settled yet."""
        return self._temp

    async def clear(self, mark: bytes, places: Sequence[tuple[str, bytes]]) -> None:
        """Remove what a dead process with this *mark* left beside these buckets and keys."""
        with self._translated("", b""):
            await self._threads.run(self._clear, mark, {split(*place)[0] for place in places})

    # --- inside -------------------------------------------------------------------------------

    def _at(self, bucket: str, key: bytes) -> str:
        return f"{self.name}:{bucket}/{shown(key)}" if bucket else f"{self.name}:{shown(key)}"

    @contextmanager
    def _translated(self, bucket: str, key: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._named(error, bucket, key) from error

    def _named(self, error: OSError, bucket: str, key: bytes) -> S3flowError:
        if error.errno in _STALE:
            self._directories.forget()  # the next try walks anew
        return translate(error, self._at(bucket, key))

    def _place(self, bucket: str, key: bytes, upload_id: str) -> uploads.Place:
        path = split(bucket, key)[0]
        return uploads.Place(path, bucket, key, upload_id, self._at(bucket, key))

    def _prepare(self, path: bytes, name: bytes) -> Directory:
        """Open the directory of a new file, made if need be, and see that its name is free for one."""
        directory = self._directories.open(path, make=True)
        try:
            status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
        except FileNotFoundError:
            status = None
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise PathConflict(
                f"{self._directories.shown(path, name)} is a directory, a link or a device where"
                " the object should be; remove it or give the flow another target"
            )
        if self._directories.folds:
            self._directories.check_spelling(directory, name)
        return directory

    def _create(self, path: bytes, name: bytes) -> tuple[Directory, bytes, int]:
        temp = b"%s%08x" % (self._temp, next(self._count) & 0xFFFFFFFF)
        try:
            directory = self._prepare(path, name)
            return directory, temp, os.open(temp, _CREATE, 0o666, dir_fd=directory.fd)
        except OSError as error:
            if error.errno not in _STALE:
                raise
            # An open directory was removed by somebody: look again from the root.
            self._directories.forget()
            directory = self._prepare(path, name)
            return directory, temp, os.open(temp, _CREATE, 0o666, dir_fd=directory.fd)

    async def _write(
        self, fd: int, note: Note, body: Body, modified: int, md5: bytes | None
    ) -> None:
        digest = hashlib.md5(usedforsecurity=False) if md5 is not None else None
        try:
            await files.fill(fd, 0, body, note.at, self._threads, digest)
            files.set_modified(fd, modified)
            note.inode = os.fstat(fd).st_ino
        finally:
            os.close(fd)  # this may raise: network file systems tell of a full disk here
        if digest is not None and digest.digest() != md5:
            raise Corrupted(f"{note.at}: the bytes that arrived do not have the source's MD5")

    async def _put_marker(self, path: bytes, bucket: str, key: bytes, body: Body) -> Stored:
        at = self._at(bucket, key)
        if body.size:
            raise NameRefused(f"{at} ends in '/' and has {body.size} bytes; a directory holds none")
        if await body.read():
            raise BadAnswer(f"{at}: more than the announced 0 bytes arrived")
        directory = self._directories.open(path, make=True)
        return self._stored(self._note(directory, b"", None, bucket, key), 0)

    def _note(
        self, directory: Directory, name: bytes, temp: bytes | None, bucket: str, key: bytes
    ) -> Note:
        failures = self._disks.failures(directory)
        return Note(directory, name, temp, (bucket, key), self._at(bucket, key), failures)

    def _stored(self, note: Note, size: int) -> Stored:
        former = self._unsettled.get(note.place)
        if former is not None and former.temp != note.temp:
            former.discard()
        self._unsettled[note.place] = note
        return Stored(size, settle=note)

    def _drop(self, note: Note) -> None:
        if self._unsettled.get(note.place) is note:
            del self._unsettled[note.place]

    def _find(self, bucket: str, keys: Sequence[bytes]) -> dict[bytes, Listed]:
        self._directories.check_root()
        return find(self._directories, bucket, keys)

    def _clear(self, mark: bytes, paths: Iterable[bytes]) -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                directory = self._directories.open(path)
                for name in map(os.fsencode, os.listdir(directory.fd)):  # noqa: PTH208 - by descriptor
                    if name.startswith(mark):
                        remove(directory, name)

    def _flush(self, paths: Iterable[bytes]) -> None:
        self._directories.check_root()
        disks: set[int] = set()
        for path in paths:
            with suppress(FileNotFoundError):  # whoever looks next finds nothing there
                directory = self._directories.open(path)
                if directory.device not in disks:
                    disks.add(directory.device)
                    self._disks.flush(directory)

    def _recognise(self, flow: str, written: bool) -> None:
        self._directories.recognise(flow, written=written)
        self._disks.flush(self._directories.root)

    def _sweep(self, older_than: float, stop: threading.Event) -> int:
        self._directories.check_root()
        return files.sweep(self._directories, older_than, stop)
