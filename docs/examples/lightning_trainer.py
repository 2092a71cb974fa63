"""Lightning: python docs/examples/lightning_trainer.py train.beton runs/lightning [resume]"""

import sys

import lightning
import timm
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import beton


class Classifier(lightning.LightningModule):
    def __init__(self, path, arch, size, batch_size):
        super().__init__()
        self.path, self.size, self.batch_size = path, size, batch_size
        with beton.open(path) as file:
            self.model = timm.create_model(arch, num_classes=len(file.classes))

    def train_dataloader(self):
        stages, rank, world_size = f"rrc({self.size})|flip|normalize", self.trainer.global_rank, self.trainer.world_size
        share = {"rank": rank, "world_size": world_size, "device": self.trainer.strategy.root_device}
        return beton.Loader(self.path, self.batch_size, image=stages, drop_last=True, **share)

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.model(batch.image), batch.label)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def train(path, folder, resume=False, arch="resnet18", size=224, batch_size=64, epochs=16, every=500):
    checkpoints = ModelCheckpoint(folder, "step-{step}", every_n_train_steps=every, save_last=True)
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=[checkpoints], logger=False)
    trainer.fit(Classifier(path, arch, size, batch_size), ckpt_path=f"{folder}/last.ckpt" if resume else None)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], resume="resume" in sys.argv[3:])
