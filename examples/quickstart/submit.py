"""Wants a report, and waits for it."""

from app import print_report

run = print_report.blocking.submit(10, key="report-1")
print("accepted:", run.id, flush=True)
print("result:", run.blocking.result())
