"""The outputs of every layer of a network for some pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn

from .. import latent
from ..losses import LOSSES
from ..pictures import MAX_GRID_WIDTH, to_bytes
from ..recipe.preset import Preset
from ..run.checkpoint import Checkpoint
from ..run.outputs import FIXED_STREAM


@dataclass(frozen=True)
class Look:
    """A layer at work.

    Attributes:
        name: by its place in the network, such as "3".
        given, made: its input and its output, (N, ...), for the pictures that are looked at.
    """

    name: str
    layer: nn.Module
    given: NDArray[Any]
    made: NDArray[Any]


def look(network: nn.Module, x: mg.Tensor, count: int) -> list[Look]:
    """The layers in the order in which they ran on a batch x, each with what it made of its first `count`.

    The network runs in the mode that it is in, without a graph, and is left with its weights, statistics and
    hooks as they were.
    """
    looks: list[Look] = []
    names = {id(module): name for name, module in network.named_modules()}
    layers = [module for _, module in network.named_modules() if not any(module.children())]

    def seen(layer: nn.Module, inputs: tuple[Any, ...], output: mg.Tensor) -> None:
        given, made = (tensor[:count].numpy().copy() for tensor in (inputs[0], output))
        looks.append(Look(names[id(layer)], layer, given, made))

    saved = network.state_dict()
    hooks = [layer.register_forward_hook(seen) for layer in layers]
    try:
        with mg.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
        network.load_state_dict(saved)  # in training mode the running statistics have moved
    return looks


def fixed_z(state: Checkpoint) -> mg.Tensor:
    """The noise of the run's frames (N, *z_shape): the checkpoint's, or as a run of its recipe draws it."""
    preset, kept = state.preset, state.tensors.get("fixed_z")
    if kept is not None and len(kept) and kept.shape[1:] == preset.z_shape and kept.dtype == np.float32:
        return mg.tensor(kept)
    count = preset.grid_rows * preset.grid_columns
    return latent.draw(preset, count, mg.Generator(preset.seed, FIXED_STREAM))


def look_at_generator(generator: nn.Module, preset: Preset, z: mg.Tensor) -> list[Look]:
    """G at work on the first of z, with the statistics of the recipe's samples: "batch" is that of all z."""
    training = generator.training
    generator.train(preset.statistics == "batch" and len(z) > 1)
    looks = look(generator, z, 1)
    generator.train(training)
    return looks


def look_at_discriminator(discriminator: nn.Module, images: NDArray[Any]) -> list[Look]:
    """D at work on images (N, C, H, W), in eval mode, so that each is judged by itself."""
    training = discriminator.training
    discriminator.eval()
    looks = look(discriminator, mg.tensor(images), len(images))
    discriminator.train(training)
    return looks


def words(preset: Preset, looks: list[Look]) -> list[float]:
    """Return D's probability that each picture is real, from its last layer."""
    probability = LOSSES[preset.loss].probability(mg.tensor(looks[-1].made))
    return [float(p) for p in probability.numpy().ravel()]


def first_real(preset: Preset, picture: NDArray[Any]) -> NDArray[Any]:
    """The first image (1, C, H, W), from -1 to 1, of the run's grid of real ones, bytes (H, W, C).

    Raises ValueError where the picture is no such grid: its size and its channels follow from the recipe.
    """
    side, gap = preset.image_size, 2  # pictures.grid
    height, width = (n * (side + gap) + gap for n in (preset.grid_rows, preset.grid_columns))
    times = max(1, MAX_GRID_WIDTH // max(height, width))
    expected = (times * height, times * width, preset.channels)
    if picture.shape != expected:
        raise ValueError(f"a grid of {expected} pixels was expected, not of {picture.shape}")
    tile = picture[::times, ::times][gap : gap + side, gap : gap + side]
    image = tile.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(127.5) - 1  # (1, C, H, W)
    assert np.array_equal(to_bytes(image)[0], tile)
    return image
