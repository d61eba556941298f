"""The configuration: a TOML file and the environment become checked, frozen settings."""

from __future__ import annotations

from s3flow.config.load import load
from s3flow.config.settings import (
    DaemonSettings,
    FlowSettings,
    LocalEndpoint,
    S3Endpoint,
    Settings,
)

__all__ = [
    "DaemonSettings",
    "FlowSettings",
    "LocalEndpoint",
    "S3Endpoint",
    "Settings",
    "load",
]
