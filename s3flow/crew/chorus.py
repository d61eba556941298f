"""Makes one voice of what several processes say of the same flow or endpoint."""

from __future__ import annotations

from collections import defaultdict

from s3flow.events import Emit, Event, FlowBlocked, FlowUnblocked, ThrottleChanged


class Chorus:
    """A flow is blocked while any process finds it so; an endpoint's pace is the sum of theirs.

    *usual*: the places of a process that nothing has throttled.
    """

    def __init__(self, seats: int, usual: int, emit: Emit) -> None:
        self._seats = seats
        self._usual = usual
        self._emit = emit
        self._blocked: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self._paces: defaultdict[str, dict[int, int]] = defaultdict(dict)

    def say(self, seat: int, event: Event) -> None:
        """Pass an event of process number *seat* on, as far as it says something new of all."""
        if isinstance(event, FlowBlocked):
            those = self._blocked[event.flow, event.reason]
            those.add(seat)
            if len(those) == 1:
                self._emit(event)
        elif isinstance(event, FlowUnblocked):
            self._lift(seat, event)
        elif isinstance(event, ThrottleChanged):
            self._paces[event.endpoint][seat] = event.concurrency
            self._emit(event._replace(concurrency=self._pace_of(event.endpoint)))
        else:
            self._emit(event)

    def silence(self, seat: int) -> None:
        """Take back what process number *seat* said: it is dead, the next one finds out anew."""
        for (flow, reason), those in self._blocked.items():
            if seat in those:
                self._lift(seat, FlowUnblocked(flow, reason))
        for endpoint, paces in self._paces.items():
            if paces.pop(seat, None) is not None:
                self._emit(ThrottleChanged(endpoint, self._pace_of(endpoint), throttled=False))

    def _lift(self, seat: int, event: FlowUnblocked) -> None:
        those = self._blocked[event.flow, event.reason]
        if seat in those:
            those.remove(seat)
            if not those:
                self._emit(event)

    def _pace_of(self, endpoint: str) -> int:
        paces = self._paces[endpoint]
        return sum(paces.values()) + self._usual * (self._seats - len(paces))
