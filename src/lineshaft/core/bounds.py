"""Every bound of the engine, named with its unit. At a bound there is a clear error or backpressure.

Bounds that a user may sensibly change are parameters elsewhere with these as defaults.
"""

from __future__ import annotations

from typing import Final

# Payloads
PAYLOAD_BYTES_MAX: Final = 1_048_576
"""Encoded arguments or result of one run; beyond it `PayloadTooLarge`."""
PAYLOAD_DEPTH_MAX: Final = 100
"""Nesting of arrays and objects in a payload."""
INLINE_BYTES_MAX: Final = 4_096
"""Payloads up to this size lie in the run's row, larger ones in the blob table."""
ERROR_TEXT_CHARS_MAX: Final = 8_192
"""Message or traceback kept of a failed attempt."""
NAME_CHARS_MAX: Final = 200
"""Names of tasks, queues, tenants, and submission keys."""

# Writing
FLUSH_ROWS_MAX: Final = 5_000
"""Rows that one group commit carries; what is over goes into the next."""
WRITER_BACKLOG_ROWS_MAX: Final = 100_000
"""Rows waiting for the writer in one process; beyond it submitters wait."""
WRITER_BACKLOG_BYTES_MAX: Final = 64 * 1_048_576
"""Bytes of arguments and results waiting for the writer in one process; beyond it submitters wait."""
WRITER_HOLD_S_MAX: Final = 4.0
"""Seconds that a user's transaction may hold the writer (under a third of the lease)."""

SUBMIT_RUNS_MAX: Final = 100_000
"""Runs that one `submit_many` takes, since it accepts all or none of them in one commit."""

# Runs
LEASE_S: Final = 15.0
"""Seconds for which a heartbeat extends a worker's leases."""
CONCURRENCY_ASYNC: Final = 2_000
"""Asynchronous attempts at once in one worker; twice what a claim takes, so that some execute while others settle."""
CONCURRENCY_THREAD: Final = 32
"""Attempts in threads at once in one worker."""
CLAIM_ROWS_MAX: Final = 1_000
"""Runs taken by one claim."""
CLAIM_BYTES_MAX: Final = 16 * 1_048_576
"""Bytes of arguments taken by one claim, or of payloads written by one statement."""
LENDING_THREADS_MAX: Final = 64
"""Bodies of transactions in threads at once, those that overstayed and do not return among them."""
LANES_VISITED_MAX: Final = 256
"""Lanes looked at by one claim; the next claim goes on where it stopped."""
BATCH_MAX: Final = 10_000
"""Runs handed to a batch task at once."""
ATTEMPTS_MAX: Final = 1_000
"""Attempts that a retry policy may allow."""
TRANSACTION_GROUP_MAX: Final = 64
"""Synchronous transactional runs that share one commit."""
CRASHES_MAX: Final = 3
"""Times that a run may kill a worker that ran it alone before it is failed."""
SUSPECTS_PATIENCE_S: Final = 10.0
"""Seconds that a worker claims nothing else, waiting to be idle, before it takes suspects beside its work."""
SUSPECTS_ALONE_S_MAX: Final = 60.0
"""Seconds for which suspects execute with nothing beside them; a run that kills later is not proven guilty."""
TIMEOUT_S_DEFAULT: Final = 3_600.0
"""Seconds an attempt may take where its task says nothing."""
DELAY_S_MAX: Final = 10 * 365 * 86_400.0
"""Seconds ahead that a run may be scheduled."""

# Order
PRIORITY_MAX: Final = 1_000
"""Priorities lie between minus and plus this."""
AGEING_STEP_S: Final = 60.0
"""One point of priority is worth this many seconds of waiting."""

# Keeping
HISTORY_RETENTION_S: Final = 7 * 86_400.0
"""Seconds for which finished runs are kept."""
KEY_RETENTION_S: Final = 7 * 86_400.0
"""Seconds for which a key is kept after its run finished."""
PRUNE_ROWS_MAX: Final = 2_000
"""Rows that one step of pruning deletes."""
