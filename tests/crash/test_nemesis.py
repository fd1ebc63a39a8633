"""Mixed work under a nemesis: kill -9, SIGSTOP past the lease, SIGTERM, all at random (FAILURES rows 1, 5, 8, 29, 37)."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from contextlib import ExitStack
from pathlib import Path

from tests.crash.harness import Site
from tests.crash.nemesis import DRAIN, KILL, STOP, Nemesis
from tests.crash.submitter import SHARES
from tests.support import PATIENCE_S, eventually

OPERATIONS = 400
DEEDS = 10
SUCCEEDED_MIN = 300
"""About seven in a hundred are to fail or to be cancelled, and a few have an unknown outcome."""
LEASE_S = 1.0
PAUSE_S = 1.0
"""Between two deeds, on average."""


async def test_random_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("NEMESIS_SEED") or random.SystemRandom().randrange(10**6))
    logging.getLogger(__name__).warning("NEMESIS_SEED=%d", seed)  # shown with a failure
    async with Site(tmp_path) as site:
        workers = [site.worker("--lease", str(LEASE_S), "--grace", "0.5") for _ in range(3)]
        submitters = [site.submitter(name, "--seed", str(seed), "--rate", "60") for name in ("s1", "s2")]
        with ExitStack() as stack:
            for program in (*workers, *submitters):
                stack.enter_context(program)
            nemesis = Nemesis(
                seed, [*workers, *submitters], is_up=site.is_up, lease_s=LEASE_S, pause_s=PAUSE_S
            )
            haunting = asyncio.create_task(nemesis.haunt())
            await eventually(
                lambda: (
                    site.accepted >= OPERATIONS
                    and site.kinds_accepted == SHARES.keys()
                    and nemesis.deeds.total() >= DEEDS
                    and nemesis.deeds.keys() >= {KILL, STOP, DRAIN}
                ),
                "enough that was accepted, and enough that was done to those who did it",
                patience_s=PATIENCE_S * 3,
            )
            haunting.cancel()
            await asyncio.wait([haunting])
            assert haunting.cancelled(), haunting
        assert nemesis.dead_by_themselves == [], site.log
        await site.finish()
        assert site.violations() == []
        assert site.ended() >= SUCCEEDED_MIN, site.tally()
        assert site.tally().keys() == SHARES.keys(), "every kind of work was done"
