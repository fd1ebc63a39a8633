"""The same work on Lineshaft and on its peers, side by side: `make bench-peers`.

How a figure comes about:

1. `catalogue.py` lists the subjects: a system, its configuration, its settings, its worker processes. What each
   one's users would write stands in `apps`, one module a system, all keeping `contract.py`.
2. `rounds.py` goes over all subjects for each of `benches.py`, and does so three times, each time beginning with
   another subject. Before each measurement it times a fixed loop, to show how busy the machine was.
3. Each measurement gets a `stage.py`: a fresh folder on the disk of the checkout, a server of its own where the
   system needs one (`redis.py`), a client process (`client.py`, asked over pipes by `remote.py`) and worker
   processes (`processes.py`), both in the system's own environment. All of it ends with the stage.
4. Every run marks its number in a file that is mapped into the memory of all processes (`marks.py`). The harness
   reads it (`watching.py`), so it knows what ran, what was lost and what ran twice without asking the system.
5. What was found goes into `benchmarks/results/peers.json`, every single value with its settings and versions
   (`benchmarks/measurement.py`), and from there into the documentation (`benchmarks/report`).

A system more: a file of requirements, a module in `apps`, a function in the catalogue, and a row in the table of
promises in docs/reference/performance.md. A server more: a member of `subject.Server`, and its start in `stage.py`.
"""
