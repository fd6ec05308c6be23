"""The general DCGAN: the layers of both networks from the size of the images and four widths.

Source: Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional
generative adversarial networks" (2015), as PyTorch's tutorial has it. Each transposed convolution
of G doubles the side of the image, each convolution of D halves it; the narrowest layer, next to the
image, has `width` feature maps, and each further one twice as many.
"""

from ..errors import UserError
from .layers import BatchNorm, Conv, ConvTranspose, Flatten, Layer, LeakyReLU, ReLU, Sigmoid, Tanh

SIZES = (8, 16, 32, 64, 128, 256)
CHANNELS = (1, 2, 3, 4)
GAMMA = BatchNorm(gamma_std=0.02)


def doublings(image_size: int) -> int:
    """Return n where `image_size` is 4 * 2^n. UserError for other sizes."""
    if image_size not in SIZES:
        raise UserError(f"image_size={image_size}: expected one of {', '.join(map(str, SIZES))}")
    return SIZES.index(image_size) + 1


def generator(image_size: int, channels: int, width: int) -> tuple[Layer, ...]:
    """G of the DCGAN paper, without biases, from z (nz, 1, 1): 4 x 4 at first, tanh at the end."""
    n = doublings(image_size)
    return (*_grown(width * 2 ** (n - 1), n - 1), ConvTranspose(channels, 4, 2, 1, bias=False), Tanh())


def generator_conv_last(image_size: int, channels: int, width: int) -> tuple[Layer, ...]:
    """The same, one doubling earlier, so that a plain 3 x 3 convolution makes the image."""
    n = doublings(image_size)
    return (*_grown(width * 2**n, n), Conv(channels, 3, 1, 1, bias=False), Tanh())


def discriminator(image_size: int, width: int) -> tuple[Layer, ...]:
    """D of both: halved down to 4 x 4, then to one probability; no BatchNorm on the first layer."""
    layers: list[Layer] = [Conv(width, 4, 2, 1, bias=False), LeakyReLU(0.2)]
    for i in range(1, doublings(image_size)):
        layers += [Conv(width * 2**i, 4, 2, 1, bias=False), GAMMA, LeakyReLU(0.2)]
    return (*layers, Conv(1, 4, bias=False), Flatten(), Sigmoid())


def _grown(width: int, times: int) -> tuple[Layer, ...]:
    """To `width` maps of 4 x 4, then `times` doublings of the side, each with half the maps."""
    layers: list[Layer] = [ConvTranspose(width, 4, bias=False), GAMMA, ReLU()]
    for i in range(1, times + 1):
        layers += [ConvTranspose(width // 2**i, 4, 2, 1, bias=False), GAMMA, ReLU()]
    return tuple(layers)


# By the name that a recipe gives as its architecture.
GENERATORS = {"dcgan": generator, "dcgan_conv_last": generator_conv_last}
