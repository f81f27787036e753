"""Packages at a URL: pushed, pulled, checked, collected; knows no ledger."""
