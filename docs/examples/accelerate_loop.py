"""Accelerate: accelerate launch docs/examples/accelerate_loop.py train.beton runs/accelerate [resume]"""

import sys

import timm
import torch
from accelerate import Accelerator

import beton


def train(path, folder, resume=False, arch="resnet18", size=224, batch_size=64, epochs=16, every=500):
    accelerator = Accelerator()
    loader = beton.Loader(
        path, batch_size, image=f"rrc({size})|flip|normalize", drop_last=True, device=accelerator.device,
        rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    model = timm.create_model(arch, num_classes=len(loader.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(loader)  # not prepared: it takes its share of each epoch itself
    if resume:
        accelerator.load_state(folder)
    for _ in range(loader.epoch, epochs):
        for images, labels in loader:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            if loader.state_dict()["batch"] % every == 0:
                accelerator.save_state(folder)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], resume="resume" in sys.argv[3:])
