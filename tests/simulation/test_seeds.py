"""Five hundred seeds, each played in two processes at once that hash differently: same history, no law broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.simulation import rare
from tests.simulation.judge import Verdict, judge_twice

ROOT = Path(__file__).parents[2]
SEEDS = 500
AT_ONCE = 50
KEPT = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "seeds.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]

pytestmark = pytest.mark.timeout(900)


@cache
def played(first: int) -> list[tuple[Verdict, Verdict]]:
    """Seeds from that on, as two processes played them."""
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.simulation.campaign",
                "--lines",
                f"--first={first}",
                f"--seeds={AT_ONCE}",
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
        )
        for hash_seed in ("1", "2")
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    one, other = ([Verdict.from_json(json.loads(line)) for line in output.splitlines()] for output in outputs)
    return list(zip(one, other, strict=True))


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_no_law_is_broken_and_each_seed_is_one_history(first: int) -> None:
    broken = {one.seed: one.violations[:3] for one, _ in played(first) if one.violations}
    assert not broken, f"make campaign SEED={next(iter(broken))} shows it again"
    assert [one.digest for one, _ in played(first)] == [other.digest for _, other in played(first)]


def test_what_was_found_once_stays_mended() -> None:
    assert KEPT
    assert not {seed: verdict.violations for seed in KEPT if (verdict := judge_twice(seed)).violations}


def test_every_rare_path_was_reached() -> None:
    reached: Counter[str] = Counter()
    for first in range(0, SEEDS, AT_ONCE):
        for one, _ in played(first):
            reached.update(one.reached)
    assert not [name for name in rare.names() if not reached[name]]


def test_enough_was_done() -> None:
    """A simulation in which little happens finds little."""
    verdicts = [one for first in range(0, SEEDS, AT_ONCE) for one, _ in played(first)]
    assert len(verdicts) == SEEDS
    assert sum(verdict.runs for verdict in verdicts) > 20 * SEEDS
    assert sum(sum(verdict.faults.values()) for verdict in verdicts) > 20 * SEEDS
    assert sum(verdict.runs > 0 for verdict in verdicts) > 0.9 * SEEDS
