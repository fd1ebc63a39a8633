"""A worker process of `lineshaft bench`: boots, says "ready", waits for "go", and tells how many runs it has done.

It ends when its standard input does, and so also with the process that measures.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module

from lineshaft.cli.benchmark.work import QUEUE

TELL_EVERY_S = 0.01
GRACE_S = 1.0


async def serve(address: str, make: str) -> None:
    """Execute runs of the benchmark until told to stop. `make` names the function that makes the app."""
    module, _, name = make.partition(":")
    app = getattr(import_module(module), name)(address)[0]
    loop = asyncio.get_running_loop()
    told = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    async with app:
        _ = app.runtime.store
        _tell("ready")
        if not await told.readline():
            return
        async with app.worker(queues=[QUEUE], grace=GRACE_S) as worker:
            last = -1
            while not told.at_eof():
                if worker.done != last:
                    last = worker.done
                    _tell(str(last))
                await app.runtime.clock.sleep(TELL_EVERY_S)
        _tell(str(worker.done))


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    from lineshaft.cli.serve import run_loop

    run_loop(serve(*sys.argv[1:]))
