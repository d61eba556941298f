"""Names and metadata that mean harm, or are only odd; and the written rules for what cannot be kept."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator

LONGEST = 1024  # bytes of a key, in S3
COMPONENT = 255  # bytes of a file's name

KEYS = (
    # paths
    *(
        "..",
        ".",
        "../up",
        "./a",
        "a/../b",
        "a/./b",
        "a//b",
        "//",
        "/",
        "/lead",
        "trail/",
        "a/",
        "/a/",
    ),
    *(
        "~",
        "~root",
        "-rf",
        "--help",
        "$HOME",
        "$(id)",
        "`id`",
        "*",
        "?",
        "[a]",
        "{bucket}",
        "{key}",
    ),
    # ours
    *(".s3flow-root", ".s3flow-0000000000000000", ".s3flow-0000000000000000.parts", "x/.s3flow-y"),
    *(".s3flow-probe-1", "s3flow-probe-1", "state.db", "dir/.s3flow", ".s3flow"),
    # encodings: what one decoding too many, or one too few, makes another name of
    *(
        "%25",
        "%",
        "%2F",
        "%2e%2e%2f",
        "%00",
        "%0a",
        "a+b",
        "a b",
        "a%20b",
        "%41",
        "A",
        "+",
        "&amp;",
    ),
    *(
        "<Key>",
        "]]>",
        "&#10;",
        "a&b",
        "a=b&c=d",
        "a?versionId=null",
        "a#b",
        "a;b",
        "?delete",
        "?uploads",
    ),
    # spaces and controls
    *(
        " ",
        "  lead",
        "trail  ",
        "\t",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "\r\nX-Evil: 1",
        "a\x01b",
        "\x7f",
        "\x1f",
    ),
    *("a\x0bb", "a\x0cb", "a\x08b", "a\x85b", "a\x9bb", "\ufffe", "\uffff", "a\u2028b", "\u2029"),
    # terminals
    *(
        "\x1b[31mred",
        "\x1b]0;title\x07",
        "\x1b[2J\x1b[H",
        "\x9b31m",
        "\x1bP+q\x1b\\",
        "a\x1b]8;;http://e\x07b",
    ),
    # Unicode
    *(
        "\u202egnp.exe",
        "\u2066a\u2069",
        "a\u200db",
        "a\u200bb",
        "\ufeffbom",
        "👩‍👩‍👧‍👦",
        "🚚",
        "漢字",
        "عربي",
    ),
    *(
        unicodedata.normalize("NFC", "café"),
        unicodedata.normalize("NFD", "café"),
        "ﬁ",
        "fi",
        "Å",
        "\u212b",
    ),
    *(
        "K",
        "\u212a",
        "ß",
        "SS",
        "ss",
        "İ",
        "i̇",
        "\u0131",
        "\U0010ffff",
        "\U000e0001",
        "a\ufe0f",
        "Z̸̢͇" * 9,
    ),
    # case
    *("case", "CASE", "Case", "dir/X", "DIR/X", "dir/x"),
    # spreadsheets, databases, templates, logs
    *(
        "=cmd|' /C calc'!A0",
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "=1,2",
        '"',
        '""',
        "'",
        "a,b",
        "a;b",
        '"a","b"',
        "\\",
    ),
    *(
        "' OR 1=1 --",
        "'; DROP TABLE objects; --",
        "%_",
        "_",
        "100%",
        "\\%",
        "\\_",
        "a\\b",
        "\\\\host\\share",
    ),
    *(
        "${jndi:ldap://e}",
        "{{7*7}}",
        "%s%n",
        "{0}",
        "<script>alert(1)</script>",
        "[bold]a[/bold]",
        "[link=e]x",
    ),
    *(
        "null",
        "None",
        "true",
        "0",
        "1e999",
        "{}",
        "[]",
        '{"hex":"00"}',
        "level=error msg=x",
        "hex",
        "[link=e]x",
    ),
    # Windows
    *(
        "CON",
        "con.txt",
        "NUL",
        "COM1",
        "aux",
        "a.",
        "a:b",
        "a:$DATA",
        "a|b",
        "a<b>",
        "LPT1.txt",
        "desktop.ini",
    ),
    # lengths
    *(
        "x" * 255,
        "x" * 256,
        "y" * 1024,
        "é" * 127 + "z",
        "é" * 128,
        "d/" * 511 + "ee",
        "🚚" * 63,
        "🚚" * 256,
    ),
    # a file and a folder of one name
    *("both", "both/inside", "both/", "deep/er", "deep/er/est"),
)

METADATA: tuple[dict[str, str], ...] = (
    {},
    {"empty": ""},
    {"a": "x" * 2000},
    {"quoted": 'a "b" \\c', "semi": "a; b=c", "comma": "a, b,c"},
    {"percent": "a%20b%0d%0aX-Evil: 1", "plus": "a+b"},
    {"encoded": "=?UTF-8?B?Z3LDvMOfZSDwn5qa?=", "word": "=?utf-8?Q?a=0D=0Ab?="},
    {"with-dashes-and_underscores": "1", "0": "digit", "x.dot": "dot"},
    {"s3flow-transfer": "forged"},
    {"formula": "=1+1", "html": "<b>&amp;", "json": '{"a": [1]}'},
    {"inner": "a   b"},
    {f"k{number}": str(number) for number in range(40)},
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"ContentType": "text/plain; charset=\"utf-8\"; x=';,'"},
    {"ContentDisposition": 'attachment; filename="a\\"b.txt"; filename*=UTF-8\'\'%e2%82%ac'},
    {"CacheControl": 'no-cache, private="x"', "ContentLanguage": "de, en"},
    {"ContentEncoding": "identity, gzip"},
)
_PIECES = (
    "ab/.\\ %+&=?#'\"<>{}[]()$*;:,|~^`@!-_é漢🚚\u0301\u200d\u202e\x1b\x07\n\r\t\x01\x7f\x85\u2028"
)


def made_up(draw: random.Random) -> str:
    """Make a name of the pieces that are trouble."""
    length = draw.choice([1, 2, 3, 5, 8, 13, 40, 200])
    return "".join(draw.choices(_PIECES, k=length))


def keys(draw: random.Random, count: int) -> Iterator[str]:
    """Give so many names that S3 takes, each once."""
    given = set[str]()
    while len(given) < count:
        key = draw.choice(KEYS) if draw.random() < 0.6 else made_up(draw)
        if draw.random() < 0.2:
            key = draw.choice(["dir/", "a/b/", "é/"]) + key
        if key not in given and 0 < len(key.encode()) <= LONGEST:
            given.add(key)
            yield key


def refused_on_disk(key: str) -> str:
    """Give the reason by which a folder refuses a key, as the README has it; "" if it takes it."""
    components = key.split("/")
    if "\0" in key or key in ("", "/"):
        return "name_refused"
    for component in components[:-1] if key.endswith("/") else components:
        if component in ("", ".", "..") or component.startswith(".s3flow-"):
            return "name_refused"
        if len(component.encode()) > COMPONENT:
            return "name_too_long"
    return ""


def in_the_way(keys: set[str]) -> set[str]:
    """Give the keys that are a file and a folder at once: either may be there first."""
    folders = {key[:at] for key in keys for at, char in enumerate(key) if char == "/"}
    files = {key for key in keys if key in folders}
    below = {key for key in keys for name in files if key.startswith(name + "/")}
    return files | below
