"""DBOS Transact on SQLite: a run is a workflow, taken from a queue that lies in the database.

`python -m benchmarks.peers.apps.dbos_app EXECUTOR` is a worker: DBOS has no command that executes workflows, an
application launches it. With `setup` it only makes the tables and the queue.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import sqlalchemy
from dbos import DBOS, DBOSClient

from benchmarks.peers.contract import WORK_S, settings, store
from benchmarks.peers.marks import mark

QUEUE = "peers"
CHUNK = 1_000
ADDRESS = f"sqlite:///{store()}"


@DBOS.workflow(name="noop")
def noop(number: int) -> int:
    """Do nothing, and tell."""
    mark(number)
    return number


@DBOS.workflow(name="work")
def work(number: int) -> int:
    """Wait, and tell."""
    time.sleep(WORK_S)
    mark(number)
    return number


def launch(executor: str) -> None:
    """Begin to execute workflows, those first that an executor of the same name left unfinished."""
    DBOS(
        config={
            "name": "peers",
            "system_database_url": ADDRESS,
            "executor_id": executor,
            "log_level": "ERROR",
            **settings()["dbos"],
        }
    )
    DBOS.launch()
    DBOS.register_queue(QUEUE, **settings()["queue"])


class Measured:
    packages = ("dbos", "sqlalchemy")

    async def open(self) -> None:
        """Launching once makes the tables and the queue, in another process: this one only submits."""
        with closing(sqlite3.connect(store())) as file:
            file.execute(f"PRAGMA journal_mode = {settings()['journal_mode']}")
        setup = [sys.executable, "-m", "benchmarks.peers.apps.dbos_app", "setup"]
        await asyncio.to_thread(subprocess.run, setup, check=True)
        self._client = DBOSClient(system_database_url=ADDRESS)
        self._engine = sqlalchemy.create_engine(ADDRESS)

    async def submit(self, number: int) -> None:
        self._client.enqueue({"workflow_name": "noop", "queue_name": QUEUE}, number)

    async def submit_many(self, task: str, numbers: range) -> None:
        """There is no call for many; many in one transaction of the caller come near to it."""
        for start in range(0, len(numbers), CHUNK):
            with self._engine.begin() as connection:
                for number in numbers[start : start + CHUNK]:
                    self._client.enqueue_in_transaction(
                        connection, {"workflow_name": task, "queue_name": QUEUE}, number
                    )

    async def call(self, number: int) -> int:
        handle = self._client.enqueue({"workflow_name": "noop", "queue_name": QUEUE}, number)
        result: int = handle.get_result(polling_interval_sec=0.005)
        return result

    async def unfinished(self) -> int:
        query = "SELECT count(*) FROM workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')"
        with self._engine.connect() as connection:
            count: int = connection.execute(sqlalchemy.text(query)).scalar_one()
        return count

    async def close(self) -> None:
        self._engine.dispose()
        self._client.destroy()


measured = Measured()

if __name__ == "__main__":
    launch(sys.argv[1])
    if sys.argv[1] == "setup":
        DBOS.destroy()
    else:
        threading.Event().wait()
