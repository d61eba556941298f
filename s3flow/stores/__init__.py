"""Where objects come from and go to: adapters of the engine's ports."""

from __future__ import annotations
