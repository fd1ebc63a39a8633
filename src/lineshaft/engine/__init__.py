"""The durable engine. This is the road of a run, in the order in which a newcomer can follow it:

1. `app.py` — `@app.task` makes a function a task; `declare.py` checks all that can be wrong with it, and
   `registry.py` keeps it under its name and version.
2. `task.py`, `submit.py` — `task.submit(…)` validates the arguments in the caller, derives tenant and key, and
   gives the run its id and its place in a lane.
3. `store/sqlite/submissions.py` — the run is inserted, in a group commit of many or in the caller's own
   transaction. Once `submit` returns, it survives.
4. `fetch.py` — a worker is woken, shares what it has room for between the lanes (`fairness.py`), and claims
   a batch (`store/sqlite/claims.py`, past the limits in `gates.py`). Each run is leased to it under a new fence.
5. `execute.py` — one attempt: decode, call, encode. Runs of tasks with a transaction go through `transact.py`,
   batches through `batching.py`; `places.py` says how much of each is in flight.
6. `outcomes.py` — what the end of the attempt means: a result, another attempt later, a failure.
7. `settle.py` — the only writer of outcomes: many at once, each under its fence (`store/sqlite/settlement.py`).
   Finished runs move to history; the others go back to their lanes.
8. `wait.py`, `run.py` — whoever waits for the run is told, in this process or another.

Beside the road: `worker.py` is the life of a worker, `heart.py` its heartbeat, `upkeep.py` sweeps over the dead
and prunes (`store/sqlite/leases.py` judges who is a suspect), `why.py` explains what a run waits for, `runtime.py`
holds what one app has open, and `portal.py` lets synchronous code in.
"""
