"""Keeping a store sound after, and beside, its migration."""
