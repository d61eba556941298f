"""The witness of these tests is checked too: it counts what it sees, and tells repetitions."""

from __future__ import annotations

from tests.e2e.conftest import Stage
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import Request, parts_sent_twice


def request(kind: str, began: int, answered: int = 0, part: str = "1") -> Request:
    query = {"uploadId": "u", "partNumber": part}
    status = 200 if answered else 0
    return Request(kind, "PUT", "b", "k", query, "", began, status, answered, answered)


def test_a_part_that_was_known_to_be_there_is_a_repetition() -> None:
    again = request("upload_part", 4, 5)
    seen = [request("upload_part", 1, 2), request("list_parts", 3, 3), again]
    assert parts_sent_twice(seen) == [again]
    without_asking = [request("upload_part", 1, 2), again]
    assert parts_sent_twice(without_asking) == [again]


def test_a_part_that_was_cut_off_or_arrived_too_late_to_be_listed_is_none() -> None:
    cut_off = [request("upload_part", 1), request("list_parts", 3, 3), request("upload_part", 4, 5)]
    assert parts_sent_twice(cut_off) == []
    late = [request("upload_part", 1, 4), request("list_parts", 3, 5), request("upload_part", 6, 7)]
    assert parts_sent_twice(late) == []
    others = [request("upload_part", 1, 2), request("upload_part", 3, 4, part="2")]
    assert parts_sent_twice(others) == []


def test_requests_are_named_and_passed_on(stage: Stage) -> None:
    with Proxy(stage.server.url) as proxy:
        through = stage.server.url, proxy.url
        stage.server.url = proxy.url
        try:
            client = stage.server.client(0)
        finally:
            stage.server.url = through[0]
        client.put_object(Bucket=stage.source, Key="a/ b", Body=b"words", Tagging="a=b")
        assert client.get_object(Bucket=stage.source, Key="a/ b")["Body"].read() == b"words"
        client.head_object(Bucket=stage.source, Key="a/ b")
        client.get_object_tagging(Bucket=stage.source, Key="a/ b")
        client.list_objects_v2(Bucket=stage.source)
        place = {"Bucket": stage.source, "Key": "parts"}
        upload = client.create_multipart_upload(**place)["UploadId"]
        client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")
        client.list_parts(**place, UploadId=upload)
        client.list_multipart_uploads(Bucket=stage.source)
        client.abort_multipart_upload(**place, UploadId=upload)
        client.delete_object(Bucket=stage.source, Key="a/ b")
        client.close()
    kinds = "put get head get_tags list create_upload upload_part list_parts list_uploads abort"
    assert [one.kind for one in proxy.requests] == [*kinds.split(), "delete"]
    assert {one.bucket for one in proxy.requests} == {stage.source}
    assert {one.key for one in proxy.seen("put", "get")} == {"a/ b"}
    assert all(one.status in {200, 204} and one.ended for one in proxy.requests)
    assert proxy.in_flight() == 0
