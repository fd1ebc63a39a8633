"""What is planted, and what is left alone."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.__main__ import ROOT, Score, planned, report
from tests.mutation.mutants import mutants
from tests.mutation.targets import EQUIVALENT, TARGETS

SOURCE = ROOT / "src" / "lineshaft"


def planted(source: str) -> set[str]:
    """The lines that faults turn the one line of a source into."""
    text = source.encode()
    return {mutant.applied_to(text).decode() for mutant in mutants(text)}


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("x = a < b", {"x = (a <= b)", "x = (a >= b)"}),
        ("x = a <= b < c", {"x = (a < b < c)", "x = (a > b < c)", "x = (a <= b <= c)", "x = (a <= b >= c)"}),
        ("x = a is not None", {"x = (a is None)"}),
        ("x = a and b", {"x = (a or b)"}),
        ("x = not a", {"x = (a)"}),
        ("x = ä + 1", {"x = (ä - 1)", "x = ä + (2)"}),
        ("x = True", {"x = (False)"}),
        ("x -= y", {"pass", "x += y"}),
        ("x.y = z", {"pass"}),
        ("f(x)", {"pass"}),
        ("x = y if f() else z", {"x = y if (not (f())) else z"}),
        ("def f():\n    return x", {"def f():\n    return None"}),
        ("def f():\n    return False", {"def f():\n    return (True)"}),
        ("for x in y: continue", {"for x in y: break"}),
        ("raise E(x)", {"pass"}),
        ("Q = 'SELECT a FROM b WHERE c < d'", {"Q = 'SELECT a FROM b WHERE c <= d'"}),
        ("Q = f'UPDATE a SET b = 1 WHERE {c} AND d = 2'",
         {
             "Q = f'UPDATE a SET b = 2 WHERE {c} AND d = 2'",
             "Q = f'UPDATE a SET b = 1 WHERE {c} OR d = 2'",
             "Q = f'UPDATE a SET b = 1 WHERE {c} AND d <> 2'",
         }),
    ],
)  # fmt: skip
def test_what_is_planted(source: str, faults: set[str]) -> None:
    assert planted(source) == faults


@pytest.mark.parametrize(
    "source",
    [
        '"""All that < is said."""',
        "x: int | None",
        "def f(x: Literal[1] | None) -> A | B: ...",
        "@dataclass(frozen=True)\nclass C: ...",
        "_log.warning('%d left', 1)",
        "assert x > 1",
        "from a import b",
        "x = 'a < b'",
        "return_ = None",
    ],
)
def test_what_says_nothing_is_left_alone(source: str) -> None:
    assert planted(source) == set()


@pytest.mark.parametrize("module", TARGETS)
def test_a_fault_is_another_text_that_is_still_a_program(module: str) -> None:
    source = (SOURCE / module).read_bytes()
    for mutant in mutants(source):
        faulty = mutant.applied_to(source)
        assert faulty != source
        ast.parse(faulty)


def test_the_same_seed_gives_the_same_sample() -> None:
    first, second, other = (planned(list(TARGETS), seed) for seed in (1, 1, 2))
    assert first == second != other
    assert sorted(text for _, _, text in first) == sorted(text for _, _, text in other)


def test_the_core_and_the_limits_are_planted_in() -> None:
    core = {
        str(path.relative_to(SOURCE)) for path in SOURCE.glob("core/**/*.py") if mutants(path.read_bytes())
    }
    assert core - TARGETS.keys() == {"core/bounds.py"}
    assert all(
        (ROOT / part).exists() for tests in TARGETS.values() for part in tests if part.startswith("tests/")
    )


def test_what_no_test_can_tell_is_still_there() -> None:
    possible = set()
    for module in TARGETS:
        source = (SOURCE / module).read_bytes()
        for before, after in (mutant.lines(source) for mutant in mutants(source)):
            possible |= {(module, after), (module, f"{before} → {after}")}
    assert EQUIVALENT.keys() <= possible
    assert all(EQUIVALENT.values())


def test_what_was_found_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    report({"core/a.py": Score(5, 4, ["one"]), "core/b.py": Score(3, 0)}, seed=7)
    out = capsys.readouterr().out
    assert "seed 7" in out
    assert "core/a.py                          3 of     4 found   75.0 %   (5 possible)" in out
    assert "core/b.py                          0 of     0 found" in out
    assert "in all                             3 of     4 found   75.0 %   (8 possible)" in out
