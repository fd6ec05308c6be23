"""A DCGAN on MNIST in 60 lines.

    python examples/13_dcgan_in_60_lines.py
    python examples/13_dcgan_in_60_lines.py --steps 3000      # better digits, some minutes
    python examples/13_dcgan_in_60_lines.py --out digits.png

Two networks and a loop; `python -m dcgan.train` is the same with recipes, checkpoints and metrics.
G makes images (N, 1, 28, 28) in [-1, 1] of noise (N, 64); D gives each image a logit (N, 1).
Source: Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional
generative adversarial networks" (2016).
"""

import argparse

import numpy as np

import minigrad as mg
import minigrad.functional as F
from dcgan.data import mnist
from minigrad import nn, optim
from minigrad.figures import saved_figure


def networks(width):
    up = {"kernel_size": 4, "stride": 2, "padding": 1}  # twice the size, or half of it
    generator = nn.Sequential(
        nn.Dense(64, 4 * width * 7 * 7, bias=False), nn.Reshape(4 * width, 7, 7),
        nn.BatchNorm(4 * width), nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, **up, bias=False), nn.BatchNorm(2 * width), nn.ReLU(),
        nn.ConvTranspose2d(2 * width, 1, **up), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, 2 * width, **up), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, **up, bias=False), nn.BatchNorm(4 * width), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Dense(4 * width * 7 * 7, 1),
    )  # fmt: skip
    for p in [*generator.parameters(), *discriminator.parameters()]:
        if p.ndim > 1:
            nn.init.normal_(p, 0.0, 0.02)
    return generator, discriminator


def train(steps, width, batch):
    mg.manual_seed(0)
    rng, images, bce = np.random.default_rng(0), mnist.images(), F.binary_cross_entropy_with_logits
    g, d = networks(width)
    adam_g, adam_d = (optim.Adam(net.parameters(), 5e-4, betas=(0.5, 0.999)) for net in (g, d))
    for step in range(1, steps + 1):
        chosen = images[rng.integers(len(images), size=batch)].reshape(-1, 1, 28, 28)
        real = mg.tensor(chosen.astype(np.float32) / 127.5 - 1)
        fake = g(mg.tensor(rng.normal(size=(batch, 64)), dtype="float32"))
        loss_d = bce(d(real), 1.0) + bce(d(fake.detach()), 0.0)  # D's turn: G's graph is cut off
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        loss_g = bce(d(fake), 1.0)  # G's turn: what would make the new D take them for real?
        adam_g.zero_grad()
        loss_g.backward(inputs=list(g.parameters()))
        adam_g.step()
        if step % 100 == 0 or step == steps:
            print(f"  step {step:5d}   loss of D {loss_d.item():.3f}, of G {loss_g.item():.3f}")
    with mg.no_grad():
        return g(mg.tensor(rng.normal(size=(64, 64)), dtype="float32")).numpy()[:, 0]  # (64, 28, 28)


def main(argv=None):
    parser = argparse.ArgumentParser(description="A DCGAN on MNIST.")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--width", type=int, default=16, help="channels, times 2 and 4 (default: 16)")
    parser.add_argument("--out", default="13_dcgan_in_60_lines.png", help="where the picture goes")
    args = parser.parse_args(argv)
    made = train(args.steps, args.width, batch=64)
    with saved_figure(args.out, (6, 6.3), dpi=100) as figure:
        axes = figure.subplots()
        axes.imshow(made.reshape(8, 8, 28, 28).transpose(0, 2, 1, 3).reshape(224, 224), cmap="gray")
        axes.set(title=f"64 digits that nobody wrote, after {args.steps} steps", xticks=[], yticks=[])
    print(f"{args.out}: 64 digits")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
