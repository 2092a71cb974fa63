"""Stages as text: "rrc(176)|flip|normalize" becomes a list of stages."""

import ast

from beton.errors import UserError
from beton.plugins import Plugins
from beton.stages.base import KINDS, Crop, Float, Normalize, Stage, kind_of

STAGES = Plugins("stage", "beton.stages", "STAGE", others=("base", "filters", "parse", "plan"))


def parse(text: str, channels: int = 3) -> list[Stage]:
    """The stages of a pipeline text for images of so many channels, checked for their order; raises UserError."""
    text = " ".join(text.split())  # messages are of one line
    stages = [_stage(part.strip(), index) for index, part in enumerate(text.split("|"))]
    kinds = [kind_of(stage) for stage in stages]
    if kinds[0] is not Crop or kinds.count(Crop) != 1:
        raise UserError(f"'{text}' must have one crop stage, and first", "begin with rrc(size) or center(size)")
    if kinds != sorted(kinds, key=KINDS.index) or kinds.count(Normalize) > 1:
        raise UserError(f"in '{text}' the stages are out of order", "put normalize last, with only erase behind it")
    if Float in kinds and Normalize not in kinds:
        raise UserError(f"'{text}' ends with a stage that needs numbers", "put normalize before it")
    for stage in stages[1:]:
        try:
            stage.check_images(stages[0].height, stages[0].width)
        except ValueError as error:
            raise UserError(f"in '{text}' {error}", "make it smaller, or the images larger") from None
        try:
            stage.check_channels(channels)
        except ValueError as error:
            raise UserError(f"in '{text}' {error}", f"give one for each of the {channels} channels") from None
    return stages


def _stage(text: str, index: int) -> Stage:
    """One stage such as "rrc(176, scale=(0.25, 1.0))"; arguments are literals, nothing is evaluated."""
    name, values, named = call(text)
    try:
        stage = STAGES.get(name)(*values, **named)
    except (TypeError, ValueError) as error:
        raise UserError(f"wrong arguments in the stage '{text}': {error}", f"see help(beton.stages.{name})") from None
    stage.stage_index = index
    return stage


def call(text: str) -> tuple[str, list, dict]:
    """Name, arguments and keyword arguments of a text such as "rrc(176, ratio=(1, 1))"; raises UserError."""
    try:
        found = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the latter ones: \0, nested too deeply
        raise UserError(f"cannot read the stage '{text}'", "write it as name or name(1, key=2)") from None
    arguments, keywords = [], []
    if isinstance(found, ast.Call):
        found, arguments, keywords = found.func, found.args, found.keywords
    name = ast.unparse(found) if isinstance(found, (ast.Name, ast.Attribute)) else ""
    if not name.replace(".", "").isidentifier():
        raise UserError(f"cannot read the stage '{text}'", "write it as name or name(1, key=2)")
    try:
        values = [ast.literal_eval(argument) for argument in arguments]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise UserError(f"the arguments of '{text}' are not literals", "give numbers or tuples") from None
    if None in named:
        raise UserError(f"the arguments of '{text}' have a **", "write each as key=value")
    if len(named) < len(keywords):
        raise UserError(f"the stage '{text}' has an argument twice", "give it once")
    return name, values, named
