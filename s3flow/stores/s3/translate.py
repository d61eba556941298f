"""From an answer that is no success to the error that says what it means here."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from s3flow import errors

_THROTTLING = frozenset(
    (
        "SlowDown",
        "ServiceUnavailable",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "KMS.ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "TooManyRequests",
        "BandwidthLimitExceeded",
    )
)
REQUEST_ID = "x-amz-request-id"
EXPIRED = frozenset(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"))
_SERVER = frozenset(("InternalError", "RequestTimeout", "InternalFailure", "IncompleteBody"))
_CORRUPTED = frozenset(
    ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch")
)
_DENIED = frozenset(("AccessDenied", "SignatureDoesNotMatch"))
# The keys themselves are refused, whatever they ask for: deleted, switched off, never there.
UNKNOWN_KEYS = frozenset(("InvalidAccessKeyId", "InvalidToken"))
# What is missing or changed is the source, for copies too: they have a condition on nothing else.
_READS = frozenset(
    (
        "GetObject",
        "HeadObject",
        "DeleteObject",
        "GetObjectTagging",
        "RestoreObject",
        "CopyObject",
        "UploadPartCopy",
    )
)
# Ceph 16 says NoSuchKey of an upload that it does not know (any more).
_OF_UPLOADS = frozenset(
    ("UploadPart", "ListParts", "CompleteMultipartUpload", "AbortMultipartUpload")
)
_BY_CODE: Mapping[str, type[errors.S3flowError]] = {
    **dict.fromkeys(_SERVER, errors.ServerError),
    **dict.fromkeys(_CORRUPTED, errors.Corrupted),
    **dict.fromkeys(_DENIED, errors.AccessDenied),
    **dict.fromkeys(UNKNOWN_KEYS, errors.CredentialsMissing),
    **dict.fromkeys(EXPIRED, errors.ExpiredCredentials),
    "AccessControlListNotSupported": errors.AclRefused,
    "NoSuchKey": errors.SourceGone,
    "NoSuchBucket": errors.NoSuchBucket,
    "NoSuchUpload": errors.NoSuchUpload,
    "ConditionalRequestConflict": errors.Conflict,
    "OperationAborted": errors.Conflict,
    "InvalidObjectState": errors.Archived,
    "ObjectNotInActiveTierError": errors.Archived,
    "ObjectAlreadyInActiveTierError": errors.NotArchived,
    "RestoreAlreadyInProgress": errors.RestoreInProgress,
    "GlacierExpeditedRetrievalNotAvailable": errors.ExpeditedUnavailable,
    "EntityTooLarge": errors.TooLarge,
    "KeyTooLongError": errors.NameTooLong,
    "RequestTimeTooSkewed": errors.ClockSkewed,
}
CODES = frozenset((*_THROTTLING, *_BY_CODE))
_BY_STATUS: Mapping[int, type[errors.S3flowError]] = {
    307: errors.ServerError,  # "temporary": a bucket that is not known everywhere yet, or a proxy
    403: errors.AccessDenied,
    404: errors.SourceGone,
    408: errors.ServerError,
    416: errors.SourceChanged,
    500: errors.ServerError,
    502: errors.ServerError,
    504: errors.ServerError,
}
_REMEDIES: Mapping[str, str] = {
    "SignatureDoesNotMatch": "check secret_access_key, and that no proxy rewrites requests",
    "InvalidAccessKeyId": "check access_key_id, and that it belongs to this endpoint",
    "InvalidToken": "check session_token; it belongs to one access key",
    "NoSuchBucket": "check the bucket's name, and the endpoint's account and region",
    "InvalidObjectState": "restore the object before it can be read",
    "ObjectNotInActiveTierError": "restore the object before it can be copied",
    "EntityTooLarge": "the store takes no object of this size in this way",
    "MissingContentLength": "a proxy may have removed the Content-Length header",
    "NotImplemented": "the store does not know this request; see the endpoint's checksums setting",
}
_PERMISSIONS: Mapping[str, str] = {
    "HeadObject": "s3:GetObject; without s3:ListBucket a missing object also answers 403",
    "GetObject": "s3:GetObject (and kms:Decrypt for encrypted objects); without s3:ListBucket a "
    "missing object also answers 403",
    "CopyObject": "s3:PutObject on the target, s3:GetObject on the source (both with …Tagging for "
    "tags; kms:Decrypt, kms:GenerateDataKey for KMS)",
    "UploadPartCopy": "s3:PutObject on the target, s3:GetObject on the source (kms:Decrypt, "
    "kms:GenerateDataKey for KMS)",
    "PutObject": "s3:PutObject (s3:PutObjectTagging for tags, kms:GenerateDataKey for KMS)",
    "UploadPart": "s3:PutObject (and kms:Decrypt, kms:GenerateDataKey for KMS)",
    "CreateMultipartUpload": "s3:PutObject (s3:PutObjectTagging for tags, kms:GenerateDataKey)",
    "CompleteMultipartUpload": "s3:PutObject (and kms:Decrypt for KMS)",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListParts": "s3:ListMultipartUploadParts",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectsV2": "s3:ListBucket",
    "ListBuckets": "s3:ListAllMyBuckets",
    "GetObjectTagging": "s3:GetObjectTagging",
    "RestoreObject": "s3:RestoreObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectVersions": "s3:ListBucketVersions",
    "GetBucketLocation": "s3:GetBucketLocation",
    "GetBucketWebsite": "s3:GetBucketWebsite",
}


class Failure(NamedTuple):
    """An answer that is no success, whoever received it. *headers* have lower-case names."""

    operation: str  # S3's own verb
    where: str  # endpoint:bucket/key, for people
    status: int
    code: str  # "" when the answer had no body to say it
    message: str
    headers: Mapping[str, str]
    fields: Mapping[str, str] = {}


def translate(failure: Failure, now: float) -> errors.S3flowError:
    """Name *failure*; *now* is this machine's clock in seconds, to measure skew against."""
    status, code = failure.status, failure.code
    # 503 without S3's own words comes from proxies and gateways, and asks for patience as well.
    if code in _THROTTLING or status == 429 or (status == 503 and code not in _BY_CODE):
        return errors.Throttled(_describe(failure), retry_after(failure.headers, now))
    if status == 412:
        kind = errors.SourceChanged if failure.operation in _READS else errors.Conflict
        return kind(_describe(failure))
    found = _BY_CODE.get(code) or _of_key(code) or _by_status(status)
    if failure.operation in _OF_UPLOADS and found is errors.SourceGone:
        found = errors.NoSuchUpload
    elif failure.operation not in _READS and found in (errors.SourceGone, errors.SourceChanged):
        found = errors.Refused  # what is missing or changed here is not a source
    if found is errors.ClockSkewed:
        return errors.ClockSkewed(f"{_describe(failure)}; {_skew(failure.headers, now)}")
    return found(_describe(failure))


def _of_key(code: str) -> type[errors.S3flowError] | None:
    """Name what KMS said; S3 passes its codes on behind "KMS.", mostly with status 400."""
    if not code.startswith("KMS."):
        return None
    passing = code.endswith(("InternalException", "DependencyTimeoutException"))
    return errors.ServerError if passing else errors.KeyRefused


def _by_status(status: int) -> type[errors.S3flowError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 200 <= status < 300:  # an <Error> after 200 (B-11): the work failed at the server
        return errors.ServerError
    # 501 and 505 are answers to what was asked, not accidents: no retry changes them.
    return errors.ServerError if status >= 500 and status not in (501, 505) else errors.Refused


def _describe(failure: Failure) -> str:
    what = f"{failure.status} {failure.code}".rstrip()
    text = f"{failure.operation} {failure.where}: {what}"
    if failure.message:
        text += f": {failure.message[:500]}"
    remedy = _remedy(failure)
    if remedy:
        text += f"; {remedy}"
    request_id = failure.headers.get(REQUEST_ID)
    return printable(f"{text} (request {request_id})" if request_id else text)


def printable(text: str) -> str:
    """Give a server's words as one line that does nothing to a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _remedy(failure: Failure) -> str:
    if failure.code.startswith("KMS."):
        return (
            "check the KMS key: its region, that it is enabled, and that its policy lets us use it"
        )
    remedy = _REMEDIES.get(failure.code, "")
    if (
        "object lock" in failure.message.lower()
    ):  # a retention or a legal hold, and no permission's want
        return (
            "it goes when its retention has ended, or its legal hold is lifted: then s3flow retry"
        )
    if not remedy and (failure.code == "AccessDenied" or failure.status == 403):
        needed = _PERMISSIONS.get(failure.operation)
        if needed and failure.code not in ("InvalidObjectState", "RequestTimeTooSkewed"):
            return f"the credentials need {needed}"
    return remedy


def retry_after(headers: Mapping[str, str], now: float) -> float:
    """Give the wish of a Retry-After header in seconds, 0 when there is none."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    moment = _date(text)
    return max(0.0, moment - now) if moment else 0.0


def _skew(headers: Mapping[str, str], now: float) -> str:
    server = _date(headers.get("date", ""))
    if not server:
        return "set this machine's clock (NTP)"
    ahead = now - server
    return (
        f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} "
        "the server's: set it (NTP)"
    )


def _date(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except (ValueError, OverflowError):
        return 0.0
