"""The update rules of a GAN: one step each, to be read beside the paper.

Source: Goodfellow et al., "Generative adversarial nets" (2014), algorithm 1, with the generator's
loss of section 3 (maximise log D(G(z)), not minimise log(1 - D(G(z)))).

`backward(inputs=...)` computes only what the named parameters need: in the discriminator's half no
gradient of the images or of G, in the generator's half no gradient of D's parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import minigrad as mg
import minigrad.functional as F
from minigrad import nn, optim


@dataclass
class Gan:
    """What a step works on; `noise(n)` draws z for n images."""

    generator: nn.Module
    discriminator: nn.Module
    optimizer_g: optim.Adam
    optimizer_d: optim.Adam
    noise: Callable[[int], mg.Tensor]
    batch_size: int


@dataclass
class StepResult:
    """Scalars of one step, still on the device.

    Attributes:
        loss_d, loss_g: the two losses, as they were differentiated.
        d_x: the mean of D(x) on the real images, as a probability.
        d_g_z1, d_g_z2: the mean of D(G(z)) in the discriminator's half and, after D's
            update, in the generator's.
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
    loss_d, on_real, on_fake = _update_discriminator(gan, real, fake)
    loss_g, judged = _update_generator(gan, gan.generator(gan.noise(gan.batch_size)))
    return _result(loss_d, loss_g, on_real, on_fake, judged)


def same_fakes(gan: Gan, real: mg.Tensor) -> StepResult:
    """PyTorch's tutorial's step: the fakes that D has just learned from are G's turn too.

    G runs forward once. D sees its images cut off from the graph, is updated, and then judges
    the same images with the graph, for G's gradients.
    """
    fake = gan.generator(gan.noise(len(real)))
    loss_d, on_real, on_fake = _update_discriminator(gan, real, fake.detach())
    loss_g, judged = _update_generator(gan, fake)
    return _result(loss_d, loss_g, on_real, on_fake, judged)


def _update_discriminator(
    gan: Gan, real: mg.Tensor, fake: mg.Tensor
) -> tuple[mg.Tensor, mg.Tensor, mg.Tensor]:
    """D towards 1 on real images and 0 on fakes: the loss, and the logits of both.

    The two kinds are separate batches for D, each with its own BatchNorm statistics.
    """
    on_real, on_fake = gan.discriminator(real), gan.discriminator(fake)
    loss = F.binary_cross_entropy_with_logits(on_real, 1.0) + F.binary_cross_entropy_with_logits(on_fake, 0.0)
    _descend(gan.optimizer_d, loss)
    return loss, on_real, on_fake


def _update_generator(gan: Gan, fake: mg.Tensor) -> tuple[mg.Tensor, mg.Tensor]:
    """G towards images that D takes for real: the loss, and D's logits."""
    judged = gan.discriminator(fake)
    loss = F.binary_cross_entropy_with_logits(judged, 1.0)
    _descend(gan.optimizer_g, loss)
    return loss, judged


def _descend(optimizer: optim.Adam, loss: mg.Tensor) -> None:
    """One step of the optimizer along the gradients of the loss, of its parameters alone."""
    optimizer.zero_grad()
    loss.backward(inputs=optimizer.params)
    optimizer.step()


def _result(
    loss_d: mg.Tensor, loss_g: mg.Tensor, on_real: mg.Tensor, on_fake: mg.Tensor, judged: mg.Tensor
) -> StepResult:
    with mg.no_grad():
        probabilities = (F.sigmoid(logits).mean() for logits in (on_real, on_fake, judged))
        return StepResult(loss_d.detach(), loss_g.detach(), *probabilities)


RULES: dict[str, Callable[[Gan, mg.Tensor], StepResult]] = {
    "fresh_noise": fresh_noise,
    "same_fakes": same_fakes,
}
