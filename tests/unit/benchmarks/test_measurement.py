from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import machine
from benchmarks.measurement import Measurement, Results, Summary


def drain(subject: str, *values: float | None) -> Measurement:
    return Measurement("drain", subject, "1 process", "rate", "runs/s", list(values))


def test_a_summary_passes_over_rounds_that_found_nothing() -> None:
    assert Summary.of([3.0, None, 1.0, 2.0]) == Summary(median=2.0, low=1.0, high=3.0, count=3)
    assert Summary.of([None]) is None


def test_ratios_are_taken_within_rounds() -> None:
    ours, theirs = drain("a", 100.0, 10.0, 50.0), drain("b", 10.0, 1.0, None)
    assert ours.ratio_to(theirs) == Summary(median=10.0, low=10.0, high=10.0, count=2)


def test_a_ratio_to_nothing_is_none() -> None:
    assert drain("a", 1.0).ratio_to(drain("b", 0.0)) is None


def test_rounds_are_put_beside_each_other() -> None:
    results = Results(machine.now(), {})
    for value in (1.0, None, 3.0):
        results.add(Measurement("drain", "a", "c", "rate", "runs/s", [value], calibration_ms=[10.0]))
    [found] = results
    assert found.values == [1.0, None, 3.0]
    assert len(found.calibration_ms) == 3


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.json"
    results = Results(machine.now(), machine.describe(tmp_path), [drain("a", 1.5, None), drain("b", 2.0)])
    results.write(path)
    assert Results.read(path) == results
    assert sum('"bench"' in line for line in path.read_text().splitlines()) == 2


def test_a_document_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"measurements": [{"bench": "drain", "rate": 3}]}')
    with pytest.raises(TypeError, match="rate"):
        Results.read(path)
