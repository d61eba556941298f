"""The core: decides and orchestrates; standard library only, knows ports and never adapters."""

from __future__ import annotations
