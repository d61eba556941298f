"""Every answer that is no success has one name."""

from __future__ import annotations

import pytest

from s3flow import errors
from s3flow.stores.s3.translate import Failure, translate

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


def failure(
    status: int, code: str = "", operation: str = "GetObject", headers: dict[str, str] | None = None
) -> Failure:
    return Failure(operation, "src:bucket/key", status, code, "words", headers or {})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", errors.Throttled),
        (503, "", errors.Throttled),
        (503, "ServiceUnavailable", errors.Throttled),
        (429, "", errors.Throttled),
        (400, "RequestLimitExceeded", errors.Throttled),
        (400, "ThrottlingException", errors.Throttled),
        (200, "SlowDown", errors.Throttled),
        (200, "InternalError", errors.ServerError),
        (200, "Surprise", errors.ServerError),
        (503, "InternalError", errors.ServerError),
        (500, "InternalError", errors.ServerError),
        (502, "", errors.ServerError),
        (504, "", errors.ServerError),
        (400, "RequestTimeout", errors.ServerError),
        (400, "IncompleteBody", errors.ServerError),
        (404, "NoSuchKey", errors.SourceGone),
        (404, "", errors.SourceGone),
        (404, "NoSuchBucket", errors.NoSuchBucket),
        (404, "NoSuchUpload", errors.NoSuchUpload),
        (412, "PreconditionFailed", errors.SourceChanged),
        (412, "", errors.SourceChanged),
        (409, "ConditionalRequestConflict", errors.Conflict),
        (409, "OperationAborted", errors.Conflict),
        (403, "InvalidObjectState", errors.Archived),
        (403, "ObjectNotInActiveTierError", errors.Archived),
        (403, "ObjectAlreadyInActiveTierError", errors.NotArchived),
        (409, "RestoreAlreadyInProgress", errors.RestoreInProgress),
        (503, "GlacierExpeditedRetrievalNotAvailable", errors.ExpeditedUnavailable),
        (403, "RequestTimeTooSkewed", errors.ClockSkewed),
        (400, "ExpiredToken", errors.ExpiredCredentials),
        (403, "ExpiredTokenException", errors.ExpiredCredentials),
        (403, "AccessDenied", errors.AccessDenied),
        (403, "SignatureDoesNotMatch", errors.AccessDenied),
        (403, "InvalidAccessKeyId", errors.CredentialsMissing),
        (400, "InvalidToken", errors.CredentialsMissing),
        (403, "", errors.AccessDenied),
        (400, "BadDigest", errors.Corrupted),
        (400, "InvalidDigest", errors.Corrupted),
        (400, "XAmzContentChecksumMismatch", errors.Corrupted),
        (400, "EntityTooLarge", errors.TooLarge),
        (416, "InvalidRange", errors.SourceChanged),
        (301, "PermanentRedirect", errors.Refused),
        (307, "TemporaryRedirect", errors.ServerError),
        (307, "", errors.ServerError),
        (304, "", errors.Refused),
        (400, "InvalidArgument", errors.Refused),
        (405, "MethodNotAllowed", errors.Refused),
        (501, "NotImplemented", errors.Refused),
    ],
)
def test_each_answer_has_its_name(status: int, code: str, kind: type[errors.S3flowError]) -> None:
    error = translate(failure(status, code), NOW)
    assert type(error) is kind
    assert "GetObject src:bucket/key" in str(error)
    assert str(status) in str(error)


@pytest.mark.parametrize("operation", ["PutObject", "CompleteMultipartUpload"])
def test_a_failed_condition_on_a_write_is_a_conflict(operation: str) -> None:
    assert type(translate(failure(412, "PreconditionFailed", operation), NOW)) is errors.Conflict


@pytest.mark.parametrize(("status", "code"), [(404, ""), (404, "NoSuchKey"), (416, "InvalidRange")])
def test_a_target_never_says_that_the_source_is_gone(status: int, code: str) -> None:
    assert type(translate(failure(status, code, "PutObject"), NOW)) is errors.Refused


@pytest.mark.parametrize(
    "operation", ["UploadPart", "ListParts", "CompleteMultipartUpload", "AbortMultipartUpload"]
)
@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchUpload"])
def test_an_unknown_upload_may_be_called_a_missing_key(operation: str, code: str) -> None:
    """Ceph 16 does so, and an abort would look refused, a finished upload failed."""
    assert type(translate(failure(404, code, operation), NOW)) is errors.NoSuchUpload


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        ("7", 7.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("soon", 0.0),
        ("", 0.0),
        ("-3", 0.0),
        ("Tue, 14 Nov 99999999999999999999 22:13:50 GMT", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 +99999999999999999999", 0.0),
    ],
)
def test_the_stores_wish_for_a_pause_is_kept(wish: str, seconds: float) -> None:
    error = translate(failure(503, "SlowDown", headers={"retry-after": wish}), NOW)
    assert isinstance(error, errors.Throttled)
    assert error.retry_after == seconds


def test_a_skewed_clock_is_measured() -> None:
    headers = {"date": "Tue, 14 Nov 2023 21:53:20 GMT"}
    error = translate(failure(403, "RequestTimeTooSkewed", headers=headers), NOW)
    assert "1200 s ahead of the server's" in str(error)
    unknown = translate(failure(403, "RequestTimeTooSkewed"), NOW)
    assert "set this machine's clock" in str(unknown)


def test_a_refusal_says_which_permission_is_needed_and_names_the_request() -> None:
    headers = {"x-amz-request-id": "REQ7"}
    error = translate(failure(403, "AccessDenied", "HeadObject", headers), NOW)
    assert "s3:GetObject" in str(error)
    assert "s3:ListBucket" in str(error)
    assert "REQ7" in str(error)


def test_what_is_locked_is_not_put_down_to_permissions() -> None:
    said = "Access Denied because object protected by object lock."
    locked = failure(403, "AccessDenied", "DeleteObject")._replace(message=said)
    assert "legal hold is lifted" in str(translate(locked, NOW))
    assert "the credentials need" not in str(translate(locked, NOW))
    assert "s3:DeleteObject" in str(translate(failure(403, "AccessDenied", "DeleteObject"), NOW))
