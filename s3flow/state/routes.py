"""What is known of the ways that a flow's objects go: it outlives the process that found it out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from s3flow.model import Verdict
from s3flow.state import sql
from s3flow.state.flows import endpoints_of, find_flow, need_flow
from s3flow.state.steps import Execute, Fetch, Steps, first


def open_routes(name: str, endpoints: str) -> Steps[list[Verdict]]:
    """Give what is known of the flow's ways; nothing if it was found out with other *endpoints*."""
    flow_id = yield from need_flow(name)
    known = first((yield Fetch(sql.GET_META, (endpoints_of(flow_id),))))
    if known is None or known[0] != endpoints:
        yield Execute(sql.DROP_VERDICTS, (flow_id,))
        yield Execute(sql.SET_META, (endpoints_of(flow_id), endpoints))
        return []
    return (yield from verdicts(name))


def verdicts(name: str) -> Steps[list[Verdict]]:
    """Give what is known of the flow's ways, by bucket."""
    flow_id = yield from find_flow(name)
    rows = yield Fetch(sql.VERDICTS, (flow_id,))
    return [Verdict(name, *row) for row in rows]


def keep_verdicts(found: Sequence[Verdict]) -> Steps[None]:
    """Keep verdicts in the place of earlier ones. A flow that was forgotten meanwhile keeps none."""
    for name, group in groupby(found, lambda verdict: verdict.flow):
        flow_id = yield from find_flow(name)
        if flow_id is None:
            continue
        for verdict in group:
            yield Execute(sql.DROP_VERDICT, (flow_id, verdict.bucket, verdict.what))
            yield Execute(sql.ADD_VERDICT, (flow_id, *verdict[1:]))
