"""LitData: photos in chunks that optimize() writes, Pillow, torchvision's transforms, its StreamingDataLoader."""

from functools import partial

from beton.format.photo_files import to_rgb
from pipelines._peer import StreamPeer, write_classes


def _sample(photos, index: int) -> dict:
    data, label = photos.read(index)
    return {"image": data, "label": label}


def _labelled(transform, sample: dict) -> tuple:
    return transform(to_rgb(sample["image"])), sample["label"]


class LitData(StreamPeer):
    """litdata.StreamingDataset."""

    needs = {"litdata": "litdata", "torchvision": "torchvision"}
    reads = "litdata"

    @classmethod
    def make(cls, photos, folder):
        """Chunks of 64 MB, as in its examples."""
        import litdata

        litdata.optimize(
            partial(_sample, photos), list(range(len(photos))), str(folder), chunk_bytes="64MB", num_workers=1,
            reorder_files=False, keep_data_ordered=True, verbose=False,
        )  # fmt: skip
        write_classes(folder, photos)

    def loader(self, transform, collate):
        """Chunks are shuffled, then photos within a chunk."""
        from litdata import StreamingDataLoader, StreamingDataset

        task = self.task
        photos = StreamingDataset(
            str(self.folder), shuffle=task.shuffle, drop_last=False, seed=task.seed,
            transform=partial(_labelled, transform),
        )  # fmt: skip
        return StreamingDataLoader(
            photos, batch_size=task.batch_size, collate_fn=collate, drop_last=task.drop_last, **self.worker_options()
        )


PIPELINE = LitData
