"""The stages, one file each; pipelines/stages.py says what such a file holds."""
