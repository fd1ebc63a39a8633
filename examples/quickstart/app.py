"""A report that takes a while."""

import os
import time

from lineshaft import App, Context

app = App("quickstart")


@app.task
def print_report(pages: int, ctx: Context) -> str:
    """Print a report, a page each second."""
    for page in range(1, pages + 1):
        ctx.progress(page, pages)
        print(f"page {page} of {pages}, in process {os.getpid()}", flush=True)
        time.sleep(1)
    return f"{pages} pages printed"
