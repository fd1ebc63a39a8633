"""The only writer of outcomes: gathers them, writes them under their fences, tells who waits.

Outcomes of one event loop are written in as few settlements as the store's speed allows: one is under way, the
next gathers meanwhile. An outcome that the store cannot take now (its disk is full, it is locked) is kept and
tried again: an attempt that is done is not done again for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from lineshaft.core import bounds
from lineshaft.core.clock import Clock
from lineshaft.core.errors import LineshaftError
from lineshaft.core.policies import class_name
from lineshaft.core.spawn import Background
from lineshaft.core.states import FINAL, FailureClass, State
from lineshaft.store.port import Claims
from lineshaft.store.values import Failure, Outcome

_log = logging.getLogger("lineshaft")
PAUSE_S_MAX = 5.0
REFUSALS_MAX = 5
"""Times that one outcome alone is refused, over some seconds, before it is taken for unwritable."""


class Settler:
    """Settles for one worker."""

    def __init__(
        self,
        store: Claims,
        clock: Clock,
        settled: Callable[[Sequence[Outcome], Sequence[bool]], None],
    ) -> None:
        """`settled` hears of every outcome once it is durable, and whether its fence still held."""
        self._store = store
        self._clock = clock
        self._settled = settled
        self._gathered: list[Outcome] = []
        self._background = Background()
        self._writing = False
        self._finished = False

    def put(self, outcome: Outcome) -> None:
        """Have an outcome written with the next settlement."""
        if self._finished:
            # What the attempt held has gone back to the queue without it.
            return
        self._gathered.append(outcome)
        if not self._writing:
            self._writing = True
            self._background.spawn(self._write(), "lineshaft-settle")

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes that a transaction of user code has committed together with what it wrote."""
        if outcomes:
            self._settled(outcomes, [True] * len(outcomes))

    async def finish(self, at_most_s: float) -> None:
        """Wait until everything gathered is written; what is not by then, or comes later, is too late."""
        try:
            async with asyncio.timeout(at_most_s):
                await self._background.wait()
        except TimeoutError:
            _log.error("Outcomes could not be written: others execute their runs again.")
        finally:
            self._finished = True
            await self._background.cancel()

    async def _write(self) -> None:
        try:
            while self._gathered:
                # No more at a time than a claim takes: others that want to write wait for one such turn.
                outcomes = self._gathered[: bounds.CLAIM_ROWS_MAX]
                del self._gathered[: bounds.CLAIM_ROWS_MAX]
                await self._settle(outcomes)
        finally:
            self._writing = False

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes, however long that takes: a run that is done stays ours until the store knows it."""
        pause_s = 0.05
        refusals = 0
        while True:
            try:
                kept = await self._store.settle(outcomes)
            except Exception as error:
                _log.warning("%d outcomes wait for the store: %s", len(outcomes), error)
                if not (isinstance(error, LineshaftError) and error.retryable):
                    refusals += 1
                    if len(outcomes) > 1:
                        await self._settle_halves(outcomes)
                        return
                    if refusals > REFUSALS_MAX and await self._settle_as_failed(outcomes[0], error):
                        return
            else:
                self._settled(outcomes, kept)
                return
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _settle_halves(self, outcomes: Sequence[Outcome]) -> None:
        """Perhaps one outcome is refused for what it holds: find it, so that the others are written."""
        middle = len(outcomes) // 2
        await self._settle(outcomes[:middle])
        await self._settle(outcomes[middle:])

    async def _settle_as_failed(self, outcome: Outcome, error: Exception) -> bool:
        """Write a plain failure where the outcome itself is refused again and again; whether that was taken."""
        failure = Failure(
            FailureClass.RESULT, class_name(type(error)), "The store refused what the attempt ended with."
        )
        plain = outcome._replace(state=State.FAILED, result=None, failure=failure)
        try:
            kept = await self._store.settle([plain])
        except Exception as second:
            _log.warning("Nor can the store take its failure: %s", second)
            return False
        _log.error("The outcome of run %s cannot be written.", outcome.run_id, exc_info=error)
        self._settled([plain], kept)
        return True


def ended(outcomes: Sequence[Outcome], kept: Sequence[bool]) -> Sequence[Outcome]:
    """Those of the outcomes that ended their runs."""
    return [outcome for outcome, held in zip(outcomes, kept, strict=True) if held and outcome.state in FINAL]
