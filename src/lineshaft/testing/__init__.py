"""The test kit: virtual time, a deterministic event loop with processes and threads, and the suites for stores.

Nothing of Lineshaft imports it. `clock.VirtualClock` stands still until it is told to move. `loop.SimulationLoop` runs
asyncio programs as a seed says; `machine.Machine` puts apps on it that can be killed at every await. The classes in
`conformance` need pytest and pytest-asyncio; every store has to pass them.
"""
