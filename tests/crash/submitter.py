"""A submitter of the harness: `python -m tests.crash.submitter NAME [--seed N] [--count N] [--rate N] [--arm POINT]`.

It submits operations of the mix in every way there is, and keeps a book: what it is about to submit under a key
(`intents-NAME.txt`), and what was accepted (`accepted.txt`: operation and run). Killed and started again under
the same name it goes on where it was, and first submits anew what it does not know to be accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from lineshaft import Run
from lineshaft.core.errors import StoreError
from tests.crash import points, workload
from tests.crash.workload import KINDS, app

_log = logging.getLogger(__name__)
FOLDER = Path(os.environ.get("PROGRAM_FOLDER", "."))

SHARES = {
    "calls": 6,
    "calls_async": 4,
    "calls_once": 4,
    "calls_again": 3,
    "calls_limited": 3,
    "computes": 3,
    "books": 8,
    "books_async": 3,
    "books_many": 8,
    "books_again": 3,
    "books_and_submits": 4,
    "carries": 4,
    "waits": 4,
    "is_late": 1,
    "is_poison": 2,
}
"""How often each kind comes, of the sum of them."""

KEYS_KEPT = "5m"
"""Longer than a submitter may be away: one that comes back after that would submit anew what was done long ago."""
UNFINISHED_MAX = 2_000
"""Runs that may wait; beyond it submitting does."""
IN_TRANSACTION = ":tx"
"""Marks the name of a submitter in operations that came in a transaction beside a row of its own."""
KEYLESS = ":once"
"""Marks it in operations that came without a key, so that nobody may submit them again."""


def put_down(path: Path, lines: Iterable[str]) -> None:
    """Append lines in one write, which a kill does not tear."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
    finally:
        os.close(descriptor)


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class Submitter:
    def __init__(self, name: str, seed: int) -> None:
        self.intents = FOLDER / f"intents-{name}.txt"
        self.accepted = FOLDER / "accepted.txt"
        self.name = name
        before = read(self.intents)
        self.number = max((int(op.rpartition("/")[2]) for op in before), default=-1) + 1
        known = {line.split()[0] for line in read(self.accepted)}
        self.unsure = [op for op in before if op not in known and KEYLESS not in op]
        self.chance = random.Random(f"{seed} {name} {self.number}")
        self.cancels: set[asyncio.Task[object]] = set()

    async def serve(self, count: int, rate: float) -> None:
        """Submit so many operations, at so many a second."""
        for op in self.unsure:
            await self.submit(op, keyed=True)
        last = self.number + count
        checked = self.number
        while self.number < last:
            if self.number - checked >= 100:
                checked = self.number
                await self.let_workers_catch_up()
            done = await self.step()
            await asyncio.sleep(self.chance.random() * 2 * done / rate)
        await asyncio.gather(*self.cancels)

    async def let_workers_catch_up(self) -> None:
        """A long test is about what happens in time, not about a backlog that grows on a slow machine."""
        while (await app.queue_stats("default")).unfinished > UNFINISHED_MAX:  # noqa: ASYNC110 - by other processes
            await asyncio.sleep(0.2)

    async def step(self) -> int:
        """Submit one operation, or twenty at once; how many."""
        [kind] = self.chance.choices(list(SHARES), list(SHARES.values()))
        match self.chance.randrange(10):
            case 0:
                ops = [self.next_op(kind) for _ in range(20)]
                await self.submit_many(kind, ops)
                return len(ops)
            case 1 | 2:
                await self.submit(self.next_op(kind, KEYLESS), keyed=False)
            case 3:
                await self.submit(self.next_op(kind), keyed=True, delay=self.chance.random())
            case 4 | 5:
                await self.submit(self.next_op(kind, IN_TRANSACTION), keyed=True)
            case _:
                await self.submit(self.next_op(kind), keyed=True)
        return 1

    def next_op(self, kind: str, mark: str = "") -> str:
        op = f"{kind}/{self.name}{mark}/{self.number}"
        self.number += 1
        return op

    async def submit(self, op: str, *, keyed: bool, delay: float = 0.0) -> None:
        """Submit until it is accepted; without a key once, since nobody could tell whether it was."""
        while True:
            try:
                await self.submit_once(op, keyed=keyed, delay=delay)
            except StoreError as error:
                # Stopped in the middle of a transaction for longer than that may last, say.
                _log.warning("%s was not accepted: %s", op, error)
                if keyed:
                    continue
            return

    async def submit_once(self, op: str, *, keyed: bool, delay: float) -> None:
        kind, name, _ = op.split("/")
        options = {
            "key": op if keyed else None,
            "key_retention": KEYS_KEPT,
            "delay": delay,
        }
        task, arguments = KINDS[kind].task, workload.arguments(kind, op)
        # Those without a key too: whoever comes after us must not use their numbers again.
        put_down(self.intents, [op])
        if name.endswith(IN_TRANSACTION):
            async with app.transaction() as tx:
                run = await task.submit(*arguments, **options, tx=tx)
                if run.created:
                    await workload.write_async(tx, op, "ordered")
        else:
            run = await task.submit(*arguments, **options)
        self.note([op], [run])
        if kind == "waits" and self.chance.random() < 0.5:
            self.cancels.add(asyncio.create_task(self.cancel(run)))

    async def submit_many(self, kind: str, ops: Sequence[str]) -> None:
        calls = [workload.arguments(kind, op) for op in ops]
        items = calls if len(calls[0]) > 1 else [call[0] for call in calls]
        put_down(self.intents, ops)
        runs = await KINDS[kind].task.submit_many(
            items,
            key=lambda op, *_: op,
            key_retention=KEYS_KEPT,
        )
        self.note(ops, runs)

    def note(self, ops: Sequence[str], runs: Sequence[Run[object]]) -> None:
        put_down(self.accepted, [f"{op} {run.id}" for op, run in zip(ops, runs, strict=True)])

    async def cancel(self, run: Run[object]) -> None:
        await asyncio.sleep(self.chance.random() * 0.2)
        await run.cancel()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000_000_000)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument("--arm", action="append", default=[])
    options = parser.parse_args()
    for wanted in options.arm:
        points.arm(wanted, FOLDER / "reached.txt")
    submitter = Submitter(options.name, options.seed)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with app:
        workload.tell_that_it_is_up()
        work = asyncio.create_task(submitter.serve(options.count, options.rate))
        ended = asyncio.create_task(told.wait())
        await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
        if told.is_set():
            work.cancel()
            await asyncio.wait([work])
        else:
            await work
        ended.cancel()


if __name__ == "__main__":
    asyncio.run(main())
