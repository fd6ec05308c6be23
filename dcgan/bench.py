"""`python -m dcgan.bench`: how fast the steps of recipes run, beside PyTorch's where it is installed.

The two run in one process, in turn (see minigrad/bench.py). PyTorch's networks are made from the same layers
as ours (`dcgan.presets`), and its steps follow the same rules (`dcgan.steps`). Its discriminators always see
real and fake images in two passes: in one, where ours do it so, PyTorch is not faster but a little slower.
Its Adam has no `epsilon_hat`: where a recipe has, PyTorch's steps take as long but go elsewhere.
"""

from collections.abc import Callable, Sequence
from typing import Any

import minigrad as mg
from minigrad import bench

from . import latent, models, presets
from .console import run_command, tell
from .recipe import layers
from .recipe.preset import Preset
from .steps import RULES, Gan

DEFAULT = ("flux", "quick", "tensorflow", "flowers", "pytorch")


def our_step(preset: Preset) -> Callable[[], Any]:
    """One training step of a recipe in this engine, on images of noise."""
    mg.manual_seed(preset.seed)
    generator, discriminator = models.build(preset)
    z = mg.Generator(preset.seed, 1)
    gan = Gan.of(preset, generator, discriminator, lambda n: latent.draw(preset, n, z))
    shape = (preset.batch_size, preset.channels, preset.image_size, preset.image_size)
    real = mg.tensor(mg.Generator(preset.seed, 2).uniform(shape, -1.0, 1.0))
    return lambda: RULES[preset.step](gan, real)


def their_step(torch: Any, preset: Preset) -> Callable[[], Any]:
    """The same step in PyTorch."""
    torch.manual_seed(preset.seed)
    shape = (preset.batch_size, preset.channels, preset.image_size, preset.image_size)
    generator = _network(torch, preset.generator, preset.z_shape)
    discriminator = _network(torch, preset.discriminator, shape[1:])
    betas = (preset.beta1, preset.beta2)
    adam_g = torch.optim.Adam(generator.parameters(), preset.lr_generator, betas, preset.adam_eps)
    adam_d = torch.optim.Adam(discriminator.parameters(), preset.lr_discriminator, betas, preset.adam_eps)
    real = torch.rand(*shape) * 2 - 1
    labels = {label: torch.full((preset.batch_size, 1), label) for label in (0.0, 1.0)}

    def draw() -> Any:
        z = torch.randn if preset.z_distribution == "normal" else torch.rand
        return z(preset.batch_size, *preset.z_shape)

    def cost(judged: Any, label: float) -> Any:
        if preset.loss == "bce_with_logits":
            return torch.nn.functional.binary_cross_entropy_with_logits(judged, labels[label])
        if preset.loss == "bce":
            return torch.nn.functional.binary_cross_entropy(judged, labels[label])
        return -torch.log((judged if label else 1 - judged) + 1e-12).mean()

    def descend(adam: Any, *losses: Any) -> None:
        adam.zero_grad()
        for loss in losses:
            loss.backward()
        adam.step()

    def fresh_noise() -> None:
        generator.eval()
        with torch.no_grad():
            fake = generator(draw())
        generator.train()
        descend(adam_d, cost(discriminator(real), 1.0), cost(discriminator(fake), 0.0))
        descend(adam_g, cost(discriminator(generator(draw())), 1.0))

    def same_fakes() -> None:
        fake = generator(draw())
        descend(adam_d, cost(discriminator(real), 1.0), cost(discriminator(fake.detach()), 0.0))
        descend(adam_g, cost(discriminator(fake), 1.0))

    def generator_first() -> None:
        z = draw()
        descend(adam_g, cost(discriminator(generator(z)), 1.0))
        with torch.no_grad():
            fake = generator(z)
        descend(adam_d, cost(discriminator(real), 1.0), cost(discriminator(fake), 0.0))

    return {"fresh_noise": fresh_noise, "same_fakes": same_fakes, "generator_first": generator_first}[
        preset.step
    ]


def _network(torch: Any, specs: tuple[layers.Layer, ...], shape: tuple[int, ...]) -> Any:
    """A recipe's network of PyTorch's layers; sizes are found by trying each layer on zeros."""
    modules = []
    x = torch.zeros(2, *shape)
    for spec in specs:
        module = _module(torch.nn, spec, x.shape)
        x = module(x)
        modules.append(module)
    return torch.nn.Sequential(*modules)


def _module(nn: Any, spec: layers.Layer, shape: Sequence[int]) -> Any:
    match spec:
        case layers.Dense():
            return nn.Linear(shape[1], spec.features, bias=spec.bias)
        case layers.Conv():
            return _same(nn, spec, nn.Conv2d, shape)
        case layers.ConvTranspose():
            return _same(nn, spec, nn.ConvTranspose2d, shape)
        case layers.BatchNorm():
            norm = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
            return norm(shape[1], spec.eps, spec.momentum)
        case layers.ReLU():
            return nn.ReLU()
        case layers.LeakyReLU():
            return nn.LeakyReLU(spec.slope)
        case layers.Tanh():
            return nn.Tanh()
        case layers.Sigmoid():
            return nn.Sigmoid()
        case layers.Dropout():
            return nn.Dropout(spec.p)
        case layers.Flatten():
            return nn.Flatten()
        case layers.Reshape():
            return nn.Unflatten(1, (spec.channels, spec.height, spec.width))


def _same(nn: Any, spec: Any, kind: Any, shape: Sequence[int]) -> Any:
    """A convolution, padded as the recipe says; TensorFlow's "same" by what PyTorch has for it.

    The odd pixel of "same" lies after: before a convolution it is padded by a layer of its own; a transposed
    one makes a row and a column more than are kept, by output_padding, with the same work.
    """
    if spec.padding != "same":
        padding = 0 if spec.padding == "valid" else spec.padding
        return kind(shape[1], spec.channels, spec.kernel, spec.stride, padding, bias=spec.bias)
    if kind is nn.ConvTranspose2d:
        before = (spec.kernel - spec.stride + 1) // 2
        extra = spec.stride + 2 * before - spec.kernel
        return kind(shape[1], spec.channels, spec.kernel, spec.stride, before, extra, bias=spec.bias)
    size = shape[2]
    total = max((-(-size // spec.stride) - 1) * spec.stride + spec.kernel - size, 0)
    sides = (total // 2, total - total // 2) * 2
    return nn.Sequential(
        nn.ZeroPad2d(sides), kind(shape[1], spec.channels, spec.kernel, spec.stride, bias=spec.bias)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""

    def extra(parser: Any) -> None:
        names = list(presets.PRESETS)
        parser.add_argument("--presets", nargs="+", choices=names, default=DEFAULT, help="recipes")
        parser.add_argument("--batch-size", type=int, help="images a step (default: the recipe's)")

    given = bench.arguments("Training steps of recipes, ours and PyTorch's in turn.", argv, extra)
    torch, limit = bench.pytorch(not given.no_pytorch), bench.product_limit()
    rows = []
    for name in given.presets:
        preset = presets.get(name, **({"batch_size": given.batch_size} if given.batch_size else {}))
        theirs = their_step(torch, preset) if torch else None
        rows.append(
            bench.measure(f"{name}, batch {preset.batch_size}", our_step(preset), theirs, given.rounds, limit)
        )
    tell(bench.table(rows, limit))
    tell(f"peak memory of this process: {bench.peak_memory():.0f} MiB")
    if given.json:
        bench.write(given.json, rows, limit, torch)
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan.bench")
