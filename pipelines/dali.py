"""NVIDIA DALI: decoder, crop and normalisation fused in C++; on a GPU with its JPEG decoder."""

import torch

from pipelines._peer import Peer


class Dali(Peer):
    """A DALI pipeline and DALIGenericIterator, as its ResNet example for PyTorch sets them up."""

    needs = {"nvidia.dali": "nvidia-dali-cuda130"}

    def read(self, epoch, samples, keys, start):
        """The order is the task's: a pipeline for each epoch, so that none works ahead for the next one."""
        from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

        task = self.task
        paths, labels = self.chosen(samples, start)
        pipeline = self._pipeline(paths, labels, seed=int(keys[0]) >> 33)
        policy = LastBatchPolicy.DROP if task.drop_last else LastBatchPolicy.PARTIAL
        batches = DALIGenericIterator(
            pipeline, ["images", "labels"], reader_name="photos", auto_reset=False, last_batch_policy=policy
        )
        for (batch,) in batches:
            yield batch["images"].permute(0, 3, 1, 2), batch["labels"].long().view(-1)

    def _pipeline(self, paths: list[str], labels: list[int], seed: int):
        from nvidia.dali import fn, pipeline_def, types

        task, want = self.task, self.recipe
        decoder = "mixed" if self.on_gpu else "cpu"

        def images(encoded):
            if want.scale is None:
                found = fn.decoders.image(encoded, device=decoder, output_type=types.RGB)
                rows, columns = want.covered
                found = fn.resize(
                    found, resize_x=columns, resize_y=rows, mode="not_smaller", interp_type=types.INTERP_TRIANGULAR
                )
            else:
                found = fn.decoders.image_random_crop(
                    encoded, device=decoder, output_type=types.RGB, random_area=want.scale,
                    random_aspect_ratio=want.ratio, num_attempts=10,
                )  # fmt: skip
                found = fn.resize(found, size=[want.height, want.width], interp_type=types.INTERP_TRIANGULAR)
            normal = {"dtype": types.FLOAT if want.mean else types.UINT8}
            if want.mean:
                normal |= {"mean": [255 * x for x in want.mean], "std": [255 * x for x in want.std]}
            return fn.crop_mirror_normalize(
                found, crop=(want.height, want.width), mirror=fn.random.coin_flip(probability=want.flip),
                output_layout="HWC", **normal,
            )  # fmt: skip

        @pipeline_def(
            batch_size=task.batch_size, num_threads=task.usable_workers, seed=seed,
            device_id=self._device_id(), prefetch_queue_depth=2,
        )  # fmt: skip
        def whole():
            encoded, label = fn.readers.file(files=paths, labels=labels, name="photos", pad_last_batch=False)
            return images(encoded), label

        return whole()

    def _device_id(self) -> int | None:
        return (torch.device(self.task.device).index or 0) if self.on_gpu else None


PIPELINE = Dali
