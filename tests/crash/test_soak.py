"""A soak of some seconds: everything is accounted for, and nothing grows without bound (FAILURES row 34).

Half an hour of the same is `make soak`; only that can show what is flat.
"""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

from tests.crash.samples import LOG_BYTES_MAX, MIB
from tests.crash.soak import soak

SECONDS = 15.0
SUCCEEDED_MIN = 30
"""Of some hundreds on a machine that has nothing else to do; a third where it has much."""


async def test_a_short_soak_is_sound_and_bounded(tmp_path: Path) -> None:
    seed = int(os.environ.get("NEMESIS_SEED") or random.SystemRandom().randrange(10**6))
    logging.getLogger(__name__).warning("NEMESIS_SEED=%d", seed)  # shown with a failure
    result = await soak(tmp_path, seconds=SECONDS, seed=seed, pause_s=2.0, look_every_s=1.0)
    assert result.violations == []
    assert result.dead_by_themselves == []
    assert sum(result.deeds.values()) >= 3, result.deeds
    assert result.succeeded >= SUCCEEDED_MIN, result.tally
    for sample in result.samples:
        assert sample["log_bytes"] <= LOG_BYTES_MAX
        assert sample["other_bytes"] <= MIB
        assert sample["store_bytes"] <= 64 * MIB
        assert sample["steady_rss_bytes"] <= 256 * MIB
        assert sample["steady_descriptors"] <= 100
