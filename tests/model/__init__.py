"""A plain model of a store, and what it takes to hold a real one against it."""
