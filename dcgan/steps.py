"""The update rules of a GAN: one step each, to be read beside the paper.

Source: Goodfellow et al., "Generative adversarial nets" (2014), algorithm 1, with the generator's
loss of section 3 (maximise log D(G(z)), not minimise log(1 - D(G(z)))).

`backward(inputs=...)` computes only what the named parameters need: in the discriminator's half no
gradient of the images or of G, in the generator's half no gradient of D's parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import minigrad as mg
from minigrad import nn, optim

from .losses import LOSSES, Loss


class Recipe(Protocol):
    """The fields of a recipe that `Gan.of` reads; `dcgan.recipe.preset.Preset` has them all."""

    @property
    def batch_size(self) -> int: ...
    @property
    def loss(self) -> str: ...
    @property
    def lr_generator(self) -> float: ...
    @property
    def lr_discriminator(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...
    @property
    def adam_epsilon_hat(self) -> bool: ...


@dataclass
class Gan:
    """The networks and optimizers that a step works on; `noise(n)` draws z for n images."""

    generator: nn.Module
    discriminator: nn.Module
    optimizer_g: optim.Adam
    optimizer_d: optim.Adam
    noise: Callable[[int], mg.Tensor]
    batch_size: int
    loss: Loss = LOSSES["bce_with_logits"]

    @classmethod
    def of(
        cls,
        preset: Recipe,
        generator: nn.Module,
        discriminator: nn.Module,
        noise: Callable[[int], mg.Tensor],
    ) -> "Gan":
        """Return what the steps of a recipe work on, with its loss, its batch size and two new Adams.

        The Adams hold the networks' parameters as they are: move the networks to their device first.
        """
        return cls(
            generator,
            discriminator,
            _adam(preset, generator, preset.lr_generator),
            _adam(preset, discriminator, preset.lr_discriminator),
            noise,
            preset.batch_size,
            LOSSES[preset.loss],
        )


def _adam(preset: Recipe, network: nn.Module, lr: float) -> optim.Adam:
    betas = (preset.beta1, preset.beta2)
    return optim.Adam(network.parameters(), lr, betas, preset.adam_eps, epsilon_hat=preset.adam_epsilon_hat)


@dataclass
class StepResult:
    """Scalars of one step, still on the device.

    Attributes:
        loss_d, loss_g: the two losses, as they were differentiated.
        d_x: the mean of D(x) on the real images, as a probability.
        d_g_z1, d_g_z2: the mean of D(G(z)) in the first half of the step, before any update,
            and in the second, after the first player's.
    """

    loss_d: mg.Tensor
    loss_g: mg.Tensor
    d_x: mg.Tensor
    d_g_z1: mg.Tensor
    d_g_z2: mg.Tensor


def fresh_noise(gan: Gan, real: mg.Tensor) -> StepResult:
    """Flux's step: D on fakes of one z, then G on a forward pass of its own with another.

    D's fakes come from G in eval mode (running statistics), since in Flux only the gradient call
    is training. There are `batch_size` of them on a partial batch of real images too.
    """
    gan.generator.eval()
    with mg.no_grad():
        fake = gan.generator(gan.noise(gan.batch_size))
    gan.generator.train()
    cost_real, cost_fake, on_real, on_fake = update_discriminator(gan, real, fake)
    loss_g, judged = update_generator(gan, gan.generator(gan.noise(gan.batch_size)))
    return step_result(gan, cost_real + cost_fake, loss_g, on_real, on_fake, judged)


def same_fakes(gan: Gan, real: mg.Tensor) -> StepResult:
    """PyTorch's tutorial's step: the fakes that D has just learned from are G's turn too.

    G runs forward once. D sees its images cut off from the graph, is updated, and then judges
    the same images with the graph, for G's gradients.
    """
    fake = gan.generator(gan.noise(len(real)))
    cost_real, cost_fake, on_real, on_fake = update_discriminator(gan, real, fake.detach())
    loss_g, judged = update_generator(gan, fake)
    return step_result(gan, cost_real + cost_fake, loss_g, on_real, on_fake, judged)


def generator_first(gan: Gan, real: mg.Tensor) -> StepResult:
    """The TensorFlow document's step: G, then D on the same z, its fakes made again by the new G.

    The losses are those before both updates. D has not moved when its own half begins, so that (but for what
    a Dropout drops) what it says of the real images then is what it would have said before: it runs on them
    once.
    """
    z = gan.noise(len(real))
    loss_g, before = update_generator(gan, gan.generator(z))
    with mg.no_grad():
        cost_before = gan.loss.cost(before, 0.0)
        fake = gan.generator(z)
    cost_real, _, on_real, after = update_discriminator(gan, real, fake)
    return step_result(gan, cost_real + cost_before, loss_g, on_real, before, after)


# Layers that treat each image of a batch by itself. Of others nothing is known; BatchNorm does not.
IMAGE_BY_IMAGE: tuple[type[nn.Module], ...] = (
    nn.Sequential,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Dense,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Dropout,
    nn.Flatten,
    nn.Reshape,
)


def judges_image_by_image(discriminator: nn.Module) -> bool:
    """Whether what D says of an image is independent of the others in its batch."""
    return all(type(module) in IMAGE_BY_IMAGE for _, module in discriminator.named_modules())


def update_discriminator(
    gan: Gan, real: mg.Tensor, fake: mg.Tensor
) -> tuple[mg.Tensor, mg.Tensor, mg.Tensor, mg.Tensor]:
    """D towards 1 on real images and 0 on fakes: the two losses, and what D said of both.

    A D that judges image by image sees both kinds in one pass: up to rounding, and to which units Dropout
    happens to drop, that makes the numbers of two, by half as many calls. In others, with BatchNorm, the
    two kinds are separate batches, each with its own statistics and a backward pass of its own.
    """
    optimizer, loss = gan.optimizer_d, gan.loss
    optimizer.zero_grad()
    if judges_image_by_image(gan.discriminator):
        on_both = gan.discriminator(mg.concatenate([real, fake]))
        on_real, on_fake = on_both[: len(real)], on_both[len(real) :]
        cost_real, cost_fake = loss.cost(on_real, 1.0), loss.cost(on_fake, 0.0)
        (cost_real + cost_fake).backward(inputs=optimizer.params)
    else:
        on_real = gan.discriminator(real)
        cost_real = loss.cost(on_real, 1.0)
        cost_real.backward(inputs=optimizer.params)
        on_fake = gan.discriminator(fake)
        cost_fake = loss.cost(on_fake, 0.0)
        cost_fake.backward(inputs=optimizer.params)  # adds to the gradients of the real batch
    optimizer.step()
    return cost_real.detach(), cost_fake.detach(), on_real, on_fake


def update_generator(gan: Gan, fake: mg.Tensor) -> tuple[mg.Tensor, mg.Tensor]:
    """G towards images that D takes for real: the loss, and what D said."""
    optimizer = gan.optimizer_g
    optimizer.zero_grad()
    judged = gan.discriminator(fake)
    loss = gan.loss.of_generator(judged)
    loss.backward(inputs=optimizer.params)
    optimizer.step()
    return loss, judged


def step_result(
    gan: Gan, loss_d: mg.Tensor, loss_g: mg.Tensor, on_real: mg.Tensor, first: mg.Tensor, second: mg.Tensor
) -> StepResult:
    """Return the result of a step: its losses, and what D said of real images and of fakes in both halves."""
    with mg.no_grad():
        means = (gan.loss.probability(judged).mean() for judged in (on_real, first, second))
        return StepResult(loss_d.detach(), loss_g.detach(), *means)


Rule = Callable[[Gan, mg.Tensor], StepResult]
RULES: dict[str, Rule] = {
    "fresh_noise": fresh_noise,
    "same_fakes": same_fakes,
    "generator_first": generator_first,
}


# -- the log -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepLine:
    """A line of metrics.jsonl: the scalars of a `StepResult` as numbers, None for what is not finite.

    A scalar that is added to `StepResult` needs a field of its name here.

    Attributes:
        step, epoch: from 1.
    """

    step: int
    epoch: int | None = None
    loss_d: float | None = None
    loss_g: float | None = None
    d_x: float | None = None
    d_g_z1: float | None = None
    d_g_z2: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields, in their order."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the line that a JSON object holds; None for what it lacks, as lines of other versions may.

        Raises ValueError if it has no step, or if any value of it is neither null nor a number below 2^63.
        """
        if not isinstance(value, dict) or type(value.get("step")) is not int:
            raise ValueError("a line that is no step")
        for name, number in value.items():
            if number is not None and not (type(number) in (int, float) and abs(number) < 2**63):
                raise ValueError(f"{name:.40}: no number of a size that is possible")
        values: list[Any] = [value.get(name) for name in _LINE_FIELDS]
        return cls(*values)


_LINE_FIELDS = tuple(field.name for field in fields(StepLine))
