"""Builders of legacy stores: real wheels, and synthetic packages of a stated shape."""
