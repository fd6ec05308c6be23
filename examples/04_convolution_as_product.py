"""A convolution as one matrix product, and what that costs.

    python examples/04_convolution_as_product.py
    python examples/04_convolution_as_product.py --size 6 --channels 2 --out-channels 3
    python examples/04_convolution_as_product.py --out columns.png

    y[n, o, p, q] = sum over c, i, j of x[n, c, p stride + i, q stride + j] w[o, c, i, j]

(x padded by zeros before.) For one output pixel, what the kernel looks at is C k k numbers: put them in
a row, and those of all N H' W' output pixels below each other (im2col), and all sums are one product

    columns (N H' W', C k k)  @  w^T (C k k, O)  =  y (N H' W', O).

The multiplications are the same ones, each once. What changes is memory: a pixel is copied into as many
rows as there are kernels that look at it, about (k / stride)^2. It pays: a library's product uses every
number that it fetches many times, which loops over single numbers don't.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np

import minigrad as mg
import minigrad.functional as F
from minigrad.figures import saved_figure

BYTES = 8  # of a float64


@dataclass(frozen=True)
class Sizes:
    """Of one convolution; images, kernel, stride and padding are square."""

    images: int
    channels: int
    size: int
    out_channels: int
    kernel: int
    stride: int
    padding: int

    @property
    def out(self):
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1


def loops(x, w, g):
    """The definition, number by number: (N, O, H', W')."""
    padded = np.pad(x, [(0, 0), (0, 0), (g.padding, g.padding), (g.padding, g.padding)])
    y = np.zeros((g.images, g.out_channels, g.out, g.out))
    for n, o, p, q in np.ndindex(y.shape):
        total = 0.0
        for c, i, j in np.ndindex(g.channels, g.kernel, g.kernel):
            total += padded[n, c, p * g.stride + i, q * g.stride + j] * w[o, c, i, j]
        y[n, o, p, q] = total
    return y


def im2col(x, g):
    """What the kernel looks at, a row for each output pixel: (N H' W', C k k)."""
    padded = np.pad(x, [(0, 0), (0, 0), (g.padding, g.padding), (g.padding, g.padding)])
    columns = np.empty((g.images, g.out, g.out, g.channels, g.kernel, g.kernel))
    for i, j in np.ndindex(g.kernel, g.kernel):
        # Tap (i, j) of all output pixels at once: every stride-th pixel from (i, j) on.
        down = slice(i, i + (g.out - 1) * g.stride + 1, g.stride)
        right = slice(j, j + (g.out - 1) * g.stride + 1, g.stride)
        columns[..., i, j] = padded[:, :, down, right].transpose(0, 2, 3, 1)  # (N, H', W', C)
    return columns.reshape(g.images * g.out**2, -1)


def product(x, w, g):
    """The convolution as a product: (N, O, H', W')."""
    rows = im2col(x, g) @ w.reshape(g.out_channels, -1).T  # (N H' W', O)
    return rows.reshape(g.images, g.out, g.out, g.out_channels).transpose(0, 3, 1, 2)


def engine(x, w, g):
    """The same by minigrad."""
    return F.conv2d(mg.tensor(x), mg.tensor(w), stride=g.stride, padding=g.padding).numpy()


def cost(g):
    """Multiplications, and the bytes of each array."""
    columns = g.images * g.out**2 * g.channels * g.kernel**2
    return {
        "multiplications": columns * g.out_channels,
        "x": BYTES * g.images * g.channels * g.size**2,
        "columns": BYTES * columns,
        "w": BYTES * g.out_channels * g.channels * g.kernel**2,
        "y": BYTES * g.images * g.out_channels * g.out**2,
    }


def draw_arrays(g, rng):
    """x (N, C, H, W) and w (O, C, k, k)."""
    x = rng.normal(size=(g.images, g.channels, g.size, g.size))
    return x, rng.normal(size=(g.out_channels, g.channels, g.kernel, g.kernel))


def draw(path):
    """A 5 x 5 image whose pixels are numbered, and its columns for a 3 x 3 kernel."""
    g = Sizes(1, 1, 5, 1, 3, 1, 0)
    image = np.arange(1, 26).reshape(1, 1, 5, 5)
    columns = im2col(image, g).astype(int)
    with saved_figure(path, (10.5, 5.2)) as figure:
        from matplotlib.patches import Rectangle

        left, right = figure.subplots(1, 2)
        for axes, values in ((left, image[0, 0]), (right, columns)):
            axes.imshow(values, cmap="viridis", vmin=1, vmax=25, aspect="equal" if axes is left else "auto")
            for (row, column), n in np.ndenumerate(values):
                axes.text(column, row, n, ha="center", va="center", color="white" if n < 17 else "black")
        # One output pixel in both: what it looks at, and its row.
        left.add_patch(Rectangle((0.5, 0.5), 3, 3, fill=False, ec="tab:red", lw=3))
        right.add_patch(Rectangle((-0.5, 3.5), 9, 1, fill=False, ec="tab:red", lw=3))
        left.set(title="x: 25 pixels", xlabel="column", ylabel="row")
        right.set(
            title="its columns for a 3 x 3 kernel: 81 numbers", xlabel="tap of the kernel",
            ylabel="pixel of y", xticks=range(9), yticks=range(9),
            xticklabels=[f"{i},{j}" for i, j in np.ndindex(3, 3)],
            yticklabels=[f"{p},{q}" for p, q in np.ndindex(3, 3)],
        )  # fmt: skip


def timed(form, *arguments):
    """The result, and the seconds of one call."""
    start = time.perf_counter()
    return form(*arguments), time.perf_counter() - start


def main(argv=None):
    """Compare the forms, count, draw; returns 0."""
    parser = argparse.ArgumentParser(description="A convolution as one matrix product.")
    parser.add_argument("--size", type=int, default=14, help="height and width of x (default: 14)")
    parser.add_argument("--channels", type=int, default=8, help="channels of x (default: 8)")
    parser.add_argument("--out-channels", type=int, default=16, help="channels of y (default: 16)")
    parser.add_argument("--out", default="04_convolution_as_product.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if min(args.size, args.channels, args.out_channels) < 1:
        parser.error("expected sizes of at least 1")
    g = Sizes(2, args.channels, args.size, args.out_channels, kernel=3, stride=1, padding=1)
    x, w = draw_arrays(g, np.random.default_rng(0))

    columns_shape = (g.images * g.out**2, g.channels * g.kernel**2)
    print(f"x {x.shape}, w {w.shape}: columns {columns_shape} @ w^T {columns_shape[1:] + w.shape[:1]}\n")
    print("  form        largest difference   milliseconds")
    right, seconds = timed(loops, x, w, g)
    print(f"  {'loops':<10} {'':>19} {1e3 * seconds:14.2f}")
    for name, form in (("product", product), ("F.conv2d", engine)):
        form(x, w, g)  # a first call sets things up
        made, seconds = timed(form, x, w, g)
        print(f"  {name:<10} {np.abs(made - right).max():19.1e} {1e3 * seconds:14.2f}")

    counted = cost(g)
    print(f"\n  multiplications {counted['multiplications']:12,d}   the same for all three")
    for name in ("x", "columns", "w", "y"):
        print(f"  bytes of {name:<7} {counted[name]:11,d}")
    print(f"\nThe columns are {counted['columns'] / counted['x']:.1f} times as large as x.")
    draw(args.out)
    print(f"\n{args.out}: an image of numbered pixels, and its columns")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
