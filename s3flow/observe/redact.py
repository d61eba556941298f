"""Keeps secrets and control characters out of log entries, whatever field they come in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import quote

from s3flow.observe import text

HIDDEN = "***"
_SECRET_NAME = re.compile(r"authorization|secret|token|password|passwd|signature", re.IGNORECASE)
_IN_TEXT = re.compile(
    r"((?:Signature|X-Amz-Security-Token|X-Amz-Credential)=)[^&\s,;\"']+", re.IGNORECASE
)
_SHORTEST = 4  # characters; hiding less would blot out the log and protect nothing
_MULTILINE = frozenset({"exception", "stack"})
_LONGEST_TRACE = 20_000  # characters

_Fields = MutableMapping[str, Any]  # structlog's own type


class Redactor:
    """A structlog processor that hides secrets and escapes what could forge lines.

    Values are searched for the secrets as they are, URL-encoded and JSON-escaped; whatever stands
    under a name such as "authorization" goes whole.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
        longest_first = sorted(forms, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, _logger: object, _method: str, fields: _Fields) -> _Fields:
        """Clean every field of an entry."""
        return {name: self._field(name, value) for name, value in fields.items()}

    def _field(self, name: str, value: object) -> object:
        if name.startswith("_"):  # structlog's own, which it takes out again
            return value
        if name in _MULTILINE and isinstance(value, str):
            return text.shown(self.scrub(value), _LONGEST_TRACE, keep="\n")
        return self._clean(name, value)

    def _clean(self, name: str, value: object) -> object:
        if _SECRET_NAME.search(name):
            return HIDDEN
        if isinstance(value, dict):
            return {str(inner): self._clean(str(inner), item) for inner, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean("", item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        plain = value if isinstance(value, str) else None
        if isinstance(value, bytes | memoryview):
            plain = bytes(value[: 4 * text.LONGEST]).decode(errors="backslashreplace")
        return text.shown(self.scrub(str(value) if plain is None else plain))

    def scrub(self, line: str) -> str:
        """Give *line* without secrets."""
        if self._secrets is not None:
            line = self._secrets.sub(HIDDEN, line)
        return _IN_TEXT.sub(rf"\1{HIDDEN}", line)


def _forms(secret: str) -> set[str]:
    escaped = json.dumps(secret)[1:-1]
    return {secret, quote(secret, safe=""), quote(secret), escaped, repr(secret)[1:-1]}
