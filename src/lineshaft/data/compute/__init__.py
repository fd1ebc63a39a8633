"""Where a function computes when the worker's own process will not do.

`pool` owns the children of this machine, `process` is one child as its parent sees it, `child` is what
runs inside it. Arguments and results cross as bytes, so the three know nothing of runs or of codecs.
"""
