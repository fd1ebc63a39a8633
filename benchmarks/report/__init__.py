"""The documentation's figures, rendered from `benchmarks/results`: `python -m benchmarks.report`.

A page has places for them, `<!-- begin: NAME -->` … `<!-- end: NAME -->`. `pages.py` lists which module fills
which; a test compares the pages with what would be rendered, so that they cannot drift from the measured values.
"""
