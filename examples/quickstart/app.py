import os
import time

from lineshaft import App, Context

app = App("quickstart")


@app.task
def print_report(pages: int, ctx: Context) -> str:
    for page in range(1, pages + 1):
        ctx.progress(page, pages)
        print(f"page {page} of {pages}, in process {os.getpid()}", flush=True)
        time.sleep(1)
    return f"{pages} pages printed"
