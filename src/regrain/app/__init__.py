"""The facades over the rooms below, and their wiring with settings."""
