"""A folder for PYTHONPATH: see beton/ffcv/alias.py."""
