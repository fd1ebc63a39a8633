"""What Lineshaft costs on SQLite: one file a benchmark, each with real worker processes on a real disk.

    __main__.py     `python -m benchmarks.engine`: the command line
    catalogue.py    all benchmarks, in the order in which they run
    stage.py        what a benchmark is given: its folder, sizes and rounds, and where its values go
    apps.py         the apps whose runs are executed; `draining.py` has worker processes execute them
    terminal.py     progress for whoever waits

Whatever is compared is measured in turns within one round, so that both sides see the same machine.
CPU seconds of the processes stand beside the rates: on a shared machine they vary far less than the clock does.
"""
