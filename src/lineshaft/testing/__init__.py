"""The test kit: virtual time, and the suites that every store has to pass.

Nothing of Lineshaft imports it. `clock.VirtualClock` stands still until it is told to move; the classes in
`conformance` need pytest and pytest-asyncio.
"""
