"""A GAN learns a ring of 8 Gaussians: modes come, and go.

    python examples/12_ring_of_gaussians.py
    python examples/12_ring_of_gaussians.py --seed 0 --noise 16    # here three modes stay away
    python examples/12_ring_of_gaussians.py --out ring.png

The data are points in the plane, about 8 centres on a circle. The generator makes points of noise; the
discriminator tells its points from the data's; each learns in turn. In the plane one sees what in
images one has to guess: how many of the modes the generator makes. Nothing in its loss asks for all of
them. It is drawn to where the discriminator finds too little made so far, leaves what it had, and
may come back.

A mode counts as covered when at least 1 in 20 of 2,000 points lies within 3 standard deviations of its
centre (1 in 8 would be its share). Source of the test: Metz et al., "Unrolled generative adversarial
networks" (2017).
"""

import argparse

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad import nn, optim
from minigrad.figures import saved_figure

MODES, RADIUS, SPREAD = 8, 2.0, 0.2
SHARE = 1 / 20  # of the points, that makes a mode covered
ANGLES = 2 * np.pi * np.arange(MODES) / MODES
CENTRES = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1)  # (8, 2)


def ring(count, rng):
    """Points (count, 2) of the data."""
    points = CENTRES[rng.integers(MODES, size=count)] + SPREAD * rng.normal(size=(count, 2))
    return points.astype(np.float32)


def census(points):
    """The number of modes covered, and the share of points that lie near any."""
    distances = np.linalg.norm(points[:, None] - CENTRES, axis=-1)  # (N, 8)
    near = distances.min(1) < 3 * SPREAD
    counts = np.bincount(distances.argmin(1)[near], minlength=MODES)
    return int((counts >= SHARE * len(points)).sum()), float(near.mean())


def network(inputs, outputs, hidden):
    """Three dense layers: (N, inputs) to (N, outputs)."""
    layers = [nn.Dense(inputs, hidden), nn.Dense(hidden, hidden), nn.Dense(hidden, outputs)]
    for layer in layers:
        # He's start keeps the spread of the noise up to the result: the first points are all over.
        nn.init.he_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.LeakyReLU(0.2), layers[1], nn.LeakyReLU(0.2), layers[2])


class Game:
    """The two networks and their turns."""

    def __init__(self, seed, hidden, batch, rates=(1e-3, 4e-3), noise=4):
        mg.manual_seed(seed)
        self.rng, self.batch, self.z = np.random.default_rng(seed), batch, noise
        self.g, self.d = network(noise, 2, hidden), network(2, 1, hidden)
        # D learns faster: it should know where G's points are now, not where they were.
        self.optimizers = [
            optim.Adam(net.parameters(), lr, betas=(0.5, 0.999))
            for net, lr in zip((self.g, self.d), rates, strict=True)
        ]

    def noise(self, count):
        return mg.tensor(self.rng.normal(size=(count, self.z)).astype(np.float32))

    def step(self):
        """D's turn on data and made points, then G's."""
        bce, (optimizer_g, optimizer_d) = F.binary_cross_entropy_with_logits, self.optimizers
        with mg.no_grad():
            made = self.g(self.noise(self.batch))
        loss_d = bce(self.d(mg.tensor(ring(self.batch, self.rng))), 1.0) + bce(self.d(made), 0.0)
        optimizer_d.zero_grad()
        loss_d.backward()
        optimizer_d.step()
        loss_g = bce(self.d(self.g(self.noise(self.batch))), 1.0)
        optimizer_g.zero_grad()
        loss_g.backward(inputs=list(self.g.parameters()))  # nothing for D's
        optimizer_g.step()

    def points(self, noise):
        """What the generator makes of this noise: (N, 2)."""
        with mg.no_grad():
            return self.g(noise).numpy()


def play(steps, seed, hidden=64, noise=4, batch=256, every=20, panels=6):
    """Train; gives the census every `every` steps, and the points at `panels` of these."""
    game = Game(seed, hidden, batch, noise=noise)
    fixed = game.noise(2000)
    stops = {round(s / every) * every for s in np.geomspace(max(every, steps / 30), steps, panels)}
    history, pictures = [], {}
    for step in range(steps + 1):
        if step % every == 0:
            points = game.points(fixed)
            history.append((step, *census(points)))
            if step in stops:
                pictures[step] = points
        game.step()
    return history, pictures


def draw(history, pictures, path):
    """The points at some steps, and the census over all."""
    with saved_figure(path, (2.35 * len(pictures) + 0.8, 5.6), dpi=100) as figure:
        names = [f"at {step}" for step in pictures]
        mosaic = figure.subplot_mosaic([names, ["census"] * len(names)], height_ratios=(1.1, 1))
        panels, axes_below = [mosaic[name] for name in names], mosaic["census"]
        data, covered = ring(500, np.random.default_rng(0)), {step: modes for step, modes, _ in history}
        for axes, (step, points) in zip(panels, pictures.items(), strict=True):
            axes.plot(*data.T, ".", color="0.75", ms=3, label="data")
            axes.plot(*points[:500].T, ".", color="tab:red", ms=2, label="made")
            axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="x",
                     title=f"step {step}: {covered[step]} modes")  # fmt: skip
        panels[0].set_ylabel("y")
        panels[0].legend(loc="upper left", fontsize=8, markerscale=3)
        steps, modes, near = zip(*history, strict=True)
        axes = axes_below
        axes.step(steps, modes, where="post", color="tab:red")
        axes.set(title="modes covered, and points near one", xlabel="step", ylim=(0, MODES + 0.4))
        axes.set_ylabel("modes covered, of 8", color="tab:red")
        axes.grid(alpha=0.3)
        other = axes.twinx()
        other.plot(steps, 100 * np.array(near), color="tab:blue", lw=1)
        other.set(ylim=(0, 105))
        other.set_ylabel("points within 3 sd of a centre (%)", color="tab:blue")


def main(argv=None):
    """Play, tabulate, draw; returns 0."""
    parser = argparse.ArgumentParser(description="A GAN learns a ring of 8 Gaussians.")
    parser.add_argument("--steps", type=int, default=2500, help="steps of both players (default: 2500)")
    parser.add_argument("--seed", type=int, default=1, help="of the weights and all noise (default: 1)")
    parser.add_argument("--hidden", type=int, default=64, help="neurons in a hidden layer (default: 64)")
    parser.add_argument("--noise", type=int, default=4, help="numbers in a z (default: 4)")
    parser.add_argument("--out", default="12_ring_of_gaussians.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if args.steps < 20 or min(args.hidden, args.noise) < 1:
        parser.error("expected --steps of at least 20 and --hidden and --noise of at least 1")
    history, pictures = play(args.steps, args.seed, args.hidden, args.noise)
    print("   step   modes covered   points near one")
    for step, modes, near in history:
        if step in pictures:
            print(f"  {step:5d}   {modes:8d} of 8   {near:15.1%}")
    modes = [m for _, m, _ in history]
    changes = np.diff([0, *modes])
    gained, lost = changes[changes > 0].sum(), -changes[changes < 0].sum()
    print(f"\nSeen every 20 steps, {gained} modes came and {lost} went; the most at once: {max(modes)}.")
    draw(history, pictures, args.out)
    print(f"{args.out}: the points over time, and the modes covered")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
