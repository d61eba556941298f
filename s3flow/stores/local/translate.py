"""The one place where the operating system's errors become s3flow's."""

from __future__ import annotations

import errno

from s3flow.errors import (
    AccessDenied,
    Conflict,
    NameRefused,
    NameTooLong,
    PathConflict,
    S3flowError,
    TargetFull,
    TargetUnavailable,
    TooLarge,
    Transient,
)

_FULL = "free space or raise the quota; the flow goes on by itself"
_GONE = "check the disk and its mount"
_MEANINGS: dict[int, tuple[type[S3flowError], str]] = {
    errno.ENOSPC: (TargetFull, _FULL),
    errno.EDQUOT: (TargetFull, _FULL),
    errno.EROFS: (TargetUnavailable, "the file system is read-only; remount it"),
    errno.EIO: (TargetUnavailable, _GONE),
    errno.ENODEV: (TargetUnavailable, _GONE),
    errno.ENXIO: (TargetUnavailable, _GONE),
    errno.ESTALE: (TargetUnavailable, _GONE),
    errno.ENOTCONN: (TargetUnavailable, _GONE),
    errno.ETIMEDOUT: (TargetUnavailable, _GONE),
    errno.EMFILE: (TargetUnavailable, "raise the limit of open files (LimitNOFILE, ulimit -n)"),
    errno.ENFILE: (TargetUnavailable, "the system is out of open files (fs.file-max)"),
    errno.ENAMETOOLONG: (NameTooLong, "the file system takes no such long name"),
    errno.EISDIR: (PathConflict, "a directory is where the file should be"),
    errno.ENOTDIR: (PathConflict, "a file or a symbolic link is where a directory should be"),
    errno.ELOOP: (PathConflict, "a symbolic link is in the way"),
    errno.EEXIST: (PathConflict, "something else has this name"),
    errno.ENOTEMPTY: (PathConflict, "a directory is where the file should be"),
    # What vfat, CIFS and strict UTF-8 file systems say to a name that they cannot hold.
    errno.EINVAL: (NameRefused, "the file system cannot hold this name"),
    errno.EILSEQ: (NameRefused, "the file system cannot hold this name"),
    errno.EACCES: (AccessDenied, "give the user that runs s3flow write access"),
    errno.EPERM: (AccessDenied, "give the user that runs s3flow write access"),
    errno.EFBIG: (TooLarge, "the file system or the file size limit takes no such large file"),
    errno.ENOENT: (Conflict, "somebody removed it meanwhile; it is tried again"),
}


def translate(error: OSError, where: str) -> S3flowError:
    """Name what *error* means for the object or directory *where*."""
    kind, advice = _MEANINGS.get(error.errno or 0, (Transient, "it is tried again"))
    code = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return kind(f"{where}: {error.strerror or error} ({code}); {advice}")
