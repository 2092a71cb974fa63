"""Hugging Face's Trainer: torchrun docs/examples/transformers_trainer.py train.beton runs/transformers [resume]"""

import json
import sys
from pathlib import Path

from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

import beton


class BetonTrainer(Trainer):
    def get_train_dataloader(self):
        return self.train_dataset  # the loader

    def compute_loss(self, model, inputs, **_):
        return model(pixel_values=inputs["image"], labels=inputs["label"]).loss


class KeepPosition(TrainerCallback):
    def on_save(self, args, state, control, train_dataloader, **_):
        if state.is_world_process_zero:
            path = Path(args.output_dir, f"checkpoint-{state.global_step}", "loader.json")
            path.write_text(json.dumps(train_dataloader.state_dict()))


def train(path, folder, resume=False, model=None, size=224, batch_size=64, epochs=16, every=500):
    args = TrainingArguments(folder, num_train_epochs=epochs, save_steps=every, ignore_data_skip=True)
    share = {"rank": args.process_index, "world_size": args.world_size, "device": args.device, "as_dict": True}
    loader = beton.Loader(path, batch_size, image=f"rrc({size})|flip|normalize", drop_last=True, **share)
    model = model or ResNetForImageClassification(ResNetConfig(num_labels=len(loader.classes)))
    last = get_last_checkpoint(folder) if resume else None
    if last:
        loader.load_state_dict(json.loads(Path(last, "loader.json").read_text()))
    BetonTrainer(model, args, train_dataset=loader, callbacks=[KeepPosition()]).train(resume_from_checkpoint=last)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], resume="resume" in sys.argv[3:])
