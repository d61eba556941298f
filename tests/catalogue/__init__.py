"""What goes wrong with stores, networks, keys and disks in the field, and the tests that show our answer.

The tests are named by their place below `tests/`. Where there is none, or where one does not show
all of it, *reason* says why; `test_catalogue.py` checks that all of this is so.
"""

from __future__ import annotations

from tests.catalogue.failure import Failure
from tests.catalogue.machines import DATABASE, PROCESS, SECURITY, STORING
from tests.catalogue.objects import ASKING, FROZEN, MOVING, NAMING
from tests.catalogue.transfers import CHECKING, READING, WRITING

__all__ = ["FAILURES", "Failure"]

FAILURES = (
    *(*READING, *WRITING, *CHECKING, *ASKING, *NAMING, *MOVING, *STORING, *FROZEN, *DATABASE),
    *(*PROCESS, *SECURITY),
)
