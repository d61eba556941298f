"""What can go wrong, named for what happened; the class decides what happens next."""

from __future__ import annotations

from typing import ClassVar


class S3flowError(Exception):
    """Base of all errors of s3flow. *reason* is a bounded word for states, metrics and reports."""

    reason: ClassVar[str] = "error"


# --- before anything moves -------------------------------------------------------------------


class ConfigError(S3flowError):
    """The configuration cannot be used; the message names the key, the file and the remedy."""

    reason = "config"


class FlowChanged(ConfigError):
    """A flow means something else than the state recorded under its name."""

    reason = "flow_changed"


class StateError(S3flowError):
    """The state database cannot be used; the message says what to do."""

    reason = "state"


class StateEmpty(StateError):
    """There is no state yet: nothing has run, or the first run is about to begin."""

    reason = "state_empty"


class StateLocked(StateError):
    """Another process holds the state database."""

    reason = "state_locked"


class StateAway(StateError):
    """The state's server cannot be reached, or takes no writes: likely to pass by itself."""

    reason = "state_away"


class StateLost(StateError):
    """This process may not write to the state any more: all ends, and a new start goes on."""

    reason = "state_lost"


class WorkerLost(S3flowError):
    """A worker process died; when the next ones die as well, without having moved anything, all ends."""

    reason = "worker_died"


# --- retried ---------------------------------------------------------------------------------


class Transient(S3flowError):
    """Likely to pass when tried again; counts as one of the transfer's attempts."""

    reason = "transient"


class ConnectionLost(Transient):
    """The connection could not be opened, or broke before the answer was complete."""

    reason = "connection_lost"


class Interrupted(Transient):
    """What was waited for was cancelled from within: a library gave up, nobody here asked for it."""

    reason = "interrupted"


class Stalled(Transient):
    """Fewer bytes arrived or left within the progress window than the minimum."""

    reason = "stalled"


class Truncated(Transient):
    """Fewer bytes arrived than were announced or asked for."""

    reason = "truncated"


class BadAnswer(Transient):
    """The answer breaks HTTP or S3's protocol: framing, Content-Range, XML."""

    reason = "bad_answer"


class ServerError(Transient):
    """The server answered 5xx, or 200 with an error inside."""

    reason = "server_error"


class Corrupted(Transient):
    """The bytes that arrived are not the bytes that were sent; the bad copy is gone."""

    reason = "corrupted"


class ExpiredCredentials(Transient):
    """The credentials expired in mid-run; the next try uses fresh ones."""

    reason = "expired_credentials"


class NoSuchUpload(Transient):
    """The target does not know the multipart upload (any more)."""

    reason = "no_such_upload"


class Conflict(Transient):
    """A conditional write collided with another one; the transfer starts again."""

    reason = "conflict"


class SourceChanged(Transient):
    """The source holds another version than the one that was listed; it is planned again."""

    reason = "source_changed"


class RestoreInProgress(Transient):
    """The object is being restored already."""

    reason = "restore_in_progress"


class ExpeditedUnavailable(Transient):
    """The store has no capacity for an expedited restore now; another tier would do."""

    reason = "expedited_unavailable"


class Throttled(S3flowError):
    """The store asks to slow down. Back-pressure: never counted as an attempt.

    *retry_after* is the store's wish in seconds, 0 when it named none; *endpoint* is its name.
    """

    reason = "throttled"

    def __init__(self, message: str, retry_after: float = 0.0, *, endpoint: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.endpoint = endpoint


# --- the whole flow waits --------------------------------------------------------------------


class Blocked(S3flowError):
    """Nothing is wrong with this object: every one would fail now. The flow waits, with an alarm."""

    reason = "blocked"


class TargetFull(Blocked):
    """The target has no room (ENOSPC, EDQUOT)."""

    reason = "target_full"


class TargetUnavailable(Blocked):
    """The target root is gone, read-only or another device than before."""

    reason = "target_unavailable"


class ClockSkewed(Blocked):
    """This machine's clock differs too much from the server's for signatures to be accepted."""

    reason = "clock_skewed"


class CredentialsMissing(Blocked):
    """No credentials can be had for an endpoint."""

    reason = "credentials_missing"


class CostReached(Blocked):
    """What comes next would let the flow spend more than its `max_cost`: it waits for a person."""

    reason = "max_cost"


# --- final for this object version -----------------------------------------------------------


class Permanent(S3flowError):
    """Trying again changes nothing until somebody changes something."""

    reason = "permanent"


class SourceGone(Permanent):
    """The object was deleted between listing and reading."""

    reason = "source_gone"


class NoSuchBucket(Permanent):
    """The bucket does not exist, or is in another account's view."""

    reason = "no_such_bucket"


class AccessDenied(Permanent):
    """The credentials may not do this."""

    reason = "access_denied"


class Archived(Permanent):
    """The object is in an archive tier and must be restored before it can be read."""

    reason = "archived"


class RestoreExpired(Archived):
    """The object was restored, more than once, and never read before the copy was gone again."""

    reason = "restore_expired"


class NotArchived(Permanent):
    """The object is in no archive tier: there is nothing to restore."""

    reason = "not_archived"


class Refused(Permanent):
    """The store refuses the request as it stands (4xx with no better name)."""

    reason = "refused"


class KeyRefused(Refused):
    """The KMS key cannot be used: it is disabled, unknown here, or out of reach."""

    reason = "key_refused"


class AclRefused(Refused):
    """The bucket takes no ACLs: the same request without one is right."""

    reason = "acl_refused"


class NameRefused(Permanent):
    """The target cannot hold this key exactly, by a written rule."""

    reason = "name_refused"


class NameTooLong(NameRefused):
    """A key over 1,024 bytes, or a file name over 255."""

    reason = "name_too_long"


class PathConflict(NameRefused):
    """A file and a directory, or two spellings, want the same path."""

    reason = "path_conflict"


class CopyRefused(Permanent):
    """The target's store does not copy this object by itself; its bytes can still be streamed."""

    reason = "copy_refused"


class SameObject(Permanent):
    """Source and target are one and the same object: there is nothing to copy."""

    reason = "same_object"


class TooLarge(Permanent):
    """The object is larger than the target takes."""

    reason = "too_large"


class TagsUnreadable(Permanent):
    """The object has tags and the credentials may not read them; the policy says to fail."""

    reason = "tags_unreadable"


class TargetExists(Permanent):
    """Another object is at the target key, and the overwrite policy keeps it."""

    reason = "target_exists"


# --- of moves: the copy is proven, and its source stays --------------------------------------


class DeleteDenied(Permanent):
    """The source may not be deleted: no permission, a lock, a legal hold."""

    reason = "delete_denied"


class DeleteFailed(Permanent):
    """The source could not be deleted, as often as it was tried."""

    reason = "delete_failed"


class UnguardedDelete(Permanent):
    """The source's store deletes whatever is at a key, also what came after the copy."""

    reason = "unguarded_delete"


class TargetLost(Permanent):
    """A proven copy is not at the target any more."""

    reason = "target_lost"
