"""The migration: from the legacy layout to the file-level layout, and its steps."""
