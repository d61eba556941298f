"""`workers = 2`: the same promises with several processes, whichever of them dies, and when."""

from __future__ import annotations

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import Crowd, digests_of_bucket, digests_of_folder, uploads_left
from tests.e2e.program import adds_up

PARTS = {"multipart_threshold": 16 * MIB, "part_size": 8 * MIB, "lanes": 2}


def test_two_processes_move_what_one_does(stage: Stage, crowd: Crowd) -> None:
    expected = crowd.below("small/", "large/")
    source = {"source": f"ours:{crowd.bucket}/", "exclude": ["huge/*"], **PARTS}
    program = stage.program(
        {"name": "s3", **source}, {"name": "disk", "target": "nas:copy/", **source}, workers=2
    )
    program.run("sync")
    for flow in program.status().values():
        assert adds_up(flow)
        assert flow["objects"]["verified"] == len(expected)
        assert sum(flow["proofs"].values()) == len(expected)
        assert set(flow["proofs"]) <= {"checksum", "etag", "md5"}
    assert digests_of_folder(stage.nas) == {f"copy/{key}": each for key, each in expected.items()}
    assert digests_of_bucket(stage.theirs, stage.target) == expected
    assert uploads_left(stage.theirs, stage.target) == []
