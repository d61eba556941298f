"""What an entry of the catalogue says, and the files of tests that it names."""

from __future__ import annotations

from typing import NamedTuple


class Failure(NamedTuple):
    """One way to fail: what goes wrong, which tests show what happens then, and what they do not."""

    id: str
    wrong: str
    tests: tuple[str, ...]
    reason: str = ""


NO_GCS = "Google Cloud Storage is not built yet"

# Below `tests/`.
BAD = "contract/test_s3_misbehaving.py::"
WRITTEN = "contract/test_s3_writing.py::"
PLACES = "contract/test_s3_places.py::"
S3 = "contract/test_failures_s3.py::"
COPY = "contract/test_s3_copies.py::"
COPIES = "contract/test_copies.py::"
REAL = "contract/test_s3_store.py::"
TARGET = "contract/test_target.py::"
ENGINE = "unit/test_failures_engine.py::"
FLOWS = "unit/test_engine_flows.py::"
FAULTS = "unit/test_engine_faults.py::"
PARTS = "unit/test_engine_multipart.py::"
PLAN = "unit/test_plan.py::"
VERIFY = "unit/test_verify.py::"
HEADERS = "unit/test_s3_headers.py::"
LISTING = "unit/test_s3_listing.py::"
KEYS = "unit/test_s3_credentials.py::"
SURVEY = "unit/test_survey.py::"
STALL = "unit/test_wire_stall.py::"
THAW = "unit/test_thawing.py::"
SERVER = "contract/test_mysql_opening.py::"
COMMITS = "contract/test_mysql_transactions.py::"
POOL = "unit/test_wire_pool.py::"
SENDING = "unit/test_wire_sending.py::"
PATHS = "unit/test_local_paths.py::"
DISK = "unit/test_local_faults.py::"
SETTLE = "unit/test_local_settle.py::"
MOVES = "unit/test_moves.py::"
REMOVING = "contract/test_removing.py::"
UPLOADS = "unit/test_local_uploads.py::"
DOOR = "unit/test_web_door.py::"
SECRECY = "unit/test_secrecy.py::"
INTERRUPTED = "unit/test_interrupted.py::"
WIRE = "unit/test_wire_hostile.py::"
STORM = "torture/test_storm.py::"
KILL = "torture/test_kill.py::"
POWER = "torture/test_power.py::"
NAMES = "torture/test_names.py::"
NTH = "torture/test_nth.py::"
SIM = "torture/sim/test_sim.py::"
MODEL = "torture/test_model.py::"
HOSTILE = "torture/test_hostile.py::"
CANARIES = "torture/test_secrets.py::"
