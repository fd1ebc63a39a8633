"""Use-cases: what the command line, and later HTTP and the console, all call. One file a noun.

Each is a plain async function over a `Desk`, which holds the store and says who acts. They pass through
`desk.use_case`, the one place where it is decided whether somebody may, and where what was done is written down.
"""
