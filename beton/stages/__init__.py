"""Stages of pipelines, one file each; base.py says what such a file holds."""
