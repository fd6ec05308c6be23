"""The batches that a recipe makes of --data, as the command of training loads them."""

from dcgan import train


def load_batches(preset, data):
    return train.batches_of(preset, train.load_images(preset, data))
