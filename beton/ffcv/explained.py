"""What a loader does with each operation, and why."""

from __future__ import annotations

from typing import Any


def explain(loader: Any) -> str:
    """How the pipelines of a loader (of beton.ffcv) run: a line for each operation, with its place and the reason.

    'fused': in the one pass of the threads, with decoding; 'kernel': compiled with this library; 'compiled': numba has
    compiled it; 'plain': as Python; 'copy': to a GPU. All but the first run once a batch, several batches side by side.
    BETON_EXPLAIN=1 in the environment has every loader print it.
    """
    lines = [f"{loader.fname}: {loader.num_workers} threads, batches of {loader.batch_size}, seed {loader.seed}"]
    for planned in loader.code:
        lines.append(f"  {planned.name}")
        lines += [f"    {how:<8}  {operation:<34}  {why}".rstrip() for operation, how, why in planned.steps]
    return "\n".join(lines)
