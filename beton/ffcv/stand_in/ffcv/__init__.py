"""What `import ffcv` finds in the child processes of `python -m beton.ffcv`: beton.ffcv takes its place."""

from beton.ffcv import launch

launch.install()
