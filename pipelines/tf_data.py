"""tf.data: photos in TFRecord files, decoded within the crop's box, as TensorFlow's ImageNet examples do it."""

from pathlib import Path

import numpy as np
import torch

from pipelines._peer import Peer, as_tensor, check, read_classes, recipe, write_classes

_RECORDS = 16  # files
_BUFFER = 10_000  # photos among which the next one is drawn


class TfData(Peer):
    """tf.data.Dataset; its threads are limited to the task's workers."""

    needs = {"tensorflow": "tensorflow-cpu"}
    reads = "tf_data"

    @classmethod
    def make(cls, photos, folder):
        """TFRecord files of JPEGs and labels."""
        import tensorflow as tf

        per_file = -(-len(photos) // _RECORDS)
        for first in range(0, len(photos), per_file):
            with tf.io.TFRecordWriter(str(folder / f"{first:09d}.tfrecord")) as out:
                for index in range(first, min(first + per_file, len(photos))):
                    data, label = photos.read(index)
                    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
                    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
                    features = tf.train.Features(feature={"image": image, "label": label})
                    out.write(tf.train.Example(features=features).SerializeToString())
        write_classes(folder, photos)

    def open(self):
        """Open what make() wrote; raises UserError."""
        check(self.name, self.task)
        self.num_samples, self.classes = read_classes(Path(self.task.dataset), self.name)
        self.recipe = recipe(self.name, self.task)

    def samples(self, epoch, batch):
        """Known only where nothing is shuffled; else none."""
        return np.empty(0, np.int64) if self.task.shuffle else super().samples(epoch, batch)

    def read(self, epoch, samples, keys, start):
        """Its own order: files are shuffled, then photos within a buffer."""
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")  # which are torch's
        task, seed = self.task, int(keys[0]) >> 33
        files = sorted(map(str, Path(self.task.dataset).glob("*.tfrecord")))
        if task.shuffle:
            files = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=seed)
            records = files.interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=tf.data.AUTOTUNE)
            records = records.shuffle(_BUFFER, seed=seed)
        else:
            records = tf.data.TFRecordDataset(files)
        found = records.map(self._example, num_parallel_calls=task.usable_workers)
        found = found.batch(task.batch_size, drop_remainder=task.drop_last).prefetch(2)
        options = tf.data.Options()
        options.threading.private_threadpool_size = task.usable_workers
        for images, labels in found.skip(start).with_options(options):
            yield as_tensor(images.numpy()), torch.from_numpy(labels.numpy())

    def _example(self, record) -> tuple:
        import tensorflow as tf

        features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
        example, want = tf.io.parse_single_example(record, features), self.recipe
        window = self._window(tf.io.extract_jpeg_shape(example["image"]))
        image = tf.io.decode_and_crop_jpeg(example["image"], window, channels=3)
        image = tf.image.resize(image, [want.height, want.width], method="bilinear")
        if want.flip:
            image = tf.cond(tf.random.uniform([]) < want.flip, lambda: tf.reverse(image, [1]), lambda: image)
        if want.mean is None:
            return tf.cast(tf.round(image), tf.uint8), example["label"]
        mean, std = ([255 * x for x in values] for values in (want.mean, want.std))
        return (image - mean) / std, example["label"]

    def _window(self, shape):
        """Top, left, height and width of what is decoded."""
        import tensorflow as tf

        want = self.recipe
        if want.scale:
            everything = tf.zeros([1, 0, 4])
            begin, size, _ = tf.image.sample_distorted_bounding_box(
                shape, everything, area_range=want.scale, aspect_ratio_range=want.ratio, max_attempts=10,
                use_image_if_no_bounding_boxes=True,
            )  # fmt: skip
            return tf.stack([begin[0], begin[1], size[0], size[1]])
        height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
        side = want.share * tf.minimum(height / want.height, width / want.width)
        rows, columns = (tf.cast(tf.round(side * x), tf.int32) for x in (want.height, want.width))
        return tf.stack([(shape[0] - rows) // 2, (shape[1] - columns) // 2, rows, columns])


PIPELINE = TfData
