"""The batches that a recipe makes of --data, as the command of training loads them."""

from dcgan.run.images import batches_of, load_images


def load_batches(preset, data):
    return batches_of(preset, load_images(preset, data))
