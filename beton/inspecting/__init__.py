"""Looking into a .beton: check, info, compare, preview (`python -m beton`)."""
