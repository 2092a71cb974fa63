"""Versions of what a run writes, and how to read the older ones.

Until version 2 of checkpoints (and in run folders without a "format") our loader was named 'ffcv' and stock FFCV 1.0.2
'ffcv_stock'.
"""

CHECKPOINT, RUN_FOLDER = 3, 2
_RENAMED = {"ffcv": "beton", "ffcv_stock": "ffcv"}


def renamed(mapping: dict, key: str) -> dict:
    """A copy of `mapping` in which the loader that `key` names, if any, has its present name."""
    return mapping | ({key: _RENAMED.get(mapping[key], mapping[key])} if mapping.get(key) else {})


def upgraded_checkpoint(content: dict) -> dict:
    """A checkpoint of version 2 as one of version 3; anything else unchanged."""
    if content.get("version") != 2 or not isinstance(content.get("params"), dict):
        return content
    return content | {"version": CHECKPOINT, "params": renamed(content["params"], "data.loader")}


def upgraded_run(facts: dict, lines: list[dict]) -> tuple[dict, list[dict]]:
    """The content of params.json and the lines of log.jsonl in the present format."""
    if not facts or facts.get("format", 1) >= RUN_FOLDER:
        return facts, lines
    params = renamed(facts.get("params") or {}, "data.loader")
    return facts | {"params": params, "format": RUN_FOLDER}, [renamed(line, "loader") for line in lines]
