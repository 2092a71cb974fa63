"""SPDL: FFmpeg decodes, crops, resizes and flips in threads of one process, by a filter for each photo."""

import numpy as np
import torch

from beton.errors import UserError
from pipelines._arrays import box, normalize
from pipelines._peer import Peer, as_tensor


class Spdl(Peer):
    """A spdl.pipeline.PipelineBuilder of photos -> frames -> batches."""

    needs = {"spdl": "spdl"}

    def open(self):
        """Open a photo folder; raises UserError, also where FFmpeg's libraries are missing."""
        super().open()
        import spdl.io

        try:
            spdl.io.ImageFrames  # loads them  # noqa: B018
        except (RuntimeError, AttributeError) as error:
            raise UserError("SPDL finds no libraries of FFmpeg here", "apt-get install ffmpeg") from error

    def read(self, epoch, samples, keys, start):
        """The order is the task's; boxes and flips are drawn here, as FFmpeg has no random ones."""
        from spdl.pipeline import PipelineBuilder

        task, workers = self.task, self.task.usable_workers
        rest = keys[start * task.batch_size :].tolist()
        builder = PipelineBuilder().add_source(list(zip(*self.chosen(samples, start), rest, strict=True)))
        builder = builder.pipe(self._frames, concurrency=workers, output_order="input")
        builder = builder.aggregate(task.batch_size, drop_last=task.drop_last).pipe(self._batch).add_sink(2)
        pipeline = builder.build(num_threads=workers, max_failures=0)
        with pipeline.auto_stop():
            yield from pipeline

    def _frames(self, sample: tuple) -> tuple:
        """Decoded, cropped, resized (bilinear) and flipped frames, and the label."""
        import spdl.io

        path, label, key = sample
        draw, want = np.random.default_rng(key), self.recipe
        packets = spdl.io.demux_image(path)
        top, left, rows, columns = box(want, packets.codec.height, packets.codec.width, draw)
        flip = ",hflip" if draw.random() < want.flip else ""
        crop = f"crop={columns}:{rows}:{left}:{top}:exact=1"
        scale = f"scale={want.width}:{want.height}:flags=bilinear"
        return spdl.io.decode_packets(packets, filter_desc=f"{crop},{scale}{flip},format=pix_fmts=rgb24"), label

    def _batch(self, samples: list[tuple]) -> tuple:
        import spdl.io

        images = spdl.io.to_numpy(spdl.io.convert_frames([frames for frames, _ in samples]))
        images = normalize(self.recipe, images) if self.recipe.mean else images
        return as_tensor(images), torch.tensor([label for _, label in samples])


PIPELINE = Spdl
