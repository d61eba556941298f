"""Metrics, logs, progress and displays: they subscribe to events, the engine knows none of them."""

from __future__ import annotations
