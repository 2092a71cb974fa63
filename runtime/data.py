"""The loaders of a run: the training loader of an epoch, and the validation loader."""

import dataclasses

import torch

from pipelines.loaders import Task, open_loader
from runtime.launch import Place
from runtime.precision import Precision


class Data:
    """Opens loaders as the settings say; a training loader stays open until the stages change."""

    def __init__(self, settings, place: Place, precision: Precision):
        self._settings, self._open, self._open_stages = settings, None, None
        data = settings.data
        self._task = Task(
            dataset=data.train_dataset,
            stages="",
            batch_size=settings.training.batch_size,
            workers=data.num_workers,
            seed=settings.training.seed,
            rank=place.rank,
            world_size=place.world_size,
            device=str(place.device),
            dtype=precision.dtype if place.device.type == "cuda" and precision.dtype else torch.float32,
            in_memory=bool(data.in_memory),
            repeats=settings.training.repeats,
            on_error=data.on_error,
            verify=bool(data.verify),
        )

    def training(self, epoch: int, resolution: int, start: int = 0):
        """The loader whose next iteration is `epoch` from batch `start` on, for images of `resolution` pixels.

        `start` is for the first call alone.
        """
        stages = self._settings.data.train_stages.replace("{res}", str(resolution))
        if stages != self._open_stages:
            self.close()
            task = dataclasses.replace(self._task, stages=stages, epoch=epoch, start=start)
            self._open, self._open_stages = open_loader(self._settings.data.loader, task), stages
        return self._open

    def validation(self):
        """A loader that yields every validation photo of this rank's share once."""
        validation = self._settings.validation
        stages = self._settings.data.val_stages.replace("{res}", str(validation.resolution))
        task = dataclasses.replace(
            self._task,
            dataset=self._settings.data.val_dataset,
            stages=stages.replace("{ratio}", str(validation.crop_ratio)),
            batch_size=validation.batch_size,
            shuffle=False,
            repeats=1,
            drop_last=False,
            # A photo that counts twice would make the accuracy wrong; val_images says how many were counted
            on_error="skip" if self._task.on_error == "substitute" else self._task.on_error,
        )
        return open_loader(self._settings.data.loader, task)

    def close(self) -> None:
        """Close the training loader, if one is open."""
        if self._open is not None:
            self._open.close()
            self._open = self._open_stages = None
