"""Orders in which samples are read."""

from beton.ffcv.traversal_order.quasi_random import QuasiRandom
from beton.ffcv.traversal_order.random import Random
from beton.ffcv.traversal_order.sequential import Sequential

__all__ = ["QuasiRandom", "Random", "Sequential"]
