"""Lineshaft: one durable engine under everything a Python backend team runs."""
