"""The subjects: what is compared, and with which settings.

The first of a name is a configuration for many short tasks, by its documentation where that recommends one, with
one process that executes, acknowledging late where it can, and with results kept. Those after it are variants: two processes, or
another durability. What each setting is for stands beside it.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks.peers.subject import Accepted, Server, Sizes, Subject

_DRAIN_ONLY: Final = frozenset({"drain"})
_IN_MEMORY: Final = "Redis in memory"
_ON_DISK: Final = "Redis with fsync"
_ACCEPTED: Final = {Server.REDIS: Accepted.IN_MEMORY, Server.REDIS_FSYNC: Accepted.ON_DISK}


def _lineshaft(config: str, processes: int, **options: Any) -> Subject:
    return Subject(
        "lineshaft",
        config,
        app="lineshaft_app",
        environment="lineshaft",
        imports="import lineshaft",
        workers=(("-m", "lineshaft", "worker", "benchmarks.peers.apps.lineshaft_app:app"),) * processes,
        sizes=Sizes(drain=150_000, window=30_000, kill=30_000),
        **options,
    )


def _celery(config: str, server: Server, *pool: str, count: int = 1, **options: Any) -> Subject:
    flags = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")
    worker = ("-m", "celery", "-A", "benchmarks.peers.apps.celery_app", "worker", *flags, *pool)
    return Subject(
        "celery",
        config,
        app="celery_app",
        environment="celery",
        imports="import celery; celery.Celery('x')",
        workers=tuple((*worker, "-n", f"worker-{number}@peers") for number in range(count)),
        sizes=Sizes(drain=6_000, window=2_500, kill=400),
        server=server,
        accepted=_ACCEPTED[server],
        settings={
            "conf": {
                "task_acks_late": True,  # acknowledge when done, so that a dead worker's tasks come back
                "task_reject_on_worker_lost": True,  # also where only the pool's child has died
                "worker_prefetch_multiplier": 128,  # "Optimizing": many short tasks want a large one
                "result_expires": 3_600,
                "broker_connection_retry_on_startup": True,
                "broker_transport_options": {"visibility_timeout": 3_600},  # the default
            }
        },
        redelivery={
            "conf": {
                "broker_transport_options": {
                    "visibility_timeout": 10,
                    "unacked_restore_interval": 1,  # look each second; by default, every hundred of them
                    "unacked_restore_throttle": 1,
                }
            }
        },
        redelivery_s=15,
        **options,
    )


def _taskiq(config: str, server: Server, processes: int, **options: Any) -> Subject:
    return Subject(
        "taskiq",
        config,
        app="taskiq_app",
        environment="taskiq",
        imports="import taskiq, taskiq_redis",
        workers=(
            (
                *("-m", "taskiq", "worker", "benchmarks.peers.apps.taskiq_app:broker"),
                *("--workers", str(processes), "--log-level", "WARNING", "--ack-type", "when_saved"),
            ),
        ),
        sizes=Sizes(drain=15_000, window=6_000, kill=4_000),
        server=server,
        accepted=_ACCEPTED[server],
        settings={
            "broker": {
                "xread_count": 100,  # the default, which is also how many run at once
                "idle_timeout": 600_000,  # ms; the default
                "unacknowledged_lock_timeout": 5.0,  # else a worker that dies with this lock stops redelivery
            },
            "results": {"result_ex_time": 3_600},
        },
        redelivery={"broker": {"idle_timeout": 10_000}},
        redelivery_s=15,
        **options,
    )


def _dramatiq(config: str, server: Server, processes: int, **options: Any) -> Subject:
    return Subject(
        "dramatiq",
        config,
        app="dramatiq_app",
        environment="dramatiq",
        imports="import dramatiq; from dramatiq.brokers.redis import RedisBroker",
        workers=(
            (
                *("-m", "dramatiq", "benchmarks.peers.apps.dramatiq_app"),
                *("--processes", str(processes), "--threads", "8"),  # the default number of threads
            ),
        ),
        sizes=Sizes(drain=8_000, window=3_000, kill=2_500),
        server=server,
        accepted=_ACCEPTED[server],
        settings={
            "broker": {
                "heartbeat_timeout": 60_000,  # ms; the default
                "maintenance_chance": 1_000,  # of a million commands; the default
            }
        },
        redelivery={"broker": {"heartbeat_timeout": 5_000, "maintenance_chance": 100_000}},
        redelivery_s=15,
        **options,
    )


def _arq(config: str, server: Server) -> Subject:
    return Subject(
        "arq",
        config,
        app="arq_app",
        environment="arq",
        imports="import arq; from arq import create_pool",
        workers=(("-m", "arq", "benchmarks.peers.apps.arq_app.WorkerSettings"),),
        sizes=Sizes(drain=6_000, window=2_500, kill=2_500),
        server=server,
        accepted=_ACCEPTED[server],
        settings={
            "worker": {
                "max_jobs": 100,  # the default of 10 starves the loop
                "poll_delay": 0.01,  # seconds; the default of 0.5 would be all there is to its latency
                "keep_result": 3_600,  # the default
                "job_timeout": 300,  # the default; what a dead worker held comes back ten seconds after it
            }
        },
        redelivery={"worker": {"job_timeout": 2}},
        redelivery_s=15,
    )


def _huey(config: str, fsync: bool | None, **options: Any) -> Subject:
    return Subject(
        "huey",
        config,
        app="huey_app",
        environment="huey",
        imports="import huey; from huey import SqliteHuey",
        workers=(
            (
                *("-m", "huey.bin.huey_consumer", "benchmarks.peers.apps.huey_app.huey", "--quiet"),
                *("--workers", "4", "--worker-type", "thread"),
                *("--delay", "0.01", "--max-delay", "0.01"),  # seconds; the defaults are 0.1 and 10
            ),
        ),
        sizes=Sizes(drain=6_000, window=2_500, kill=1_000),
        accepted=Accepted.IN_CACHE if fsync is False else Accepted.ON_DISK,
        settings={"storage": {"fsync": fsync, "journal_mode": "wal"}},
        filling={"storage": {"fsync": False}},
        **options,
    )


def _dbos(config: str, journal_mode: str, **options: Any) -> Subject:
    return Subject(
        "dbos",
        config,
        app="dbos_app",
        environment="dbos",
        imports="import dbos",
        workers=(("-m", "benchmarks.peers.apps.dbos_app", "worker-0"),),
        sizes=Sizes(drain=1_200, window=600, kill=400),
        settings={
            "dbos": {"max_executor_threads": 16, "application_version": "1"},
            "queue": {
                "worker_concurrency": 100,
                "polling_interval_sec": 0.01,  # the default of 1.0 would be all there is to its latency
            },
            "journal_mode": journal_mode,
        },
        redelivery_s=15,
        **options,
    )


SUBJECTS: Final = (
    _lineshaft("1 process", 1),
    _lineshaft("2 processes", 2, benches=_DRAIN_ONLY),
    _celery(f"prefork, 1 process, {_IN_MEMORY}", Server.REDIS, "--pool", "prefork", "--concurrency", "1"),
    _celery(
        *(f"prefork, 2 processes, {_IN_MEMORY}", Server.REDIS, "--pool", "prefork", "--concurrency", "2"),
        benches=_DRAIN_ONLY,
    ),
    _celery(
        *(f"prefork, 1 process, {_ON_DISK}", Server.REDIS_FSYNC, "--pool", "prefork", "--concurrency", "1"),
        benches=frozenset({"drain", "latency"}),
    ),
    _celery(f"solo, 1 process, {_IN_MEMORY}", Server.REDIS, "--pool", "solo", benches=_DRAIN_ONLY),
    _taskiq(f"1 process, {_IN_MEMORY}", Server.REDIS, 1),
    _taskiq(f"2 processes, {_IN_MEMORY}", Server.REDIS, 2, benches=_DRAIN_ONLY),
    _taskiq(f"1 process, {_ON_DISK}", Server.REDIS_FSYNC, 1, benches=frozenset({"drain", "latency"})),
    _dramatiq(f"1 process, {_IN_MEMORY}", Server.REDIS, 1),
    _dramatiq(f"2 processes, {_IN_MEMORY}", Server.REDIS, 2, benches=_DRAIN_ONLY),
    _dramatiq(f"1 process, {_ON_DISK}", Server.REDIS_FSYNC, 1, benches=_DRAIN_ONLY),
    _arq(f"1 process, {_IN_MEMORY}", Server.REDIS),
    _huey("1 process, 4 threads", None),  # None leaves SQLite's default, which is synchronous=FULL
    _huey("1 process, 4 threads, fsync off", False, benches=_DRAIN_ONLY),
    _dbos("1 process, 16 threads", "delete"),
    _dbos("1 process, 16 threads, WAL", "wal", benches=_DRAIN_ONLY),
)
