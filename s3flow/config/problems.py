"""What is wrong with a configuration, one line each: where, what, and what to write instead."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from pydantic import BaseModel

from s3flow.config.prices import EndpointPrices, PriceSettings
from s3flow.config.settings import (
    DaemonSettings,
    FlowSettings,
    LocalEndpoint,
    Rewrite,
    S3Endpoint,
    Settings,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Loc = tuple[int | str, ...]
_REPLACED: dict[Loc, str] = {
    ("daemon", "allow_remote_metrics"): "remove it, and set listen_password to listen for others",
}

_ENDPOINTS: dict[str, type[BaseModel]] = {"s3": S3Endpoint, "local": LocalEndpoint}
# Only what cannot hold a secret by its nature is repeated to the reader.
_TELLING = {"enum", "literal_error", "int_parsing", "bool_parsing", "greater_than", "less_than"}
_TELLING |= {"greater_than_equal", "less_than_equal", "value_error", "int_from_float"}
_UNTOLD = {"access_key_id", "secret_access_key", "session_token", "external_id", "role_arn"}
_UNTOLD |= {"customer_key", "listen_password"}
_UNTOLD |= {"state", "queue", "url"}  # URLs with passwords in them
_NAMELIKE = re.compile(r"[A-Za-z0-9._-]{1,63}|\[key\]")
_SETTINGLIKE = re.compile(r"[A-Za-z_-]{1,30}")
UNNAMED = "…"  # for what is no name: a secret in the wrong place, perhaps
_LONGEST = 60  # characters of a value that a message repeats
_LONGEST_KEY = 16  # of what stands where a name belongs: shorter than keys to accounts are
_WHOLE = {
    "missing": "is missing",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "dict_type": "must be a table",
    "union_tag_not_found": 'is missing its type: write type = "s3" or type = "local"',
}
_PREDICATES = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "bool_parsing": "is neither true nor false",
    "bool_type": "is neither true nor false",
    "string_type": "is not a string",
    "tuple_type": "is not a list",
    "string_too_short": "is empty",
    "greater_than": "is not more than {gt}",
    "greater_than_equal": "is less than {ge}",
    "less_than_equal": "is more than {le}",
    "value_error": "{error}",
}


def path_of(loc: Loc) -> str:
    """Write a location as the file's reader knows it: flows[0].overwrite, endpoints.src.url."""
    text = ""
    for each in loc:
        step = each if isinstance(each, int) or _NAMELIKE.fullmatch(each) else UNNAMED
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "the file"


def place_of(error: ErrorDetails) -> Loc:
    """Give the setting that an error is about, without what pydantic adds to its location."""
    loc: Loc = error["loc"]
    if error["type"] == "union_tag_invalid":
        return (*loc, "type")
    if error["type"] == "extra_forbidden" and not _SETTINGLIKE.fullmatch(str(loc[-1])):
        return (*loc[:-1], UNNAMED)
    if len(loc) > 2 and loc[0] == "endpoints" and loc[2] in _ENDPOINTS:
        return loc[:2] + loc[3:]
    return loc[:-1] if loc and loc[-1] == "[key]" else loc


def describe(error: ErrorDetails, *, showable: bool) -> str:
    """Say what is wrong at one place. *showable*: the value stands literally in the file."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _WHOLE:
        return _WHOLE[kind]
    if kind == "extra_forbidden":
        return _unknown(error["loc"])
    if kind == "union_tag_invalid":
        return _unknown_type(str(context.get("tag", "")), showable)
    shown = _shown(error) if showable else "the value"
    if kind in {"enum", "literal_error"}:
        return f"{shown} is not one of {_choices(str(context['expected']))}"
    if kind in _PREDICATES:
        return f"{shown} {_PREDICATES[kind].format_map(context)}"
    return f"{shown} is refused: {error['msg'].lower()}"


def _shown(error: ErrorDetails) -> str:
    value = error["input"]
    secret = any(step in _UNTOLD for step in error["loc"])
    scalar = isinstance(value, str | int | float)
    longest = _LONGEST_KEY if error["loc"][-1:] == ("[key]",) else _LONGEST
    if secret or not scalar or error["type"] not in _TELLING or len(str(value)) > longest:
        return "the value"
    return repr(value)


def _choices(expected: str) -> str:
    return expected.replace(" or ", ", ").replace("'", "")


def _unknown_type(tag: str, showable: bool) -> str:
    if tag in {"gcs", "gs"}:
        return "gcs endpoints are not supported by this version"
    shown = repr(tag) if showable and len(tag) <= _LONGEST else "the type"
    return f"{shown} is not a type of endpoint: s3, local"


def _unknown(loc: Loc) -> str:
    if loc in _REPLACED:
        return f"is no setting any more: {_REPLACED[loc]}"
    known = _keys(loc[:-1])
    nearest = get_close_matches(str(loc[-1]).lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known here: {', '.join(sorted(known))}"
    return f"is not a setting; {hint}"


def _keys(table: Loc) -> list[str]:
    model: type[BaseModel] = Settings
    match table:
        case ("daemon",):
            model = DaemonSettings
        case ("prices",):
            model = PriceSettings
        case ("endpoints", _, _, "prices"):
            model = EndpointPrices
        case ("endpoints", _, str(tag)):
            model = _ENDPOINTS[tag]
        case ("flows", _):
            model = FlowSettings
        case ("flows", _, "rewrite", _):
            model = Rewrite
    return [field.alias or name for name, field in model.model_fields.items()]


def unknown_variable(name: str, prefix: str) -> str:
    """Say what a variable that sets nothing may have meant. Its value is never looked at."""
    tables = list(Settings.model_fields)
    nearest = get_close_matches(name.removeprefix(prefix).split("__")[0].lower(), tables, n=1)
    hint = (
        f"did you mean {prefix}{nearest[0].upper()}?" if nearest else f"known: {', '.join(tables)}"
    )
    return f"{name}: is not a setting; {hint}"
