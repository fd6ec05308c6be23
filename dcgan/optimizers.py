"""From a recipe to its two optimizers."""

from minigrad import nn, optim

from .recipe.preset import Preset


def build(preset: Preset, generator: nn.Module, discriminator: nn.Module) -> tuple[optim.Adam, optim.Adam]:
    """Return the Adams of the recipe's generator and discriminator, without a step.

    They hold the networks' parameters as they are: move the networks to their device first.
    """
    return (
        _adam(preset, generator, preset.lr_generator),
        _adam(preset, discriminator, preset.lr_discriminator),
    )


def _adam(preset: Preset, network: nn.Module, lr: float) -> optim.Adam:
    return optim.Adam(
        network.parameters(),
        lr,
        (preset.beta1, preset.beta2),
        preset.adam_eps,
        epsilon_hat=preset.adam_epsilon_hat,
    )
