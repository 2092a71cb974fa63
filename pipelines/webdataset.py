"""WebDataset: tar files of photos, decoded by Pillow, torchvision's transforms, batched in worker processes."""

import os

from pipelines._peer import StreamPeer, write_classes

_SHARD_BYTES = 64 << 20  # theirs is 3 GB: with few photos there must be a shard for each worker
_BUFFER = 1000  # photos among which the next one is drawn


def _labelled(sample: tuple) -> tuple:
    return sample[0].convert("RGB"), sample[1]


class WebDataset(StreamPeer):
    """webdataset.WebDataset and WebLoader."""

    needs = {"webdataset": "webdataset", "torchvision": "torchvision"}
    reads = "webdataset"

    @classmethod
    def make(cls, photos, folder):
        """Shards of at most 64 MiB, and at least 16 of them."""
        import webdataset as wds

        per_shard = -(-len(photos) // 16)
        with wds.ShardWriter(str(folder / "%06d.tar"), maxcount=per_shard, maxsize=_SHARD_BYTES, verbose=0) as shards:
            for index in range(len(photos)):
                data, label = photos.read(index)
                ending = os.path.splitext(photos.name(index))[1].lower().lstrip(".")
                shards.write({"__key__": f"{index:09d}", "jpg" if ending == "jpeg" else ending: data, "cls": label})
        write_classes(folder, photos)

    def loader(self, transform, collate):
        """Shards are shuffled, then photos within a buffer."""
        import webdataset as wds

        task, shards = self.task, sorted(map(str, self.folder.glob("*.tar")))
        photos = wds.WebDataset(shards, shardshuffle=len(shards) if task.shuffle else False, seed=task.seed)
        if task.shuffle:
            photos = photos.shuffle(_BUFFER)
        photos = photos.decode("pil").to_tuple("jpg;png;webp;bmp;tif;tiff;ppm;pgm", "cls").map(_labelled)
        photos = photos.map_tuple(transform, int)
        photos = photos.batched(task.batch_size, collation_fn=collate, partial=not task.drop_last)
        return wds.WebLoader(photos, batch_size=None, **self.worker_options())

    def release(self):
        """End the worker processes, of the DataLoader within the WebLoader."""
        from pipelines.torch import end_workers

        end_workers(self._loader.pipeline[0])


PIPELINE = WebDataset
