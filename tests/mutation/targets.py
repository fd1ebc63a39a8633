"""Which modules faults are planted in, and which tests are to find them: the fast ones that are about that module."""

from __future__ import annotations

CODEC = (
    "tests/unit/core/test_payloads.py",
    "tests/unit/core/test_codec.py",
    "tests/unit/core/test_comparison.py",
    "tests/property/test_codec.py",
)
POLICIES = ("tests/unit/core/test_policies.py", "tests/property/test_policies.py")
ENGINE = (
    "tests/integration/test_engine_runs.py",
    "tests/integration/test_engine_mends.py",
    "tests/integration/test_engine_mends_ends.py",
)
CLAIMS = (
    "tests/conformance/test_sqlite.py",
    "tests/integration/test_sqlite_files.py",
    "-k",
    "Claims or Leases or Reads or payloads_beyond",
)

TARGETS: dict[str, tuple[str, ...]] = {
    "core/clock.py": ("tests/unit/core/test_system_clock.py",),
    "core/codec/canonical.py": CODEC,
    "core/codec/codecs.py": CODEC,
    "core/codec/comparison.py": CODEC,
    "core/codec/hints.py": CODEC,
    "core/codec/wording.py": CODEC,
    "core/duration.py": ("tests/unit/core/test_duration.py",),
    "core/errors.py": ("tests/unit/core/test_errors.py",),
    "core/host.py": ("tests/unit/core/test_host.py",),
    "core/ident.py": ("tests/unit/core/test_ident.py",),
    "core/policies.py": POLICIES,
    "core/spawn.py": ("tests/unit/core/test_spawn.py",),
    "core/states.py": ("tests/unit/core/test_states.py",),
    "core/threads.py": ("tests/unit/engine/test_threads.py",),
    "engine/fairness.py": ("tests/unit/engine",),
    "engine/fetch.py": (
        "tests/unit/engine",
        "tests/integration/test_fetch.py",
        "tests/integration/test_engine_limits.py",
        "tests/integration/test_engine_mends.py",
    ),
    "engine/outcomes.py": ("tests/unit/engine", *ENGINE),
    "engine/settle.py": ("tests/unit/engine", *ENGINE),
    "store/sqlite/gates.py": CLAIMS,
    "store/sqlite/settlement.py": CLAIMS,
}
"""Of `core/`, `bounds.py` is left out: its numbers are choices, and tests take them from there."""

EQUIVALENT: dict[tuple[str, str], str] = {
    ("core/duration.py", "if (result >= at_most_s):"): "what is just at the bound is not refused at all",
    (
        "core/policies.py",
        "ceiling_s = min(self.maximum_s, self.initial_s * self.factor ** min(attempt - 1, (65)))",
    ): "any exponent will do that is large and does not overflow",
    (
        "core/codec/wording.py",
        'text = text[: EXTRACT_CHARS_MAX + (2)].encode("utf-8", "backslashreplace").decode("utf-8")',
    ): "it is cut again below; this keeps what is encoded from being huge",
    (
        "core/codec/wording.py",
        "problems = error.errors(include_url=False, include_context=(True))",
    ): "what that adds is not read",
    (
        "core/codec/canonical.py",
        "items = zip(value.values(), document.items(), strict=(False))",
    ): "both are known to be of one length",
    (
        "core/codec/codecs.py",
        "if (len(payload) >= 2 * PAYLOAD_DEPTH_MAX) and is_deeper_than(payload, PAYLOAD_DEPTH_MAX):",
    ): "a payload of just that length cannot be deeper",
    (
        "core/codec/canonical.py",
        "items = [with_sets_in_order(item, inner) for item, inner in zip(value, document, strict=(False))]",
    ): "both are known to be of one length",
    (
        "core/codec/comparison.py",
        "if sent.replace(tzinfo=None, fold=(1)) != arrived.replace(tzinfo=None, fold=0):",
    ): "times without a zone are compared without their fold",
    (
        "core/codec/comparison.py",
        "if sent.replace(tzinfo=None, fold=0) != arrived.replace(tzinfo=None, fold=(1)):",
    ): "likewise",
    (
        "core/codec/canonical.py",
        "pairs = zip(value.items(), document[PAIRS], strict=(False))",
    ): "both are known to be of one length",
    (
        "core/codec/wording.py",
        "problems = error.errors(include_url=(True), include_context=False)",
    ): "what that adds is not read",
    (
        "core/codec/hints.py",
        "made: Any = origin[parts if (len(parts) >= 1) else parts[0]]",
    ): "list[(int,)] is list[int]",
    (
        "core/ident.py",
        "high, low = divmod(max((now_us // 1_000 << 74) | random_bits(73), self._last + (2)), _LOW_COUNT)",
    ): "steps between ids are by chance anyhow",
    (
        "core/ident.py",
        "high, low = divmod(max((now_us // 1_000 << 74) | random_bits((74)), self._last + 1), _LOW_COUNT)",
    ): "the bit that is left free makes ids that run over into the next millisecond rarer than anybody could see",
    (
        "store/sqlite/gates.py",
        "arrival_ns = max(arrivals.get(key, (1)), now_ns)",
    ): "it is never that early",
    ("engine/fetch.py", "self._turn -= 1"): "turns go round the other way",
    (
        "core/codec/comparison.py",
        "break → continue",
    ): "asking for all keys again at the next of them changes nothing",
    (
        "core/errors.py",
        "super().__init__(message) → pass",
    ): "exceptions get their arguments when they are made, before they are initialised",
    (
        "core/threads.py",
        "def shutdown(self, wait: bool = False, *, cancel_futures: bool = (True)) -> None:"
        "  # noqa: ARG002 - nothing queues",
    ): "no call is ever queued, so there is none to be cancelled",
}
"""Faults that no test can tell, or should tell, from the line as it is, and why: the line with the fault in it, or both
lines where that one alone may stand for several.
"""
