"""What a server says reaches people: it acts on no terminal, breaks no line, and repeats no secret."""

from __future__ import annotations

import pytest

from s3flow.errors import BadAnswer, S3flowError
from s3flow.stores.s3.headers import unquote_etag
from s3flow.wire.xml import parse_document
from tests.contract.s3_scripted import BUCKET, TOKEN, Answer, error, scripted


@pytest.mark.parametrize("mark", ["\x1b[2J", "\x9b31m", "\u2028", "\u202e"])
async def test_words_and_request_ids_are_shown_escaped(mark: str) -> None:
    raw = mark.encode().decode("latin-1")
    told = error(403, f"No{'' if mark[0] < ' ' else mark}", "away" + mark.replace("\x1b", ""))
    answer = Answer(told.status, told.body, {"x-amz-request-id": f"1{raw}"})
    async with scripted(lambda _: answer) as server:
        with pytest.raises(S3flowError) as caught:
            await server.store().list_page(BUCKET, b"", b"")
    assert str(caught.value).isprintable()
    assert "away" in str(caught.value)


@pytest.mark.parametrize("etag", ['"\x1b[2J"', "a\x9b2J", '"\x7f"'])
def test_an_etag_without_letters_of_its_own_is_a_bad_answer(etag: str) -> None:
    with pytest.raises(BadAnswer, match="ETag"):
        unquote_etag(etag)


@pytest.mark.parametrize(
    "body",
    [
        f"<Error><Code>ExpiredToken</Code><Token-0>{TOKEN}",
        f"{TOKEN}",
        f"<Other><Token-0>{TOKEN}</Token-0></Other>",
        f'<a token="{TOKEN}"',
    ],
)
def test_an_answer_that_cannot_be_read_is_not_repeated(body: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        parse_document(body.encode(), "List")
    assert TOKEN not in str(caught.value)
