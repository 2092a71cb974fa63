"""A pipeline by name of a field, decoder and operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from beton.errors import UserError
from beton.ffcv.pipeline.operation import Operation


class PipelineSpec:
    """`transforms` of what `decoder` makes of the field `source`, or of what the operation `source` of another pipeline
    has made. Without `decoder` and `transforms`: the field's own decoder, and ToTensor.
    """

    def __init__(
        self,
        source: str | Operation,
        decoder: Operation | None = None,
        transforms: Sequence[Operation | torch.nn.Module] | None = None,
    ):
        self.source, self.decoder = source, decoder
        self.transforms = [] if transforms is None else list(transforms)
        self.default_pipeline = decoder is None and not self.transforms and isinstance(source, str)

    def __repr__(self) -> str:
        return repr((self.source, self.decoder, self.transforms))

    def accept_decoder(self, Decoder: type[Operation] | None, output_name: str) -> None:  # noqa: N803 as FFCV has it
        """Fill in what was left out, for a field whose decoders are `Decoder` or made from it."""
        from beton.ffcv.transforms.module import ModuleWrapper
        from beton.ffcv.transforms.ops import ToTensor

        if not isinstance(self.source, str) and self.decoder is not None:
            what = f"the pipeline '{output_name}' begins with an operation of another one and has a decoder too"
            raise UserError(what, "leave out the decoder")
        if Decoder is not None and self.transforms and isinstance(self.transforms[0], Decoder):
            self.decoder = self.transforms.pop(0)
        elif Decoder is not None and self.decoder is None:
            self.decoder = _made(Decoder, output_name)
        if self.default_pipeline:
            self.transforms.append(ToTensor())
        self.transforms = [ModuleWrapper(op) if isinstance(op, torch.nn.Module) else op for op in self.transforms]


def _made(decoder: type[Operation], output_name: str) -> Any:
    try:
        return decoder()
    except Exception as error:
        what = f"the pipeline '{output_name}' has no decoder, and {decoder.__name__} cannot be made without arguments"
        raise ValueError(f"{what}; put a decoder first") from error
