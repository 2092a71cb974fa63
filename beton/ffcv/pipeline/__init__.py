"""What operations are made of, by FFCV's names."""

from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.compiler import Compiler
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.pipeline_spec import PipelineSpec
from beton.ffcv.pipeline.state import State

__all__ = ["AllocationQuery", "Compiler", "Operation", "PipelineSpec", "State"]
