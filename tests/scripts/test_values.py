"""Values that parsing takes and that are of no use: one line, status 2, and nothing is left behind.

`ROLES` says what each text of a script is; for each role there is nonsense below. A parameter that is not here fails.
"""

import os

import pytest

from tests.support.nonsense import LONG, PROFILE, WRITE, declared, parameters
from tests.support.scripts import wrong

pytestmark = pytest.mark.usefixtures("no_processes", "nothing_is_left")
SCRIPTS = declared()
TEXTS = ("a string", "a path", "paths separated by commas")
ROLES = {
    "model.arch": "model",
    "model.weights": "weights",
    "data.train_dataset": "beton",
    "data.val_dataset": "beton",
    "data.loader": "name",
    "data.train_stages": "stages",
    "data.val_stages": "stages",
    "training.optimizer": "name",
    "training.resume": "checkpoint",
    "training.trace": "out file",
    "distillation.teacher": "model",
    "distillation.teacher_weights": "weights",
    "logging.folder": "out folder",
    "logging.name": "taken",
    "dist.address": "address",
    "launch.partition": "any",
    "launch.account": "any",
    "launch.sbatch": "any",
    "launch.setup": "any",
    "scale.gpu_rates": "out folder",
    "scale.out": "out file",
    "cfg.dataset": "name",
    "cfg.data_dir": "photos",
    "cfg.classes": "classes",
    "cfg.part": "part",
    "cfg.write_path": "out file",
    "profile.protocol": "name",
    "profile.loaders": "name",
    "profile.photos": "photos",
    "profile.dataset": "beton",
    "profile.val_photos": "photos",
    "profile.val_dataset": "beton",
    "profile.encodings": "name",
    "profile.cache": "out folder",
    "profile.workers_sweep": "name",
    "profile.stages": "stages",
    "profile.trainer": "trainer",
    "profile.config": "recipe",
    "profile.runs": "runs",
    "profile.title": "any",
    "profile.out": "out folder",
    "bench.photos": "photos",
    "bench.out": "out file",
    "bench.work": "out folder",
    "bench.folder": "out folder",
    "bench.only": "name",
    "bench.chains": "name",
    "data.cache": "out folder",
    "bench.dataset": "beton",
    "bench.datasets": "beton",
    "bench.stages": "stages",
    "bench.modes": "any",
    "bench.sizes": "any",
    "bench.loaders": "any",
    "data.plugins": "plugins",
    "bench.parts": "name",
    "bench.tests": "any",
    "logging.sinks": "sinks",
    "bench.recipe": "recipe",
    "soak.datasets": "beton",
    "soak.out": "out file",
    "soak.loader": "name",
}
# What must be given with a parameter, so that it is used
WITH = {
    "distillation.teacher": {"distillation.mode": "hard"},
    "distillation.teacher_weights": {"distillation.mode": "hard", "distillation.teacher": "timm:test_vit"},
    "data.cache": {"data.train_dataset": "http://127.0.0.1:9/a.beton"},
    "dist.address": {"training.distributed": 1, "dist.world_size": 2},
    "profile.val_photos": {"profile.protocol": "train", "profile.loaders": "torch"},
    "profile.val_dataset": {"profile.protocol": "train"},
    "profile.photos": {"profile.loaders": "torch"},
    "profile.cache": {"profile.loaders": "torch", "profile.encodings": "resized"},
    "profile.trainer": {"profile.protocol": "train"},
    "profile.config": {"profile.protocol": "train"},
}
STAGES = [
    "", "|", " ", "rrc", "rrc()", "rrc(", "rrc)", "rrc(32", "rrc(32)|", "|rrc(32)", "rrc(32)||flip", "rcc(32)",
    "RRC(32)", "flip|rrc(32)", "rrc(32)|center(32)", "rrc(32)|normalize|flip", "rrc(32)|normalize|normalize",
    "flip|normalize", "normalize", "rrc(32)|erase(0.25)", "rrc(abs(32))", "rrc(32, 32, 32, 32)",
    "rrc(size=32, size=32)", "rrc(32, **{})", "rrc(32, *[1])", "rrc(-1)", "rrc(0)", "rrc(1.5)", "rrc('32')",
    "rrc(True)", "rrc(None)", "rrc(1e400)", "rrc(16385)", "rrc(1000000000000000000)", f"rrc({'9' * 5000})",
    "rrc(32, scale=2)", "rrc(32, scale=(0, 1))", "rrc(32, nonsense=1)", "rrc(32, scale=(0.5, 0.1))",
    "rrc(32, ratio=(1, inf))", "rrc(32, interpolation='nearest')", "rrc(32).flip", "rrc[32]", "rrc(32)|flip(2)",
    "rrc(32)|flip('a')", "rrc(32)|flip([])", "rrc(32)|normalize((1, 2))", "rrc(32); flip", "lambda: 1",
    "rrc(32)|translate(-1)", "rrc(32)|cutout(33)", "rrc(32)|cutout(1, 256)", "rrc(32)|cutout(1, (1, 2))",
    "src(32, fill='red')",
    "rrc(32)|randaugment('nonsense')", "rrc(32)|randaugment(1)", "rrc(32)|jitter(-1, 0, 0)", "rrc(32)|blur('x')",
    "rrc(32)|normalize|erase(-1)", "rrc(32)|solarize(1e9)", "__import__('os')", "rrc({x})", "{res}", "rrc(32)\n|x",
    "rrc(" + "(" * 5000, "rrc(" + "-" * 5000 + "1)", "rrc(32)" + "|flip(" * 3, LONG, "½", "rrc(३)", "#",
    "rrc(32)|#",
]  # fmt: skip


def nonsense(role: str, place, betons, photo_folder) -> list:
    """Values that parsing takes, for what is no such thing."""
    jpeg = next(photo_folder.rglob("*.jpg"))
    nowhere = ["missing", place / "missing/below", place / "file.yaml/below", place / "loop", "/dev/null/x", "~"]
    if role == "name":
        names = ["nonsense", "", " ", "..", "../beton", ".beton", "__init__", "beton,", "Beton", "ffcv_stock", "a\nb"]
        return [*names, "a.b.c", "a..b", "beton.py", "os.path", LONG]
    if role == "part":
        return [
            "nonsense",
            " ",
            "3",
            "0/8",
            "9/8",
            "1/0",
            "-1/8",
            "1/2/3",
            "1.5/2",
            "a/b",
            "½/2",
            f"1/{9 * 10**6}",
            LONG,
        ]
    if role == "classes":
        return ["nonsense", " ", ",", "missing/names.txt", place, LONG]
    if role == "plugins":
        return [*nowhere, place, jpeg, place / "file.yaml", place / "zeros.pt", betons["train"], "/dev/null/x.py", "os"]
    if role == "sinks":
        return ["nonsense", " ", "tensorboard,nonsense", "Tensorboard", "wandb.x", LONG]
    if role == "model":
        names = ["", " ", "resnet19", "RESNET18", "timm:", "timm:resnet19", "timm:timm:test_vit", "timm:test_vit.x"]
        return [*names, LONG, "timm:test_vit\n", "os.system", "timm:hf-hub:a/b", "alexnet "]
    if role == "stages":
        return STAGES
    if role == "address":
        return ["", "nowhere.invalid", "1.2.3.4.5", "256.1.1.1", "192.0.2.1", LONG, "a..b", "ü" * 100, "local host"]
    if role == "taken":
        return ["taken", ".", "..", "taken/../taken", "../file.yaml", "../file.yaml/x", "/proc/x", "/dev/null"]
    if role == "beton":
        return [*nowhere, place, jpeg, place / "file.yaml", "/dev/null", "/dev/zero", place / "zeros.pt", photo_folder]
    if role == "photos":
        folders = [place / "empty", place / "empty_classes", place]  # in the last one is a link to itself
        return [*nowhere, jpeg, place / "file.yaml", betons["train"], *folders]
    files = [place / name for name in ("foreign.pt", "timm.pt", "tensor.pt", "numbers.pt", "list.pt", "module.pt")]
    files += [place / "zeros.pt", place / "empty.pt", place / "file.yaml", jpeg, betons["train"], "/dev/null"]
    if role == "weights":
        return [*nowhere, *files, place]
    if role == "checkpoint":
        return [*nowhere, *files, place, place / "empty"]
    if role == "out folder":
        return [place / "file.yaml", place / "file.yaml/below", "/proc/x", "/dev/null", "/dev/null/x", place / "loop"]
    if role == "out file":
        names = [place, place / "missing/x", place / "file.yaml/x", "/proc/x.json", "/dev/null/x", place / "loop/x"]
        return [*names, "/", ".", f"{place}/", place / ("x" * 250 + ".json")]
    if role == "recipe":
        names = ["unknown.yaml", "wrong.yaml", "zeros.pt", "empty"]
        return [*nowhere, *(place / name for name in names), f"{place}/file.yaml,missing.yaml", jpeg, betons["train"]]
    if role == "trainer":
        scripts = ["runtime/config.py", "write_dataset.py", "train_imagenet"]  # no declare(), another one, no .py
        return [*nowhere, *scripts, place, place / "missing.py", place / "file.yaml", place / "zeros.pt", jpeg]
    if role == "runs":
        runs = [place / name for name in ("empty", "no_log", "no_epoch", "not_json")]
        return [*nowhere, *runs, place / "file.yaml", f"{place}/empty,missing"]
    return []


def text_parameters() -> list[tuple[str, str]]:
    found = [(script, *item) for script, config in SCRIPTS.items() for item in parameters(config).items()]
    return [(script, key) for script, key, takes in found if takes in TEXTS]


@pytest.mark.parametrize("script, key", text_parameters())
def test_every_text_and_path(command, script, key, place, betons, photo_folder):
    values = nonsense(ROLES[key], place, betons, photo_folder)
    if script == PROFILE and ROLES[key] == "photos":  # these folders the loader finds, in its process
        values = values[:-3]
    changes = WITH.get(key, {})
    assert not wrong((script, command(script, **changes, **{key: value}), []) for value in values)


def test_paths_where_one_may_not_look(command, place, betons, monkeypatch):
    locked, stat = place / "file.yaml/locked", os.stat

    def refusing(path, *more, **options):
        if "locked" in str(path):  # root may look everywhere
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *more, **options)

    monkeypatch.setattr(os, "stat", refusing)
    cases = []
    for script, key in text_parameters():
        if parameters(SCRIPTS[script])[key] != "a string" and ROLES[key] != "taken":
            changes = {**WITH.get(key, {}), key: locked}
            cases.append((script, command(script, **changes), ["file.yaml"]))
    cases += [(WRITE, [name, str(locked)], ["locked"]) for name in ("check", "info", "preview")]
    cases += [(WRITE, ["preview", str(betons["val"]), f"{locked}/a.png"], ["locked"])]
    cases += [(WRITE, ["compare", str(betons["val"]), str(locked)], ["locked"])]
    assert not wrong(cases)
