"""The only owner of chance: run ids, and the randomness of jitter.

Run ids are UUIDs of version 7 (RFC 9562, section 5.7): they sort by the time of submission, so that new rows
land side by side in the store.
"""

from __future__ import annotations

import os
import random
import threading
from typing import Protocol


class Chance(Protocol):
    """Where the engine gets its ids and its randomness from."""

    def run_ids(self, now_us: int, count: int) -> list[str]:
        """`count` new run ids, ascending."""

    def fraction(self) -> float:
        """A number in [0, 1)."""


class SystemChance:
    """Ids and fractions from the operating system's entropy. Safe to use from several threads."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(int.from_bytes(os.urandom(16), "big") if seed is None else seed)
        self._lock = threading.Lock()
        self._last = 0

    def run_ids(self, now_us: int, count: int) -> list[str]:
        # Method 1 of section 6.2: 48 bits of milliseconds, then 74 bits that count up from a random start
        # within one millisecond; steps are random too, so that ids cannot be guessed from their neighbours.
        ids = []
        with self._lock:
            random_bits = self._random.getrandbits
            high, low = divmod(max((now_us // 1_000 << 74) | random_bits(73), self._last + 1), _LOW_COUNT)
            head = _head(high)
            for _ in range(count):
                low += 1 + random_bits(40)
                if low >= _LOW_COUNT:
                    high, low = high + 1, low - _LOW_COUNT
                    head = _head(high)
                ids.append(_text(head, low))
            self._last = high * _LOW_COUNT + low
        return ids

    def fraction(self) -> float:
        return self._random.random()


_LOW_COUNT = 1 << 62
_VARIANT = 1 << 63
# An id holds 122 bits: 60 high ones around its version, the same for thousands of neighbours, and 62 low ones
# behind its variant.


def _head(high: int) -> str:
    digits = f"{high:015x}"
    return f"{digits[:8]}-{digits[8:12]}-7{digits[12:]}-"


def _text(head: str, low: int) -> str:
    digits = "%016x" % (_VARIANT | low)
    return f"{head}{digits[:4]}-{digits[4:]}"


def submitted_us(run_id: str) -> int:
    """When a run was submitted, to the millisecond, read from its id; in microseconds since 1970."""
    return int(run_id[:8] + run_id[9:13], 16) * 1_000


def earliest_id(now_us: int) -> str:
    """The smallest id that a run submitted at that time can have."""
    return _text(_head(now_us // 1_000 << 12), 0)
