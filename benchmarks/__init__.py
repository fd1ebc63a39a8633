"""Measuring programs: `engine` for Lineshaft alone, `peers` for the same work on other systems, `report` for the docs.

Both write `results/*.json` in the format of `measurement.py`; `python -m benchmarks.report` puts what stands there
into the documentation.
"""
