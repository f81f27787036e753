"""A rehearsal of operating regrain on a store in use: ``make drill``."""
