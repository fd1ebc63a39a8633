"""`lineshaft workers`."""

from __future__ import annotations

from lineshaft.cli import printing
from lineshaft.cli.acting import at_desk
from lineshaft.cli.options import DEFAULT_STORE, AsJson, Store


def workers(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List workers, and what each of them holds."""
    from lineshaft.control import documents, workers
    from lineshaft.core.clock import SystemClock
    from lineshaft.core.duration import brief

    found = at_desk(store, workers.listing)
    if as_json:
        printing.print_json([documents.worker(view) for view in found])
        return
    console = printing.stdout()
    if not found:
        console.print("No worker is registered.", style="dim")
        return
    now_us = SystemClock().now_us()
    table = printing.table(
        "Worker",
        "Host",
        "Process",
        "",
        "Up",
        "Holds",
        "Queues",
        "Tasks",
        right=("Worker", "Process", "Up", "Holds"),
    )
    for view in found:
        names = sorted({task for task, _ in view.tasks})
        table.add_row(
            str(view.id),
            printing.plain(view.host),
            str(view.pid),
            "[green]alive[/]" if view.alive else "[bold red]dead[/]",
            brief(max(0, now_us - view.started_us) / 1e6),
            f"{view.held:,}",
            printing.plain(", ".join(view.queues)) or "all",
            printing.plain(", ".join(names)),
        )
    console.print(table)
