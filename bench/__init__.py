"""Benchmarks, corpora and the demonstration; nothing here is installed with regrain."""
