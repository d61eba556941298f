"""S3's XML answers as values: listings and errors."""  # noqa: A005 - always imported by its full name

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes
from xml.etree.ElementTree import Element, ParseError, XMLParser

from s3flow.errors import BadAnswer
from s3flow.model import Listed
from s3flow.wire import entries as entries_by_shape

_SHOWN = 120  # characters of an unusable answer that go into the message
# A tree takes up to 100 times its text: 1.5 GB and 5 s of the loop for the 16 MiB that an answer may
# have. Each of these bytes begins an object of it; 1,000 keys or parts have less than a tenth so many.
_MARKS = b"<&\n\"'="
_MOST_MARKS = 350_000
_OPENED = re.compile(rb"<[A-Za-z][A-Za-z0-9:]{0,40}")
# Below a petabyte: the sizes of a page must add up to what the state can hold, 63 bits.
_SIZE = re.compile("[0-9]{1,15}")
_NUMBER = re.compile("[0-9]{1,18}")  # what the state can hold, and far from Python's own limit


class ListResult(NamedTuple):
    """One answer to ListObjectsV2. *token* continues it when it is *truncated*."""

    entries: list[Listed]
    truncated: bool
    token: str


class S3Error(NamedTuple):
    """What an <Error> document says; *fields* holds its other elements by name."""

    code: str
    message: str
    fields: dict[str, str]


def parse_list(body: bytes) -> ListResult:
    """Read an answer to ListObjectsV2 that was asked for with encoding-type=url.

    Keys come back as the store's bytes: AWS and its kin write a space as "+" and "+" as "%2B"
    there, others write "%20"; nobody leaves a "+" bare, so one decoding serves all. A store that
    ignored the parameter does not say <EncodingType>, and its keys are taken as they are.
    Raises `BadAnswer` for anything else than a well-formed listing.
    """
    found = entries_by_shape.cut_out(body)
    root = _parse(body if found is None else found[1])
    name = _local_name(root)
    if name != "ListBucketResult":
        raise BadAnswer(f"a listing was asked for and <{name}> came: {_start(body)}")
    space = root.tag[: -len(name)]
    if found is not None and len(root.findall(f"{space}Contents")) != 1:
        found, root = None, _parse(body)  # they were inside of something else
    encoded = (root.findtext(f"{space}EncodingType") or "").strip().lower() == "url"
    try:
        if found is not None:
            entries = entries_by_shape.listed(found[0], encoded=encoded)
        else:
            entries = _entries(root, space, encoded=encoded)
    except ValueError as error:
        raise BadAnswer(f"a listing has an entry that cannot be read: {error}") from error
    truncated = (root.findtext(f"{space}IsTruncated") or "").strip().lower() == "true"
    return ListResult(entries, truncated, root.findtext(f"{space}NextContinuationToken") or "")


def _entries(root: Element, space: str, *, encoded: bool) -> list[Listed]:
    key_tag, size_tag, etag_tag = f"{space}Key", f"{space}Size", f"{space}ETag"
    modified_tag, class_tag = f"{space}LastModified", f"{space}StorageClass"
    entries = []
    for element in root.findall(f"{space}Contents"):
        text = element.findtext
        key, size = text(key_tag), text(size_tag)
        if not key or not size or not _SIZE.fullmatch(size):
            raise ValueError(f"key {key!r}, size {size!r}"[:_SHOWN])
        entries.append(
            Listed(
                _decode_key(key) if encoded else key.encode(),
                int(size),
                (text(etag_tag) or "").strip('"'),
                entries_by_shape.milliseconds(text(modified_tag) or ""),
                text(class_tag) or "STANDARD",
            )
        )
    return entries


def _decode_key(key: str) -> bytes:
    if "+" in key:
        key = key.replace("+", " ")
    return unquote_to_bytes(key) if "%" in key else key.encode()


class Document:
    """A small answer, read by local names: some stores leave S3's namespace out."""

    def __init__(self, element: Element) -> None:
        self._element = element

    def text(self, name: str) -> str:
        """Give the text of the child *name*, "" when there is none."""
        return self.texts().get(name, "")

    def texts(self) -> dict[str, str]:
        """Give the texts of all children by name."""
        return {_local_name(child): (child.text or "").strip() for child in self._element}

    def number(self, name: str) -> int:
        """Give the child *name* as a whole number, 0 when there is none. Raises `BadAnswer`."""
        text = self.text(name)
        if text and not _NUMBER.fullmatch(text):
            raise BadAnswer(f"<{name}> is {text[:_SHOWN]!r} where a number belongs")
        return int(text or 0)

    def flag(self, name: str) -> bool:
        """Say whether the child *name* is "true"."""
        return self.text(name).lower() == "true"

    def each(self, *path: str) -> list[Document]:
        """Give the elements at *path*, every one of the last name."""
        found = [self._element]
        for name in path:
            found = [child for parent in found for child in parent if _local_name(child) == name]
        return [Document(element) for element in found]


def parse_document(body: bytes, name: str) -> Document:
    """Read a document whose root begins with *name*. Raises `BadAnswer` for any other.

    Only begins: where S3 says …Result, some stores say …Response.
    """
    root = _parse(body)
    if not _local_name(root).startswith(name):
        raise BadAnswer(f"<{name}…> was asked for and <{_local_name(root)}> came: {_start(body)}")
    return Document(root)


def parse_error(body: bytes) -> S3Error | None:
    """Read an <Error> document; None when *body* is something else, such as a proxy's HTML page.

    Raises `BadAnswer` for a document that begins as an error and is not well-formed.
    """
    if b"<Error" not in body[:1024]:
        return None
    root = _parse(body)
    name = _local_name(root)
    if name == "ErrorResponse":  # IAM's and STS's wrapping, which some stores use for S3 as well
        root = next((child for child in root if _local_name(child) == "Error"), root)
        name = _local_name(root)
    if name != "Error":
        return None
    fields = {_local_name(child): (child.text or "").strip() for child in root}
    return S3Error(fields.pop("Code", ""), fields.pop("Message", ""), fields)


def _parse(body: bytes) -> Element:
    # Entities need a document type, which S3 never sends. It could hide from a search of bytes in
    # UTF-16, which expat recognises by its mark whatever encoding it is told; hence the NUL.
    if b"\0" in body:
        raise BadAnswer("an XML answer holds NUL bytes, so it is not UTF-8")
    if b"<!DOCTYPE" in body:
        raise BadAnswer("an XML answer declares a document type, which S3 never does")
    if len(body) > _MOST_MARKS and sum(map(body.count, _MARKS)) > _MOST_MARKS:
        raise BadAnswer(
            f"an XML answer is no answer of S3's, it has too many parts: {_start(body)}"
        )
    parser = XMLParser(encoding="utf-8")  # noqa: S314 - entities are impossible here, see above
    try:
        parser.feed(body)
        root: Element = parser.close()
    except (ParseError, ValueError) as error:
        raise BadAnswer(f"an answer is not well-formed XML ({error}): {_start(body)}") from error
    return root


def _local_name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _start(body: bytes) -> str:
    """Name the elements that come first; their text may repeat what a request held, keys included."""
    found = _OPENED.findall(body[: 4 * _SHOWN])
    return b"".join(found)[:_SHOWN].decode() + "…" if found else f"{len(body)} bytes without a tag"
