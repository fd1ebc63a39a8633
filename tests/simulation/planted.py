"""Faults planted into the engine, by a test and for it alone: a simulation that does not find them is worth nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lineshaft.store.sqlite import leases, settlement, submissions
from lineshaft.store.sqlite.transaction import LentTransaction
from lineshaft.store.sqlite.writer import Writer
from tests.simulation import tasks

Plant = Callable[[], Any]

_HOLDER = r"AND run\.fence = .*? AND run\.worker = .*?\s+AND run\.state = 'running'"
_KEY_HELD = "ON held.task = wanted.task"
_SUSPECT = r"SET state = 'ready', worker = NULL, suspect"


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have the engine carry this fault while the block lasts."""
    with FAULTS[name]():
        yield


@contextmanager
def _statement(module: Any, right: str, wrong: str) -> Iterator[None]:
    """Other text in the statements of a module, wherever a pattern finds the right one."""
    texts = {key: text for key, text in vars(module).items() if isinstance(text, str)}
    before = {key: text for key, text in texts.items() if re.search(right, text)}
    assert before, f"{module.__name__} no longer says {right!r}"
    for key, text in before.items():
        setattr(module, key, re.sub(right, wrong, text))
    try:
        yield
    finally:
        for key, text in before.items():
            setattr(module, key, text)


@contextmanager
def _replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _no_fence_check() -> Any:
    return _statement(settlement, _HOLDER, "")


def _acknowledged_before_commit() -> Any:
    """Who waits is told when the rows are written, and a moment passes until the commit."""
    write_group = Writer._write_group

    def write_and_tell(writer: Writer, write: Any, group: list[Any]) -> None:
        write_group(writer, write, group)
        writer._tell(group)
        tasks.stages.present.block(0.001)

    return _replaced(Writer, "_write_group", write_and_tell)


def _neighbours_charged() -> Any:
    return _statement(leases, _SUSPECT, "SET state = 'ready', worker = NULL, crashes = crashes + 1, suspect")


def _rescue_without_recheck() -> Any:
    """The sweep acts on what the one before it saw."""
    rescue = leases.Registry._rescue
    seen: dict[int, set[int]] = {}

    def rescue_later(registry: leases.Registry, connection: Any, now_us: int) -> Any:
        rows = connection.execute("SELECT id, boot_id, expires_boot_us FROM lineshaft_worker").fetchall()
        expired = {row[0] for row in rows if not registry.is_live(*row)}
        dead = seen.get(id(registry), set())
        seen[id(registry)] = expired

        class Stale:
            """A registry that remembers."""

            clock, alive = registry.clock, registry.alive

            def is_live(self, worker: int, *_: Any) -> bool:
                return worker not in dead

        return rescue(Stale(), connection, now_us)  # type: ignore[arg-type]

    return _replaced(leases.Registry, "_rescue", rescue_later)


def _key_not_unique() -> Any:
    return _statement(submissions, _KEY_HELD, f"{_KEY_HELD} AND false")


def _savepoint_takes_the_group() -> Any:
    """A part that fails is rolled back with all that came before it in its transaction."""

    def roll_back_all(lent: LentTransaction) -> None:
        lent._loan.run(lambda _: _restart(lent))

    def _restart(lent: LentTransaction) -> None:
        lent._loan._lent.control("ROLLBACK /* planted */")  # type: ignore[union-attr]
        lent._loan._lent.control("BEGIN IMMEDIATE /* planted */")  # type: ignore[union-attr]

    return _replaced(LentTransaction, "rollback_savepoint", roll_back_all)


FAULTS: dict[str, Plant] = {
    "no fence check": _no_fence_check,
    "acknowledged before the commit": _acknowledged_before_commit,
    "neighbours charged for a crash": _neighbours_charged,
    "a rescue that does not look again": _rescue_without_recheck,
    "a key that is not unique": _key_not_unique,
    "a savepoint's failure takes the group": _savepoint_takes_the_group,
}
