"""A worker process of `lineshaft bench`: boots, says "ready", waits for "go", and tells how many runs it has done.

It ends when its standard input does, and so also with the process that measures.
"""

from __future__ import annotations

import asyncio
import sys

from lineshaft.cli.benchmark.work import QUEUE, bench_app

TELL_EVERY_S = 0.01


async def serve(address: str) -> None:
    """Execute runs of the benchmark until told to stop."""
    app, _ = bench_app(address)
    loop = asyncio.get_running_loop()
    told = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    async with app:
        _ = app.runtime.store
        _tell("ready")
        if not await told.readline():
            return
        async with app.worker(queues=[QUEUE]) as worker:
            last = -1
            while not told.at_eof():
                if worker.done != last:
                    last = worker.done
                    _tell(str(last))
                await app.runtime.clock.sleep(TELL_EVERY_S)


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    from lineshaft.cli.serve import run_loop

    run_loop(serve(sys.argv[1]))
