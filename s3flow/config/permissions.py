"""What the owners of both accounts must allow, as policies to paste: what the flows' settings make us ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from s3flow.config.checks import service_of
from s3flow.config.places import EACH_BUCKET, is_pattern
from s3flow.config.settings import LocalEndpoint, S3Endpoint, Settings
from s3flow.model import Flow
from s3flow.policies import DeletePolicy, MethodPolicy, Mode, RestorePolicy, TagPolicy

# What S3 asks for each request that s3flow sends; a test compares the requests with the code. Those
# that copy ask for more, at their source.
ACTIONS: Mapping[str, str] = {
    "ListBuckets": "s3:ListAllMyBuckets",
    "ListObjectsV2": "s3:ListBucket",
    "GetBucketLocation": "s3:GetBucketLocation",
    "GetBucketOwnershipControls": "s3:GetBucketOwnershipControls",
    "GetBucketWebsite": "s3:GetBucketWebsite",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "GetObjectTagging": "s3:GetObjectTagging",
    "RestoreObject": "s3:RestoreObject",
    "PutObject": "s3:PutObject",
    "CopyObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "UploadPartCopy": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListObjectVersions": "s3:ListBucketVersions",
}
# The whole bucket, without a condition on s3:prefix: who may not list a bucket hears 403 instead of
# 404 of an object that is gone, and such a question carries no prefix.
_SEE = ("s3:GetBucketLocation", "s3:ListBucket")
_SEE_TARGET = (*_SEE, "s3:ListBucketMultipartUploads")
_WRITE = (
    "s3:AbortMultipartUpload",
    "s3:DeleteObject",  # a copy that proves wrong goes again
    "s3:GetObject",  # its proof
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
)
_KMS = ("kms:Decrypt", "kms:GenerateDataKey")  # to decrypt: where parts are put together
_COPY_FROM = "CopyFrom"
_IAM = "IAM:"
_COPIES = {"CopyObject", "UploadPartCopy"}
_DENIED = re.compile(
    r"access_denied: (?P<operation>\w+) (?P<endpoint>[^:\s]+):(?P<bucket>[^/:\s]*)"
)
# Where AWS says it in full, as it does for keys.
_SPELLED_OUT = re.compile(
    r"not authorized to perform: (?P<action>[a-z0-9]+:\w+)(?: on resource: \"?(?P<on>[^\s\"]+))?"
)
# Also denied, and by no policy.
_NOT_A_POLICY = ("SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken")
_SET = re.compile(r"\[[^]]*]")
_WILD = re.compile(r"[*?$]")  # escaped as IAM wants it: ${*}

Statement = dict[str, object]


class _Denial(NamedTuple):
    endpoint: str
    bucket: str | None  # None: a copy's source
    action: str
    key: str = ""  # of KMS

    def __str__(self) -> str:
        """Say what is missing."""
        if not self.key:
            return self.action
        return f"{self.action} on {self.key}, in the policy of that key too if another account's"


@dataclass(frozen=True, slots=True)
class Policy:
    """A document, who pastes it where, and what doctor was denied of it."""

    title: str
    endpoint: str  # whose credentials it lets in
    statements: tuple[Statement, ...]
    missing: tuple[str, ...] = ()
    placeholders: tuple[str, ...] = ()

    @property
    def document(self) -> dict[str, object]:
        """What is pasted, ready for JSON."""
        return {"Version": "2012-10-17", "Statement": list(self.statements)}

    def would_allow(self, denial: _Denial) -> bool:
        """Say whether this is what *denial* asks for."""
        if denial.key:
            return denial.endpoint == self.endpoint and self.title.startswith(_IAM)
        return denial.endpoint == self.endpoint and any(
            denial.action in _listed(statement["Action"])
            and (
                _COPY_FROM in str(statement["Sid"])
                if denial.bucket is None
                else any(_is_about(arn, denial.bucket) for arn in _listed(statement["Resource"]))
            )
            for statement in self.statements
        )


class _End(NamedTuple):
    name: str
    endpoint: S3Endpoint
    bucket: str
    prefix: bytes

    @property
    def partition(self) -> str:
        service = service_of(self.endpoint)
        return service if service.startswith("aws") else "aws"

    @property
    def login(self) -> tuple[str, ...]:
        endpoint = self.endpoint
        token = endpoint.web_identity_token_file
        return endpoint.access_key_id, endpoint.profile, endpoint.role_arn, token

    @property
    def principal(self) -> str:
        """Name who comes; the account, where only that is known: its own policies narrow it."""
        if self.endpoint.role_arn:
            return self.endpoint.role_arn
        return f"arn:{self.partition}:iam::{self.account}:root"

    @property
    def account(self) -> str:
        return self.endpoint.expected_bucket_owner or f"ACCOUNT-OF-{self.name.upper()}"

    @property
    def key_arn(self) -> str:
        """Name the KMS key that is written with; "" for none."""
        key = self.endpoint.kms_key_id
        if not key or key.startswith("arn:"):
            return key
        # A key's alias is no name for a policy: only the key that it stands for is.
        name = "KEY-ID" if key.startswith("alias/") else key
        return f"arn:{self.partition}:kms:{self.endpoint.region}:{self.account}:key/{name}"

    @property
    def bucket_arn(self) -> str:
        # A set of characters is no wildcard of IAM's: any character covers it.
        bucket = _SET.sub("?", self.bucket)
        return f"arn:{self.partition}:s3:::{bucket}"

    @property
    def objects_arn(self) -> str:
        prefix = self.prefix.decode(errors="replace")
        literal = _WILD.sub(r"${\g<0>}", prefix).replace("\ufffd", "?")
        return f"{self.bucket_arn}/{literal}*"


@dataclass(slots=True)
class _Draft:
    """Statements on their way to a policy, merged by what they are about."""

    title: str
    endpoint: str
    principal: str = ""
    allowed: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def allow(self, sid: str, resource: str, actions: Iterable[str]) -> None:
        self.allowed.setdefault((sid, resource), set()).update(actions)

    def policy(self) -> Policy:
        statements = tuple(self._statements())
        known = sorted(
            set(re.findall(r"\bACCOUNT-OF-[\w.-]+|\bBUCKET\b|\bKEY-ID\b", str(statements)))
        )
        return Policy(self.title, self.endpoint, statements, placeholders=tuple(known))

    def _statements(self) -> Iterator[Statement]:
        by_grant: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for (sid, resource), actions in self.allowed.items():
            by_grant.setdefault((sid, tuple(sorted(actions))), []).append(resource)
        for number, ((sid, granted), resources) in enumerate(by_grant.items()):
            statement: Statement = {"Sid": f"S3flow{sid}{number or ''}", "Effect": "Allow"}
            if self.principal:
                statement["Principal"] = {"AWS": self.principal}
            statement["Action"] = list(granted)
            statement["Resource"] = resources[0] if len(resources) == 1 else sorted(resources)
            yield statement


def policies(settings: Settings, flows: Sequence[Flow]) -> list[Policy]:
    """Give the policies that *flows* need, the fewest permissions that let all of them work."""
    drafts: dict[str, _Draft] = {}
    for flow in flows:
        source, target = _source(settings, flow), _target(settings, flow)
        _allow_reading(_identity(drafts, source), source, flow, target)
        if target is not None:
            _allow_writing(_identity(drafts, target), target, flow)
            _allow_copying(drafts, source, target, flow)
    return [draft.policy() for draft in drafts.values()]


def with_missing(found: Sequence[Policy], answers: Iterable[str]) -> list[Policy]:
    """Mark in each policy what *answers*, of doctor's findings, prove to be missing."""
    denied = set(_denials(answers))
    # A copy needs both ends' yes: what is missing is the source's, where the target's is there.
    no_entry = {denial.endpoint for denial in denied if denial.action == "s3:PutObject"}
    denied -= {each for each in denied if each.bucket is None and each.endpoint in no_entry}
    return [
        replace(policy, missing=tuple(sorted({str(d) for d in denied if policy.would_allow(d)})))
        for policy in found
    ]


def as_text(settings: Settings, flows: Sequence[Flow], answers: Iterable[str]) -> Iterator[str]:
    """Give the policies as they are printed: JSON below lines that start with #."""
    for policy in with_missing(policies(settings, flows), answers):
        yield f"\n# {policy.title}"
        for name in policy.placeholders:
            yield f"# put in: what stands for {name}"
        for action in policy.missing:
            yield f"# missing: {action} (it was denied just now)"
        yield json.dumps(policy.document, indent=2, ensure_ascii=False)


def _denials(answers: Iterable[str]) -> Iterator[_Denial]:
    for answer in answers:
        match = _DENIED.search(answer)
        if match is None or any(code in answer for code in _NOT_A_POLICY):
            continue
        endpoint, operation = match["endpoint"], match["operation"]
        spelled = _SPELLED_OUT.search(answer)
        if spelled and spelled["action"].startswith("kms:"):
            yield _Denial(endpoint, None, spelled["action"], spelled["on"] or "the key")
        elif operation in _COPIES:
            yield _Denial(endpoint, None, spelled["action"] if spelled else "s3:GetObject")
        elif operation in ACTIONS:
            action = spelled["action"] if spelled else ACTIONS[operation]
            yield _Denial(endpoint, match["bucket"], action)


# --- what a flow needs -------------------------------------------------------------------------


def _source(settings: Settings, flow: Flow) -> _End:
    endpoint = settings.endpoints[flow.source.endpoint]
    if isinstance(endpoint, LocalEndpoint):  # refused when the settings are loaded
        raise TypeError(f"{flow.source.endpoint} is no S3 endpoint")
    return _End(flow.source.endpoint, endpoint, flow.source.bucket, flow.source.prefix)


def _target(settings: Settings, flow: Flow) -> _End | None:
    endpoint = settings.endpoints[flow.target.endpoint]
    if isinstance(endpoint, LocalEndpoint):
        return None
    bucket = flow.source.bucket if flow.target.bucket == EACH_BUCKET else flow.target.bucket
    return _End(flow.target.endpoint, endpoint, bucket, flow.target.prefix)


def _identity(drafts: dict[str, _Draft], end: _End) -> _Draft:
    title = f'{_IAM} for the user or role of endpoint "{end.name}"'
    return drafts.setdefault(f"identity {end.name}", _Draft(title, end.name))


def _reading(flow: Flow, target: _End | None) -> tuple[str, ...]:
    carries_tags = target is not None and flow.tags is not TagPolicy.DROP
    return ("s3:GetObject", "s3:GetObjectTagging") if carries_tags else ("s3:GetObject",)


def _allow_reading(draft: _Draft, source: _End, flow: Flow, target: _End | None) -> None:
    if is_pattern(source.bucket):
        draft.allow("Buckets", "*", ("s3:ListAllMyBuckets",))
    draft.allow("See", source.bucket_arn, _SEE)
    draft.allow("Read", source.objects_arn, _reading(flow, target))
    # Other stores have no archives of this kind, and some refuse policies that name what they lack.
    if flow.restore is RestorePolicy.AUTO and service_of(source.endpoint).startswith("aws"):
        draft.allow("Read", source.objects_arn, ("s3:RestoreObject",))
    if flow.mode is Mode.MOVE:
        # To write, and to see versions, is for a probe: whether the store compares before it deletes.
        draft.allow("Read", source.objects_arn, ("s3:DeleteObject", "s3:PutObject"))
        draft.allow("See", source.bucket_arn, ("s3:ListBucketVersions",))
        if flow.delete is DeletePolicy.VERSION:
            versions = ("s3:DeleteObjectVersion", "s3:GetObjectVersion")
            draft.allow("Read", source.objects_arn, versions)


def _allow_writing(draft: _Draft, target: _End, flow: Flow) -> None:
    draft.allow("SeeTarget", target.bucket_arn, _SEE_TARGET)
    if target.key_arn and not draft.principal:  # a bucket's policy can allow nothing of KMS
        draft.allow("Encrypt", target.key_arn, _KMS)
    if target.endpoint.acl:
        _allow_acls(draft, target)
    draft.allow("Write", target.objects_arn, _WRITE)
    if flow.tags is not TagPolicy.DROP:
        draft.allow("Write", target.objects_arn, ("s3:PutObjectTagging",))


def _allow_copying(drafts: dict[str, _Draft], source: _End, target: _End, flow: Flow) -> None:
    """Let the store copy by itself: with the target's credentials, or else with the source's."""
    one_service = service_of(source.endpoint) == service_of(target.endpoint)
    if flow.method is MethodPolicy.STREAM_ONLY or not one_service:
        return
    if service_of(source.endpoint).startswith("aws"):  # others refuse policies that name it
        # No store copies redirects; without this those of objects with bytes would stay behind.
        _identity(drafts, source).allow("See", source.bucket_arn, ("s3:GetBucketWebsite",))
    # Who copies must be allowed by the own account and by the other one's bucket.
    reader = _identity(drafts, target)
    _allow_copying_out(reader, source, flow, target)
    owners = {end.endpoint.expected_bucket_owner for end in (source, target)}
    if source.login == target.login or (len(owners) == 1 and owners != {""}):
        return  # one account: no bucket need let anybody in
    out = _of_bucket(drafts, source, target, "copy out of it")
    _allow_copying_out(out, _each_bucket(source), flow, target)
    into = _of_bucket(drafts, target, source, "copy into it", "or instead: ")
    _allow_copying_in(into, _each_bucket(target), flow)
    title = f'or instead: IAM: for the user or role of endpoint "{source.name}", beside the above'
    beside = drafts.setdefault(f"beside {source.name}", _Draft(title, source.name))
    _allow_copying_in(beside, target, flow)


def _allow_copying_in(draft: _Draft, target: _End, flow: Flow) -> None:
    _allow_writing(draft, target, flow)
    # Who writes from another account hands the objects over, where the bucket still has ACLs.
    _allow_acls(draft, target)


def _allow_acls(draft: _Draft, target: _End) -> None:
    if service_of(target.endpoint).startswith("aws"):  # others refuse policies that name it
        draft.allow("SeeTarget", target.bucket_arn, ("s3:GetBucketOwnershipControls",))
    draft.allow("Write", target.objects_arn, ("s3:PutObjectAcl",))


def _allow_copying_out(draft: _Draft, source: _End, flow: Flow, target: _End) -> None:
    # Without leave to list, an object that is gone looks like a bucket that refuses copies.
    draft.allow(_COPY_FROM, source.bucket_arn, ("s3:ListBucket",))
    draft.allow(_COPY_FROM, source.objects_arn, _reading(flow, target))


def _of_bucket(
    drafts: dict[str, _Draft], owner: _End, guest: _End, what: str, mark: str = ""
) -> _Draft:
    title = (
        f'{mark}policy of the bucket "{owner.bucket}" of endpoint "{owner.name}": '
        f'lets the credentials of "{guest.name}" {what}'
    )
    key = f"bucket {owner.name} {owner.bucket} {guest.name}"
    return drafts.setdefault(key, _Draft(title, guest.name, guest.principal))


def _each_bucket(end: _End) -> _End:
    """Name the bucket itself: a bucket's policy can speak of no other."""
    return end._replace(bucket="BUCKET") if is_pattern(end.bucket) else end


def _is_about(resource: str, bucket: str) -> bool:
    name = resource.rpartition(":")[2].split("/", maxsplit=1)[0]
    return fnmatchcase(bucket, name) or name == "BUCKET"


def _listed(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]
