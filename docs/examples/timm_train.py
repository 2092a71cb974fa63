"""timm's own train.py on betons: docs/trainers.md has the command, and says what of the script has no effect."""

import runpy
import sys

import timm
import torch

import beton


class Loader(beton.Loader):
    training = position = dataset = sampler = None
    batch_sampler = property(lambda self: self)  # the script calls its set_epoch()


class Saver(timm.utils.CheckpointSaver):
    def _save(self, *given, **options):
        self.args.beton = Loader.training.state_dict()  # a checkpoint holds the script's arguments
        super()._save(*given, **options)


def create_loader(file, input_size, batch_size, is_training, mean, std, num_workers, device, distributed=False, **_):
    rank, ranks = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    crop = f"rrc({input_size[-1]})|flip" if is_training else f"center({input_size[-1]})"
    order = None if is_training else [*range(len(file)), *range(-len(file) % ranks)]  # as many batches in each rank
    share = {"rank": rank, "world_size": ranks, "drop_last": is_training, "order": order, "device": device}
    stages = f"{crop}|normalize(mean={tuple(mean)}, std={tuple(std)})"
    loader = Loader(file.path, batch_size, image=stages, workers=num_workers, **share)
    if is_training:
        Loader.training = loader
        loader.load_state_dict(Loader.position or loader.state_dict())
    return loader


if __name__ == "__main__":
    timm.data.create_dataset = lambda name, root, split, **_: beton.open(f"{root}/{split}.beton")
    timm.data.create_loader, timm.utils.CheckpointSaver = create_loader, Saver
    if "--resume" in sys.argv:
        Loader.position = torch.load(sys.argv[sys.argv.index("--resume") + 1], weights_only=False)["args"].beton
        sys.argv += ["--start-epoch", str(Loader.position["epoch"])]
    sys.argv = [*sys.argv[1:], "--no-prefetcher"]  # it would mix in its own loader
    runpy.run_path(sys.argv[0], run_name="__main__")
