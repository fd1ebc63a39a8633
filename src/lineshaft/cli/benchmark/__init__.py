"""Measuring a user's own store: the app that is measured, the workloads, and the worker processes."""
