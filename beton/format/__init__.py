"""The .beton file at rest: its tables, its card, its fields and storage modes, and the one reader."""
