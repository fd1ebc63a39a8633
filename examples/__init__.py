"""Applications that run as they stand, each from the root of the checkout with `python -m examples.NAME`.

flights     settles passenger compensation for every flight out of New York in 2013
"""
