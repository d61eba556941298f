"""Bytes, times and keys as people read them, safe to print whatever a key contains."""

from __future__ import annotations

import unicodedata

LONGEST = 300  # characters of a key or message that are shown
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# Cc: CR, LF, ESC; Cf: bidi overrides; Zl and Zp: U+2028 and U+2029 break lines in some viewers;
# Cs: halves of surrogates, which no stream can encode; Cn and Co: unassigned and private ones, of
# which nobody knows how wide a terminal draws them.
_UNSAFE = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
# They are not seen, but change how wide the one before is drawn, and what the key is.
_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))


def shown(text: str | bytes, limit: int = LONGEST, *, keep: str = "") -> str:
    """Give *text* with everything escaped that could act on a terminal or forge a log line.

    Bytes that are not UTF-8 appear as \\xNN. *keep* names characters to leave alone.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode(errors="backslashreplace")
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if unicodedata.category(char) in _UNSAFE or char in _SELECTORS:
        return char.encode("unicode_escape").decode()
    return char


def size(number: float) -> str:
    """Give bytes in the unit that suits them: "512 B", "1.5 GiB"."""
    step = 0
    while number >= 1024 and step < len(_UNITS) - 1:
        number /= 1024
        step += 1
    return f"{number:.0f} B" if step == 0 else f"{number:.1f} {_UNITS[step]}"


def duration(seconds: float | None) -> str:
    """Give "45s", "12m 05s", "3h 10m" or "9d 4h"; "unknown" for None."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {left:02}s" if minutes else f"{left}s"


def percent(part: int, whole: int) -> str:
    """Give the share, rounded down: 100% is shown when nothing is left and not before."""
    return "100%" if part >= whole else f"{part * 100 // whole}%"


def money(cost: float) -> str:
    """Give a sum of money: "1,234.50", and what is below a hundredth as far as it takes to see it."""
    if not cost or cost >= 0.01:
        return f"{cost:,.2f}"
    return f"{cost:.4f}" if cost >= 0.0001 else "<0.0001"
