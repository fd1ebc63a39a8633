"""The embedded store: one SQLite file, shared safely by the processes of one machine.

`connection` opens it, `gate` lets processes write in turn, `writer` gathers writes into group commits, `loan`
lends the writer to user code; `submissions`, `claims`, `settlement`, `leases`, `reads` and `pruning` hold the
statements; `pokes` tells processes of each other's commits; `store` puts them together.
"""
