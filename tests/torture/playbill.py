"""All scenes by their names: where a new module of scenes is joined in."""

from __future__ import annotations

from tests.torture import scenes

ENDLESS = {**scenes.ENDLESS}  # those of which only the awaits are tried
EVERY = {**scenes.SCENES, **ENDLESS}
