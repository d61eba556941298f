"""The table of `s3flow plan`: objects and bytes by what would become of them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from s3flow.observe.text import size

Counted = Mapping[
    tuple[str, str], tuple[int, int]
]  # objects and bytes by (verdict, by what or why)


def plan_table(plans: Mapping[str, Counted]) -> Table:
    """Show what each flow would do, the transfers first."""
    table = Table(title="what the next scan would do", title_justify="left")
    for name in ("flow", "verdict", "method, proof or reason"):
        table.add_column(name, overflow="fold")
    for name in ("objects", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    order = ("transfer", "adopt", "unchanged", "skip", "refuse")
    for flow, counted in plans.items():
        for verdict, why in sorted(counted, key=lambda each: (order.index(each[0]), each[1])):
            objects, volume = counted[verdict, why]
            table.add_row(flow, verdict, why, f"{objects:,}", size(volume))
        if not counted:
            table.add_row(flow, "nothing", "the source lists no objects", "0", size(0))
        table.add_section()
    return table
