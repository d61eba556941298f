"""Sizes and durations as people write them. Messages are predicates: the caller names the value."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(b|[kmgtp]i?b)?", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_STEP = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|[wdhms])")
_SECONDS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PERIODS = {"hour": 3_600.0, "day": 86_400.0, "week": 604_800.0, "month": 30 * 86_400.0}
_LARGEST = 2**63 - 1  # what SQLite and MySQL hold in one integer
_LONGEST = 64  # characters; keeps hostile digits away from the arithmetic

_NO_SIZE = 'is not a size: write bytes, or "64MiB", "5GB"'
_NO_DURATION = 'is not a duration: write seconds, or "20s", "10m", "1h30m", "7d"'


def parse_size(value: object) -> int:
    """Give bytes for 1048576, "64MiB" (1,024s) or "5GB" (1,000s). Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = Fraction(value)
    elif isinstance(value, str) and len(value) <= _LONGEST:
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError(_NO_SIZE)
        size = Fraction(match[1]) * _multiple((match[2] or "b").lower())
    else:
        raise ValueError(_NO_SIZE)
    if size.denominator != 1:
        raise ValueError("is not a whole number of bytes")
    if not 0 <= size <= _LARGEST:
        raise ValueError("is out of range for a size")
    return int(size)


def _multiple(unit: str) -> int:
    step = 1024 if "i" in unit else 1000
    return int(step ** "bkmgtp".index(unit[0]))


def parse_duration(value: object) -> float:
    """Give seconds for 90, 1.5, "90", "20s", "1h30m" or "7d". Raises `ValueError`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _checked(value)
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST:
        raise ValueError(_NO_DURATION)
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _checked(float(text))
    if _STEP.sub("", text).strip():
        raise ValueError(_NO_DURATION)
    steps = _STEP.findall(text)
    units = [unit for _, unit in steps]
    if len(set(units)) != len(units):
        raise ValueError("is not a duration: a unit stands twice")
    return _checked(math.fsum(float(number) * _SECONDS[unit] for number, unit in steps))


def _checked(seconds: float) -> float:
    # A century is beyond any use here, and keeps "now + duration" inside what clocks can show.
    if not 0 <= seconds <= 36_525 * _SECONDS["d"]:
        raise ValueError("is out of range for a duration")
    return float(seconds)


def parse_share(value: object) -> float:
    """Give 0.05 for "5%" or 0.05. Raises `ValueError`."""
    if isinstance(value, str) and len(value) <= _LONGEST:
        text = value.strip().removesuffix("%").rstrip()
        if _NUMBER.fullmatch(text):
            share = float(text) / (100 if value.strip().endswith("%") else 1)
            return _checked_share(share)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return _checked_share(float(value))
    raise ValueError('is not a share: write "5%"')


def _checked_share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError('is out of range for a share: write "0%" to "100%"')
    return share


def parse_pace(value: object) -> float:
    """Give the share of a day for "1%/day" or "0.5%/hour", 0.0 for "". Raises `ValueError`."""
    if value == "":
        return 0.0
    share, _, period = value.partition("/") if isinstance(value, str) else ("", "", "")
    if "%" not in share or period.strip() not in _PERIODS:
        raise ValueError('is not a pace: write "1%/day", or with hour, week or month')
    return parse_share(share) * _SECONDS["d"] / _PERIODS[period.strip()]


def _optional_size(value: object) -> int | None:
    return None if value is None or value == "" else parse_size(value)


def _optional_interval(value: object) -> float | None:
    seconds = _optional_duration(value)
    if seconds == 0:
        raise ValueError("is not more than 0")
    return seconds


def _optional_duration(value: object) -> float | None:
    return None if value is None or value == "" else parse_duration(value)


def _whole(value: object) -> object:
    # To Python, and so to pydantic, true is 1.
    if isinstance(value, bool):
        raise ValueError("is not a whole number")  # noqa: TRY004 -- pydantic reports ValueError
    return value


def _workers(value: object) -> object:
    if value == "auto":
        return 0
    if value in (0, "0"):
        raise ValueError('is not a number of processes: write 1 or more, or "auto"')
    return _whole(value)


Whole = Annotated[int, BeforeValidator(_whole)]
Workers = Annotated[int, BeforeValidator(_workers)]  # 0: as many as there are CPUs
Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
DailyShare = Annotated[float, BeforeValidator(parse_pace)]  # 0: none
Share = Annotated[float, BeforeValidator(parse_share)]
OptionalSize = Annotated[int | None, BeforeValidator(_optional_size)]  # "" means none
OptionalDuration = Annotated[float | None, BeforeValidator(_optional_duration)]
OptionalInterval = Annotated[float | None, BeforeValidator(_optional_interval)]
