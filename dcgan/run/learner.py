"""The networks of a run, and all that their next step depends on: what a checkpoint holds."""

from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn

from .. import latent, models
from ..data.batches import Batches
from ..data.feed import Feed
from ..errors import UserError
from ..recipe.preset import Preset
from ..steps import RULES, Gan, StepResult
from . import checkpoint
from .checkpoint import Checkpoint
from .ema import WeightAverage

# Streams of the run's seed, besides stream 0, which the engine draws weights and dropout from, and those
# in outputs.py.
NOISE_STREAM, DATA_STREAM = 1, 2


class Learner:
    """The networks of a recipe, with the images that they learn from. It writes no files.

    Args:
        preset: the recipe. Its seed becomes that of the engine.
        batches: the images.
        device: "cpu" or "gpu".
        graph: whether the steps on a GPU are captured as one CUDA graph (`minigrad.capture`).

    Attributes:
        gan: the networks and their optimizers.
        rule: the recipe's step.
        feed: the batch of each step, on the device.
        step: does the next step, for a number of images, and returns its result; `count_step` counts it.
        noise: the random generator of z.
        average: the running average of the generator's weights; None where the recipe has none.
        sampler: the generator that samples are drawn with, which is the averaged one where there is one.
        images: the fingerprint of the images.
        done: steps so far.
    """

    def __init__(self, preset: Preset, batches: Batches, device: str, graph: bool = False) -> None:
        mg.manual_seed(preset.seed)
        self.preset, self.batches, self.device = preset, batches, device
        self.images = batches.fingerprint()
        generator, discriminator = (network.to(device) for network in models.build(preset))
        self.feed = Feed(batches, device)
        self.noise = mg.Generator(preset.seed, NOISE_STREAM)
        self.gan = Gan.of(
            preset, generator, discriminator, lambda n: latent.draw(preset, n, self.noise, device)
        )
        self.rule = RULES[preset.step]
        self.average = WeightAverage(generator, preset.ema_decay) if preset.ema_decay else None
        self.sampler = generator if self.average is None else self.average.average
        self.done = 0
        averages = [] if self.average is None else [self.average.average]
        self.step: Callable[[int], StepResult] = (
            mg.capture(self._step, modules=averages) if graph else self._step
        )

    def _step(self, images: int) -> StepResult:
        """Do the next step, of so many images. Only what `minigrad.capture` allows is done here."""
        return self.step_on(self.feed.batch_of(lambda: self.done + 1, images))

    def step_on(self, real: mg.Tensor) -> StepResult:
        """Do a step on a batch of images, uncaptured, and take its weights into the average."""
        result = self.rule(self.gan, real)
        if self.average is not None:
            self.average.update()
        return result

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The two networks that are trained, by name."""
        return {"generator": self.gan.generator, "discriminator": self.gan.discriminator}

    def next_batch(self) -> mg.Tensor:
        """Return the images of the next step, on the device."""
        return self.feed.batch_of(lambda: self.done + 1, self.batches.count(self.done + 1))

    def count_step(self) -> None:
        """Count a step that was done."""
        self.done += 1

    def start_from(self, saved: Checkpoint) -> None:
        """Begin with the weights of both networks of a checkpoint, which `check_weights` has checked.

        The optimizers, the noise and the count of steps begin anew.
        """
        for name, network in self.networks.items():
            network.load_state_dict(saved.under(name))
        if self.average is not None:
            self.average.restart()

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint of the same recipe: all is as it was after its step.

        Raises UserError where it was made on other images, or its tensors do not fit.
        """
        if saved.images and not self.batches.matches(saved.images):
            raise UserError(
                f"the run was trained on other images ({saved.images.split(',')[0]}) than these "
                f"({len(self.batches.images)}): name the same ones by --data, with the same --range"
            )
        try:
            self.gan.generator.load_state_dict(saved.under("generator"))
            self.gan.discriminator.load_state_dict(saved.under("discriminator"))
            self.gan.optimizer_g.load_state_dict(saved.under("optimizer_g"))
            self.gan.optimizer_d.load_state_dict(saved.under("optimizer_d"))
            if self.average is not None:
                self.average.average.load_state_dict(saved.under("generator_ema"))
            random = saved.under("rng")
            mg.random.set_state(checkpoint.generator_state(random["engine"]))
            self.noise.state = checkpoint.generator_state(random["noise"])
        except (KeyError, ValueError) as error:
            raise UserError(f"the checkpoint does not fit its recipe: {error}") from error
        self.done = saved.position["step"]
        if self.average is not None:
            self.average.steps = self.done

    def position(self) -> dict[str, int]:
        """Return the steps so far, and the epoch of the last one, as a checkpoint has them."""
        return {"step": self.done, "epoch": self.batches.epoch_of(max(self.done, 1))}

    def state_dicts(self) -> dict[str, dict[str, Any]]:
        """Return what `restore` reads, by the prefixes of a checkpoint's keys."""
        parts: dict[str, dict[str, Any]] = {
            "generator": dict(self.gan.generator.state_dict()),
            "discriminator": dict(self.gan.discriminator.state_dict()),
            "optimizer_g": self.gan.optimizer_g.state_dict(),
            "optimizer_d": self.gan.optimizer_d.state_dict(),
            "rng": {
                "engine": checkpoint.random_state(mg.random.current()),
                "noise": checkpoint.random_state(self.noise),
            },
        }
        if self.average is not None:
            parts["generator_ema"] = dict(self.average.average.state_dict())
        return parts


def check_weights(what: str, saved: Checkpoint, generator: nn.Module, discriminator: nn.Module) -> None:
    """Raise UserError if the weights of a checkpoint do not fit two networks, or are not finite.

    Args:
        what: names the checkpoint, for the message.
    """
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        given, own = saved.under(name), network.state_dict()
        for key in dict.fromkeys((*own, *given)):
            shapes = [state[key].shape if key in state else "nothing" for state in (given, own)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"{what}: its {name} does not fit the recipe: {key} is {shapes[0]} there and {shapes[1]} "
                    "here; leave --preset and --set out, or change no layer that learns"
                )
        if not all(np.isfinite(array).all() for array in given.values()):
            raise UserError(f"{what}: its {name} has weights that are not finite: that run diverged")
