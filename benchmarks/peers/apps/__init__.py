"""The same two tasks on every system, each in its own words; `contract.py` says what they have in common.

Each module is what a user of that system would write. The worker processes import it, and so does the client.
"""
