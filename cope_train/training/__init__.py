"""From plan sets to adapters: rows, preflight, and one straight file per method."""
