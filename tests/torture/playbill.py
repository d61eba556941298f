"""All scenes by their names: where a new module of scenes is joined in."""

from __future__ import annotations

from tests.torture import (
    scenes,
    scenes_crowded,
    scenes_money,
    scenes_proofs,
    scenes_twice,
    scenes_uploads,
)

# Those of which only the awaits are tried.
ENDLESS = {
    **scenes.ENDLESS,
    **scenes_crowded.ENDLESS,
    **scenes_money.ENDLESS,
    **scenes_proofs.ENDLESS,
    **scenes_twice.ENDLESS,
    **scenes_uploads.ENDLESS,
}
EVERY = {**scenes.SCENES, **ENDLESS}
