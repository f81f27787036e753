"""Reading and writing the two layouts. No database here: readers need none."""
