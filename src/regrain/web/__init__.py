"""Monitoring over HTTP, read-only. What needs a server library is loaded by ``serving`` alone."""
