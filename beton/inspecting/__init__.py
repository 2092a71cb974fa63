"""Looking into a .beton: check, info, compare, preview, export (`python -m beton`)."""
