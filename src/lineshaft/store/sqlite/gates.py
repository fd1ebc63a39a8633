"""Limits, as one claim meets them.

Concurrency: a worker leases slots of a limit in a row of its own, one row a limit and worker. What is free is
the limit less the slots of all live workers, so slots come back with the lease of a worker that died, and no
counter can leak. Rates: one row a key holds the theoretical arrival time of the next start (GCRA), in whole
nanoseconds, since floating-point numbers lose microseconds on their way through SQLite's JSON.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from lineshaft.store.sqlite.packing import fetch, pack
from lineshaft.store.values import Lane, LaneShare, Pace, Slots

_HELD = """
SELECT json_group_array(json_array(key, held)) FROM (
    SELECT slot.key AS key, sum(slot.held) AS held
    FROM json_each(?1) AS wanted
    CROSS JOIN lineshaft_slot AS slot ON slot.key = wanted.value
    CROSS JOIN lineshaft_worker AS worker ON worker.id = slot.worker
    GROUP BY slot.key)
"""

_LEASE_SLOTS = """
INSERT INTO lineshaft_slot (key, worker, held)
SELECT value ->> 0, ?2, value ->> 1 FROM json_each(?1) WHERE true
ON CONFLICT (key, worker) DO UPDATE SET held = held + excluded.held
"""

_ARRIVALS = """
SELECT json_group_array(json_array(key, arrival_ns)) FROM lineshaft_pace
WHERE key IN (SELECT value FROM json_each(?1))
"""

_PUSH_ARRIVALS = """
INSERT INTO lineshaft_pace (key, arrival_ns) SELECT value ->> 0, value ->> 1 FROM json_each(?1) WHERE true
ON CONFLICT (key) DO UPDATE SET arrival_ns = excluded.arrival_ns
"""


class Gates:
    """What the gates of some lanes let through now, and what was taken of it."""

    def __init__(
        self, connection: sqlite3.Connection, shares: Sequence[LaneShare], worker: int, now_us: int
    ) -> None:
        self._connection = connection
        self._shares = shares
        self._worker = worker
        self._now_us = now_us
        self._slots = {gate.key: gate for share in shares for gate in share.gates if isinstance(gate, Slots)}
        self._paces = {gate.key: gate for share in shares for gate in share.gates if isinstance(gate, Pace)}
        self._room: dict[str, int] = {}
        self._cut: list[LaneShare] = []
        self._arrival_ns: dict[str, int] = {}
        self._set_back: set[str] = set()
        """Rates whose arrival was written by a clock that has been set back since."""
        self.next_open_us: int | None = None
        self.left_over = False
        """Whether a lane got less than it asked for, of room that others then did not use."""
        if self._slots:
            self._read_slots()
        if self._paces:
            self._read_paces()

    def by_rows(self) -> dict[int, list[LaneShare]]:
        """Lanes by the number of runs that each may give; closed lanes are left out.

        Lanes behind one gate get even parts of its room, since how much each has is not known here.
        """
        groups: dict[int, list[LaneShare]] = {}
        room = dict(self._room)
        waiting = Counter(gate.key for share in self._shares for gate in share.gates)
        for share in self._shares:
            parts = (-(-room[gate.key] // waiting[gate.key]) for gate in share.gates)
            rows = min([share.rows_max, *parts])
            for gate in share.gates:
                waiting[gate.key] -= 1
                room[gate.key] -= max(rows, 0)
            if rows > 0:
                groups.setdefault(rows, []).append(share)
            if rows < share.rows_max:
                self._cut.append(share)
        return groups

    def shut(self) -> set[Lane]:
        """Lanes that give nothing now."""
        return {
            share.lane for share in self._shares if any(self._room[gate.key] <= 0 for gate in share.gates)
        }

    def pay(self, taken_by_lane: dict[int, int]) -> None:
        """Lease the slots and push the arrivals for what was really taken."""
        taken: dict[str, int] = {}
        for share in self._shares:
            count = taken_by_lane.get(share.lane.id, 0)
            for gate in share.gates:
                taken[gate.key] = taken.get(gate.key, 0) + count
        self.left_over = any(
            all(self._room[gate.key] > taken[gate.key] for gate in share.gates) for share in self._cut
        )
        leased = [(key, taken[key]) for key in self._slots if taken[key]]
        if leased:
            self._connection.execute(_LEASE_SLOTS, (pack(leased), self._worker))
        pushed = []
        for key, pace in self._paces.items():
            arrival_ns = self._arrival_ns[key] + taken[key] * pace.period_us * 1_000 // pace.count
            if taken[key] or key in self._set_back:
                pushed.append((key, arrival_ns))
            open_us = open_again_us(arrival_ns, pace)
            if open_us > self._now_us:
                self.next_open_us = min(self.next_open_us or open_us, open_us)
        if pushed:
            self._connection.execute(_PUSH_ARRIVALS, (pack(pushed),))

    def _read_slots(self) -> None:
        held = dict(fetch(self._connection, _HELD, (pack(list(self._slots)),)))
        for key, slots in self._slots.items():
            self._room[key] = slots.count - held.get(key, 0)

    def _read_paces(self) -> None:
        arrivals = dict(fetch(self._connection, _ARRIVALS, (pack(list(self._paces)),)))
        now_ns = self._now_us * 1_000
        for key, pace in self._paces.items():
            period_ns = pace.period_us * 1_000
            arrival_ns = max(arrivals.get(key, 0), now_ns)
            if arrival_ns > now_ns + period_ns:
                # No start pushes it further than that: the wall clock was set back. The rate would stay shut for
                # as long as it went back; now it is shut for a period at most.
                arrival_ns = now_ns + period_ns
                self._set_back.add(key)
            self._arrival_ns[key] = arrival_ns
            self._room[key] = (now_ns + period_ns - arrival_ns) * pace.count // period_ns


def open_again_us(arrival_ns: int, pace: Pace) -> int:
    """When a rate lets the next start through."""
    period_ns = pace.period_us * 1_000
    return -(-(arrival_ns - period_ns + -(-period_ns // pace.count)) // 1_000)
