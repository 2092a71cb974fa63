"""The pipelines of a run: one for training, one for validation."""

import dataclasses
import os

import torch

from beton.format.parts import is_remote, text_of
from beton.loading.base import Pipeline
from beton.loading.task import Task
from beton.plugins import load_file
from pipelines import open_pipeline
from runtime.launch import Rank
from runtime.training.precision import Precision


class Data:
    """Opens pipelines as the settings require."""

    def __init__(self, settings, rank: Rank, precision: Precision):
        self._settings = settings
        self._training: Pipeline | None = None
        data = settings.data
        for path in data.plugins.split(",") if data.plugins else []:
            load_file(path)
        self._task = Task(
            dataset=here(data.train_dataset, data),
            cache=None if data.cache is None else os.path.abspath(data.cache),
            stages={},
            batch_size=settings.training.batch_size,
            workers=data.num_workers,
            seed=settings.training.seed,
            rank=rank.rank,
            world_size=rank.world_size,
            device=str(rank.device),
            dtype=precision.dtype if rank.device.type == "cuda" and precision.dtype else torch.float32,
            in_memory=bool(data.in_memory),
            cache_gb=data.cache_gb,
            repeats=settings.training.repeats,
            on_error=data.on_error,
            verify=bool(data.verify),
            drop_last=True,
            timed=bool(data.timed),
        )

    def training(self, resolution: int) -> Pipeline:
        """The training pipeline for images of `resolution` pixels; it stays open while its stages stay the same."""
        stages = {"image": self._settings.data.train_stages.replace("{res}", str(resolution))}
        if self._training is None or self._training.task.stages != stages:
            self.close()
            task = dataclasses.replace(self._task, stages=stages)
            self._training = open_pipeline(self._settings.data.loader, task)
        return self._training

    def validation(self) -> Pipeline:
        """A new pipeline that yields every validation photo of this rank's share once."""
        validation = self._settings.validation
        stages = self._settings.data.val_stages.replace("{res}", str(validation.resolution))
        task = dataclasses.replace(
            self._task,
            dataset=here(self._settings.data.val_dataset, self._settings.data),
            stages={"image": stages.replace("{ratio}", str(validation.crop_ratio))},
            batch_size=validation.batch_size,
            shuffle=False,
            repeats=1,
            drop_last=False,
            timed=False,
            # A photo that counts twice would make the accuracy wrong; val_images says how many were counted
            on_error="skip" if self._task.on_error == "substitute" else self._task.on_error,
            cache_gb=None,
            with_indices=bool(self._settings.logging.worst or self._settings.logging.predictions),
        )
        return open_pipeline(self._settings.data.loader, task)

    def close(self) -> None:
        """Close the training pipeline, if one is open."""
        if self._training is not None:
            self._training.close()
            self._training = None


def here(dataset: str | None, data) -> str | None:
    """The data set for the loader of section `data`: our own takes URLs, for all others it is fetched first."""
    if dataset is None or data.loader == "beton" or not is_remote(dataset):
        return dataset
    from beton.remote.arrival import fetch

    return text_of(fetch(dataset, data.cache))
