"""A script of two ranks, of which one fails; with the command line of a trainer."""

from runtime import launch
from runtime.config import parse, run
from tests.support import ranks
from train_imagenet import declare


def main(argv) -> None:
    """Start the ranks."""
    needed = ["--data.train_dataset=t", "--data.val_dataset=v", "--data.num_workers=1", "--data.in_memory=1"]
    launch.run(ranks.one_fails, parse(declare(), [*needed, *argv]))


if __name__ == "__main__":
    run(main)
