"""Values that parsing takes and that are of no use: one line, status 2, and nothing is left behind.

`ROLES` says what each text of a script is; for each role there is nonsense below. A parameter that is not here fails.
"""

import os
import shutil
import subprocess

import pytest
import torch
from nonsense import LONG, declared, options, parameters, wrong

SCRIPTS = declared()
TEXTS = ("a string", "a path", "paths with commas between")
IMAGENET, TRANSFORMERS, WRITE, PROFILE = (
    "train_imagenet.py", "train_transformers.py", "write_dataset.py", "profile_loaders.py",
)  # fmt: skip
AGAINST, FORMATS, MODES, SOAK = (
    f"benchmarks/{name}.py" for name in ("against_ffcv", "block_formats", "storage_modes", "soak")
)
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
    "distillation.teacher": "model",
    "distillation.teacher_weights": "weights",
    "logging.folder": "out folder",
    "logging.name": "taken",
    "dist.address": "address",
    "cfg.dataset": "name",
    "cfg.data_dir": "photos",
    "cfg.write_path": "out file",
    "profile.protocol": "name",
    "profile.loaders": "name",
    "profile.photos": "photos",
    "profile.dataset": "beton",
    "profile.val_photos": "photos",
    "profile.val_dataset": "beton",
    "profile.stages": "stages",
    "profile.config": "recipe",
    "profile.runs": "runs",
    "profile.title": "any",
    "profile.out": "out folder",
    "bench.photos": "photos",
    "bench.out": "out file",
    "bench.work": "out folder",
    "bench.only": "name",
    "bench.recipe": "recipe",
    "soak.datasets": "beton",
    "soak.out": "out file",
    "soak.loader": "name",
}
# What must be given with a parameter, so that it is used
WITH = {
    "distillation.teacher": {"distillation.mode": "hard"},
    "distillation.teacher_weights": {"distillation.mode": "hard", "distillation.teacher": "timm:test_vit"},
    "dist.address": {"training.distributed": 1, "dist.world_size": 2},
    "profile.val_photos": {"profile.protocol": "train", "profile.loaders": "torch"},
    "profile.val_dataset": {"profile.protocol": "train"},
    "profile.photos": {"profile.loaders": "torch"},
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
    "rrc(32)|flip('a')", "rrc(32)|flip([])", "rrc(32)|normalize(1)", "rrc(32); flip", "lambda: 1",
    "rrc(32)|randaugment('nonsense')", "rrc(32)|randaugment(1)", "rrc(32)|jitter(-1, 0, 0)", "rrc(32)|blur('x')",
    "rrc(32)|normalize|erase(-1)", "rrc(32)|solarize(1e9)", "__import__('os')", "rrc({x})", "{res}", "rrc(32)\n|x",
    "rrc(" + "(" * 5000, "rrc(" + "-" * 5000 + "1)", "rrc(32)" + "|flip(" * 3, LONG, "½", "rrc(३)", "#",
    "rrc(32)|#",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, betons, photo_folder):
    """A folder of files and folders that are of no use; `work` in it is for what is written."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "empty").mkdir()
    (folder / "empty_classes" / "a").mkdir(parents=True)
    (folder / "work" / "taken").mkdir(parents=True)
    (folder / "file.yaml").write_text("training: {epochs: 3}\n")
    (folder / "unknown.yaml").write_text("training: {epohcs: 3}\n")
    (folder / "wrong.yaml").write_text("training: {epochs: many}\n")
    (folder / "loop").symlink_to(folder / "loop")
    torch.save({"weights": torch.zeros(3)}, folder / "foreign.pt")
    torch.save({"state_dict": {"a": torch.zeros(3)}, "epoch": 3}, folder / "timm.pt")
    torch.save({"model": torch.zeros(3)}, folder / "tensor.pt")
    torch.save({"model": 3, "optimizer": 4, "version": 2}, folder / "numbers.pt")
    torch.save([torch.zeros(3)], folder / "list.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    (folder / "zeros.pt").write_bytes(bytes(100_000))
    (folder / "empty.pt").touch()
    for name, log in (("no_log", None), ("no_epoch", "{}\n"), ("not_json", "abc\n")):
        (folder / name).mkdir()
        (folder / name / "params.json").write_text("{}")
        if log:
            (folder / name / "log.jsonl").write_text(log)
    return folder


def nonsense(role: str, place, betons, photo_folder) -> list:
    """Values that parsing takes, for what is no such thing."""
    jpeg = next(photo_folder.rglob("*.jpg"))
    nowhere = ["missing", place / "missing/below", place / "file.yaml/below", place / "loop", "/dev/null/x", "~"]
    if role == "name":
        return ["nonsense", "", " ", "..", "../ffcv", "__init__", "ffcv,", "Ffcv", "a\nb", "ffcv.py", LONG]
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
    if role == "runs":
        runs = [place / name for name in ("empty", "no_log", "no_epoch", "not_json")]
        return [*nowhere, *runs, place / "file.yaml", f"{place}/empty,missing"]
    return []


def base(script: str, place, betons, photo_folder) -> dict:
    """A command line that works, and soon."""
    train = {
        "data.train_dataset": betons["train"], "data.val_dataset": betons["val"], "data.num_workers": 1,
        "data.in_memory": 1, "training.batch_size": 60, "training.epochs": 1, "training.precision": "none",
        "validation.batch_size": 41, "validation.resolution": 32, "logging.folder": place / "work",
        "logging.name": "run",
    }  # fmt: skip
    return {
        IMAGENET: train | {"model.arch": "timm:test_resnet", "resolution.min_res": 32, "resolution.max_res": 32},
        TRANSFORMERS: train | {"model.arch": "timm:test_vit", "model.img_size": 32, "data.resolution": 32},
        WRITE: {"cfg.data_dir": photo_folder / "val", "cfg.split": "val", "cfg.write_path": place / "work/a.beton"},
        PROFILE: {
            "profile.photos": photo_folder / "train", "profile.dataset": betons["train"], "profile.loaders": "ffcv",
            "profile.val_photos": photo_folder / "val", "profile.val_dataset": betons["val"],
            "profile.config": place / "file.yaml", "profile.out": place / "work",
        },
        AGAINST: {"bench.photos": photo_folder / "val", "bench.out": place / "work/a.json"},
        FORMATS: {"bench.photos": photo_folder / "val", "bench.out": place / "work/a.json"},
        MODES: {"bench.photos": photo_folder, "bench.out": place / "work/a.json"},
        SOAK: {"soak.datasets": betons["val"], "soak.out": place / "work/a.json", "soak.minutes": 0.01},
    }[script]  # fmt: skip


def command(script, place, betons, photo_folder, **changes) -> list[str]:
    """The command line of `base` with changes, __ for the dot; None leaves one out."""
    told = base(script, place, betons, photo_folder)
    told |= {key.replace("__", "."): value for key, value in changes.items()}
    return options({key: value for key, value in told.items() if value is not None})


class WentOn(Exception):
    """The script has taken the nonsense and begun its work in other processes."""


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    popen = subprocess.Popen

    def went_on(words, *more, **options):
        if words[0] == "uname":  # Python's own, for platform.processor()
            return popen(words, *more, **options)
        raise WentOn(words)

    monkeypatch.setattr(subprocess, "Popen", went_on)
    monkeypatch.setattr(torch.multiprocessing, "spawn", went_on)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # Not the machine's: it may have any number of both
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def text_parameters() -> list[tuple[str, str]]:
    found = [(script, *item) for script, config in SCRIPTS.items() for item in parameters(config).items()]
    return [(script, key) for script, key, takes in found if takes in TEXTS]


@pytest.mark.parametrize("script, key", text_parameters())
def test_every_text_and_path(script, key, place, betons, photo_folder):
    values = nonsense(ROLES[key], place, betons, photo_folder)
    if script == PROFILE and ROLES[key] == "photos":  # these folders the loader finds, in its process
        values = values[:-3]
    changes = WITH.get(key, {})
    cases = [(script, command(script, place, betons, photo_folder, **changes, **{key: v}), []) for v in values]
    assert not wrong(cases)


def test_paths_where_one_may_not_look(place, betons, photo_folder, monkeypatch):
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
            cases.append((script, command(script, place, betons, photo_folder, **changes), ["file.yaml"]))
    cases += [(WRITE, [name, str(locked)], ["locked"]) for name in ("check", "info", "preview")]
    cases += [(WRITE, ["preview", str(betons["val"]), f"{locked}/a.png"], ["locked"])]
    cases += [(WRITE, ["compare", str(betons["val"]), str(locked)], ["locked"])]
    assert not wrong(cases)


@pytest.fixture(autouse=True)
def nothing_is_left(place):
    yield
    left = [path for path in (place / "work").iterdir() if path.name != "taken"]
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not left
