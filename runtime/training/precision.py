"""Mixed precision: fp16 with a gradient scaler, bf16, or none; on GPU and CPU."""

from dataclasses import dataclass

import torch

from runtime.machine import has_bf16_instructions

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "none": None}


@dataclass(frozen=True)
class Precision:
    """The dtype of matrix products (None: float32 throughout) on a type of device."""

    name: str
    device_type: str

    @classmethod
    def choose(cls, name: str, device: torch.device) -> "Precision":
        """`auto` is fp16 on a GPU, bf16 on a CPU with instructions for it, else none."""
        if name == "auto":
            name = "fp16" if device.type == "cuda" else "bf16" if has_bf16_instructions() else "none"
        return cls(name, device.type)

    @property
    def dtype(self) -> torch.dtype | None:
        """float16, bfloat16 or None."""
        return _DTYPES[self.name]

    def autocast(self) -> torch.autocast:
        """Context in which the model runs."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps fp16 gradients from underflowing; does nothing for other dtypes."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")
