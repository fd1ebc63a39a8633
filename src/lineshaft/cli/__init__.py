"""The command line, one module a command group. What a command needs is imported when it runs.

`entry.py` puts the commands together and turns every error into one line and an exit code; `options.py` has the
options that many share, `printing.py` how things look, `loading.py` finds MODULE:APP.
"""


def main() -> None:
    """The command `lineshaft`."""
    import sys

    from lineshaft.cli.entry import run

    sys.exit(run())
