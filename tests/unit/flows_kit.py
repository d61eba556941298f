"""Flows in a lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.lab import Lab

BOUNDARIES = [0, 1, 999, 1000, 1001, 1999, 2000, 2001, 20_500]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)
