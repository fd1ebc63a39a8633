"""The simulation bites: an engine with a fault planted in it breaks a law, within the seeds of every test run."""

from __future__ import annotations

import pytest

from tests.simulation.judge import judge
from tests.simulation.planted import FAULTS, planted

SEEDS = 500


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name: str) -> None:
    for seed in range(SEEDS):
        with planted(name):
            if judge(seed).violations:
                break
    else:
        raise AssertionError(f"{SEEDS} seeds did not notice: {name}")
    # It was the fault that was found, not something that this seed breaks anyway.
    assert not judge(seed).violations
