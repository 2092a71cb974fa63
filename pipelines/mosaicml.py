"""MosaicML streaming: photos in MDS shards, Pillow, torchvision's transforms, a DataLoader."""

from functools import partial

from beton.format.photo_files import to_rgb
from pipelines._peer import StreamPeer, write_classes


def _transformed(transform, collate, samples: list[dict]) -> tuple:
    return collate([(transform(to_rgb(sample["image"])), sample["label"]) for sample in samples])


class Mosaicml(StreamPeer):
    """streaming.StreamingDataset, with the transform where a worker collates its batch."""

    needs = {"streaming": "mosaicml-streaming", "torchvision": "torchvision"}
    reads = "mosaicml"

    @classmethod
    def make(cls, photos, folder):
        """Shards of 64 MiB, the default; not compressed, as JPEGs are already."""
        from streaming import MDSWriter

        with MDSWriter(out=str(folder), columns={"image": "bytes", "label": "int"}, progress_bar=False) as out:
            for index in range(len(photos)):
                data, label = photos.read(index)
                out.write({"image": data, "label": label})
        write_classes(folder, photos)

    def loader(self, transform, collate):
        """Its shuffling is `py1e`, the default, with a seed."""
        from streaming import StreamingDataLoader, StreamingDataset

        task, size = self.task, self.task.batch_size
        photos = StreamingDataset(local=str(self.folder), batch_size=size, shuffle=task.shuffle, shuffle_seed=task.seed)
        both = partial(_transformed, transform, collate)
        return StreamingDataLoader(
            photos, batch_size=size, collate_fn=both, drop_last=task.drop_last, **self.worker_options()
        )


PIPELINE = Mosaicml
