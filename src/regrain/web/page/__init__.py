"""The page for people: written on the server, kept current by events, of use without scripts."""
