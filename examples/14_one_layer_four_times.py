"""One layer, four times: in plain loops, in NumPy, in C and in CUDA.

    python examples/14_one_layer_four_times.py
    python examples/14_one_layer_four_times.py --channels 128 --out-channels 64 --batch 128
    python examples/14_one_layer_four_times.py --out layer.png

The layer is a transposed convolution, by default the first one of the `quick` recipe. Every pixel (h, v)
of x lays the kernel w, times its value, on the result, `stride` pixels apart:

    y[n, o, h stride + i - padding, v stride + j - padding] += x[n, c, h, v] w[c, o, i, j]

for every image n, channel c, channel o of the result, and tap (i, j); `padding` pixels are cropped off
each side. Let dy be the gradient of a loss with respect to y. The gradients with respect to x and w add up
products at the same places:

    dx[n, c, h, v]  +=  dy[n, o, h stride + i - padding, v stride + j - padding] w[c, o, i, j]
    dw[c, o, i, j]  +=  x[n, c, h, v] dy[n, o, h stride + i - padding, v stride + j - padding]

Five programs for these three formulas, to be read in this order:

    loops   one number after another (minigrad/naive.py); the tests' oracle
    NumPy   one matrix product for each formula, by im2col and col2im (minigrad/backend/convolution.py)
    own C   the formulas as loops in C (beside this file), compiled as the engine compiles its kernels
    C       the engine on the CPU: sums in registers (minigrad/backend/cpu/kernels/convolution.c); layers of
            more channels may take another form, and the program says which
    CUDA    the engine on a GPU: cuBLAS, im2col and col2im (minigrad/backend/gpu/kernels/columns.cu)

Each is compared with the loops on small images, in float32 and float64, and then timed. Without a compiler
or a GPU, the program says what is missing and goes on without it.
"""

import argparse
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import backend, naive
from minigrad.backend.cpu import native
from minigrad.backend.environment import INSTALL_CUPY
from minigrad.backend.geometry import ConvGeometry
from minigrad.figures import saved_figure
from minigrad.tables import table

MAX_ERROR = {"float32": 1e-5, "float64": 1e-12}  # relative, in norms
LOOPED = 8  # channels of x and of y for which the loops are timed, on one image
ROUNDS = 9  # of timing, of which the median counts
SOURCE = Path(__file__).with_suffix(".c")
ENGINE = Path(mg.__file__).parent
TRIPLE = ("def convolve_input_gradient(", "def convolve(", "def convolve_weight_gradient(")
SOURCES = {  # of each form the file, and how the lines to be read begin
    "loops": (ENGINE / "naive.py", *TRIPLE),
    "NumPy": (ENGINE / "backend/convolution.py", *TRIPLE),
    "own C": (SOURCE, "KERNEL(images)", "KERNEL(taps)"),
    "C": (ENGINE / "backend/cpu/kernels/convolution.c", "KERNEL(gather)", "KERNEL(weight_gradient)"),
    "CUDA": (ENGINE / "backend/gpu/kernels/columns.cu", "__global__ void col2im(", "__global__ void im2col("),
}
KERNELS = ENGINE / "backend/cpu/kernels"
OTHER_FORMS = {  # that the engine may take in C, by the file that its `convolution_form` names
    "winograd.py": (
        KERNELS / "winograd.c",
        *(f"KERNEL(winograd_{name})" for name in ("input_gradient", "convolve", "weight_gradient")),
    ),
    "frequency.py": (KERNELS / "frequency.c", "KERNEL(frequency_products)", "KERNEL(frequency_weights)"),
}


@dataclass(frozen=True)
class Sizes:
    """Of one transposed convolution; images, kernel, stride and padding are square."""

    images: int
    size: int
    channels: int
    out_channels: int
    kernel: int = 4
    stride: int = 2
    padding: int = 1

    @property
    def out_size(self):
        return (self.size - 1) * self.stride + self.kernel - 2 * self.padding

    @property
    def geometry(self):
        """As the engine describes it: seen from the convolution whose transpose this is."""
        size, kernel = (self.size, self.size), (self.kernel, self.kernel)
        return ConvGeometry.of_conv_transpose(size, kernel, self.stride, self.padding, 0, 1)

    @property
    def operations(self):
        """Of the forward: a product and an addition for each pixel, tap and pair of channels.

        The backward has twice as many. Those whose result is cropped are counted too.
        """
        return 2 * self.images * self.size**2 * self.kernel**2 * self.channels * self.out_channels


def draw_arrays(g, dtype):
    """Random x (N, C, H, W), w (C, O, k, k) and dy (N, O, H', W').

    The channels of images lie innermost in memory, as in a network of the engine.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(g.images, g.size, g.size, g.channels)).astype(dtype)
    w = rng.normal(size=(g.channels, g.out_channels, g.kernel, g.kernel)).astype(dtype)
    dy = rng.normal(size=(g.images, g.out_size, g.out_size, g.out_channels)).astype(dtype)
    return x.transpose(0, 3, 1, 2), w, dy.transpose(0, 3, 1, 2)


# -- five forms: `forward` gives y, `backward` (dx, dw), on arrays of the backend `on` -----------------


class Plain(backend.Backend):
    """The plain form of every array primitive, on NumPy's arrays."""

    device = "plain"
    xp = np


class Loops:
    """Number by number."""

    on = Plain()

    def forward(self, x, w, g):
        return naive.convolve_input_gradient(x, w, g.geometry)

    def backward(self, x, w, dy, g):
        return naive.convolve(dy, w, g.geometry), naive.convolve_weight_gradient(dy, x, g.geometry)


class ByBackend:
    """By a backend: plain NumPy, the engine's on the CPU (C), or the engine's on the GPU (CUDA)."""

    def __init__(self, on):
        self.on = on

    def forward(self, x, w, g):
        return self.on.convolve_input_gradient(x, w, None, g.geometry)

    def backward(self, x, w, dy, g):
        return self.on.convolve_and_weight_gradient(dy, w, x, g.geometry)


class OwnC:
    """By the kernels of SOURCE."""

    on = Plain()

    def __init__(self, kernels):
        self.kernels = kernels

    def forward(self, x, w, g):
        y = np.empty((g.images, g.out_size, g.out_size, g.out_channels), x.dtype)
        self._call("images", innermost(x), w.transpose(2, 3, 0, 1), y, g, 0)
        return y.transpose(0, 3, 1, 2)

    def backward(self, x, w, dy, g):
        dx = np.empty((g.images, g.size, g.size, g.channels), x.dtype)
        dw = np.empty((g.kernel, g.kernel, g.channels, g.out_channels), x.dtype)
        self._call("images", innermost(dy), w.transpose(2, 3, 1, 0), dx, g, 1)
        self._call("taps", innermost(x), innermost(dy), dw, g)
        return dx.transpose(0, 3, 1, 2), dw.transpose(2, 3, 0, 1)

    def _call(self, name, a, b, made, g, *further):
        """Call a kernel. It gets addresses, and can't see whether shape, order and dtype are right."""
        a, b = np.ascontiguousarray(a, made.dtype), np.ascontiguousarray(b, made.dtype)
        sizes = np.array((*astuple(g), g.out_size), np.int64)
        getattr(self.kernels, name)[made.dtype](*map(native.address, (a, b, made, sizes)), *further)


def innermost(images):
    """(N, C, H, W) seen as (N, H, W, C)."""
    return images.transpose(0, 2, 3, 1)


def own_kernels(path=SOURCE):
    """The kernels of a file of C, and why there are none ("" if there are).

    `native.load` compiles texts and keeps the library in the user's cache directory, under a name made of
    the texts and the compiler: the next run finds it there. The team of threads is a file of the engine.
    """
    engine = native.sources()
    texts = {name: engine[name] for name in ("threads.c", "threads.h", "vectors.h")}
    kernels, status = native.load({**texts, "kernels.c": path.read_text(encoding="utf-8")})
    if kernels is None:
        return None, status.reason
    kernels.set_members(backend.num_threads())
    return kernels, ""


def find_forms():
    """{name: form} of all that runs on this machine, and {name: reason} of what does not."""
    forms, missing = {"loops": Loops(), "NumPy": ByBackend(Plain())}, {}
    kernels, missing["own C"] = own_kernels()
    if kernels is not None:
        forms["own C"] = OwnC(kernels)
    if backend.cpu_kernels().compiled:
        forms["C"] = ByBackend(backend.get("cpu"))
    else:
        missing["C"] = backend.cpu_kernels().reason
    try:
        forms["CUDA"] = ByBackend(backend.get("gpu"))
    except (ImportError, RuntimeError) as error:
        missing["CUDA"] = f"{error} (it takes an NVIDIA GPU and CuPy: {INSTALL_CUPY})"
    return forms, {name: reason for name, reason in missing.items() if reason}


# -- checks and times -------------------------------------------------------------------------------


def results(form, arrays, g):
    """{"y", "dx", "dw"} of x, w and dy, from and to arrays of NumPy."""
    x, w, dy = map(form.on.asarray, arrays)
    made = (form.forward(x, w, g), *form.backward(x, w, dy, g))
    return dict(zip(("y", "dx", "dw"), map(form.on.to_numpy, made), strict=True))


def check(form, g, dtype):
    """The largest relative error of y, dx and dw. AssertionError if one is too large."""
    arrays = draw_arrays(g, dtype)
    made, right = results(form, arrays, g), results(Loops(), arrays, g)
    errors = []
    for name, expected in right.items():
        assert made[name].shape == expected.shape, f"{name}: shape {made[name].shape}"
        errors.append(np.linalg.norm(made[name] - expected) / np.linalg.norm(expected))
        assert errors[-1] < MAX_ERROR[dtype], f"{name}: relative error {errors[-1]:.2g} in {dtype}"
    return max(errors)


@dataclass(frozen=True)
class Time:
    """Seconds of one forward and one backward, and the operations that they took."""

    forward: float
    backward: float
    operations: int

    @property
    def speed(self):
        """Operations per second."""
        return self.operations / (self.forward + self.backward)


def measure(form, g, rounds=ROUNDS):
    """The Time of a form, in float32: medians.

    The loops take part of the layer, and their time is multiplied by what the whole has more to do.
    """
    part = g
    if isinstance(form, Loops):
        channels, out_channels = min(LOOPED, g.channels), min(LOOPED, g.out_channels)
        part, rounds = replace(g, images=1, channels=channels, out_channels=out_channels), 1
    x, w, dy = map(form.on.asarray, draw_arrays(part, np.float32))
    more = g.operations / part.operations
    forward = more * np.median(seconds(form.on, rounds, form.forward, x, w, part))
    backward = more * np.median(seconds(form.on, rounds, form.backward, x, w, dy, part))
    return Time(float(forward), float(backward), 3 * g.operations)


def seconds(on, rounds, function, *arguments):
    """The seconds of some calls, by the clock of the device; one call before them sets things up."""
    timer, found = on.timer(), []
    for _ in range(rounds + 1):
        on.synchronize()
        begin = timer.mark()
        function(*arguments)
        found.append(timer.seconds(begin, timer.mark()))
    return found[1:]


# -- the program ------------------------------------------------------------------------------------


def draw(times, g, path):
    """The time of each form, on a logarithmic axis."""
    milliseconds = 1e3 * np.array([(t.forward, t.backward) for t in times.values()])  # (forms, 2)
    with saved_figure(path, (9.5, 1.6 + 0.8 * len(times))) as figure:
        axes = figure.subplots()
        for part, (label, colour) in enumerate((("forward", "tab:blue"), ("backward", "tab:orange"))):
            rows, values = np.arange(len(times)) + (0.38 * part - 0.19), milliseconds[:, part]
            bars = axes.barh(rows, values, 0.36, color=colour, label=label)
            axes.bar_label(bars, [f"{v:,.3g} ms" if v < 999 else f"{v:,.0f} ms" for v in values], padding=4)
        axes.set(
            title=f"{g.channels} to {g.out_channels} channels, {g.size} x {g.size} to {g.out_size} x "
            f"{g.out_size} pixels, batch {g.images}, float32",
            xscale="log", xlabel="milliseconds (those of the loops: computed from a part of the layer)",
            xlim=(milliseconds.min() / 5, milliseconds.max() * 8), yticks=range(len(times)),
            yticklabels=[f"{name}\n{t.speed / 1e9:,.3g} GFLOP/s" for name, t in times.items()],
        )  # fmt: skip
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.legend(loc="lower right")


def report_checks(forms, g):
    """Print how far each form is from the loops."""
    print(f"Largest relative error of y, dx and dw against the loops, {g.images} images,")
    print(f"{g.channels} to {g.out_channels} channels, {g.size} x {g.size} to {g.out_size} x {g.out_size}:\n")
    rows = [("form", *MAX_ERROR)]
    for name, form in forms.items():
        rows.append((name, *(f"{check(form, g, dtype):.1e}" for dtype in MAX_ERROR)))
    print(indented(rows, "<>"))


def report_times(times, g):
    """Print milliseconds, speeds and ratios."""
    shapes = [np.shape(array) for array in draw_arrays(g, np.float32)]
    print("\nx {}, w {} -> y {}, float32,".format(*shapes), f"{backend.num_threads()} CPU threads:\n")
    rows = [("form", "forward, ms", "backward, ms", "GFLOP/s", "times the loops' speed")]
    for name, t in times.items():
        milliseconds = (f"{1e3 * t.forward:,.2f}", f"{1e3 * t.backward:,.2f}")
        speeds = (f"{t.speed / 1e9:,.4g}", f"{t.speed / times['loops'].speed:,.0f}")
        rows.append((name, *milliseconds, *speeds))
    print(indented(rows, "<>"))
    print("\nThe loops were timed on a part of the layer; their milliseconds are computed from that.")


def report_sources(g, missing):
    """Print where the forms are to be read, which one the CPU takes for this layer, and what is missing."""
    counts = (g.images, g.out_channels, g.channels)  # channels as of the convolution
    chosen = backend.get("cpu").convolution_form("convolve_input_gradient", g.geometry, *counts)
    in_c = next((sources for file, sources in OTHER_FORMS.items() if file in chosen), SOURCES["C"])
    print("\nWhere to read them (the lines of y, dx and dw; a kernel may make two of these):\n")
    print(indented([(name, places(*sources)) for name, sources in (SOURCES | {"C": in_c}).items()], "<<"))
    print(f"\nOn this CPU the engine computes y {chosen}.")
    for name, reason in missing.items():
        print(f"{name} was not run: {reason}.")


def places(path, *beginnings):
    """The lines of a file that begin so, as "file:line, line"."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    numbers = [1 + next(i for i, line in enumerate(lines) if line.startswith(b)) for b in beginnings]
    top = ENGINE.parent if path.is_relative_to(ENGINE) else SOURCE.parents[1]
    return f"{path.relative_to(top)}:{', '.join(map(str, numbers))}"


def indented(rows, align):
    """A table, two columns to the right."""
    return "\n".join(f"  {line}" for line in table(rows, align).splitlines())


def main(argv=None):
    """Check all forms, time them, draw; returns 0."""
    parser = argparse.ArgumentParser(description="One layer in loops, NumPy, C and CUDA.")
    parser.add_argument("--batch", type=int, default=64, help="images (default: 64)")
    parser.add_argument("--size", type=int, default=7, help="height and width of x (default: 7)")
    parser.add_argument("--channels", type=int, default=64, help="channels of x (default: 64)")
    parser.add_argument("--out-channels", type=int, default=32, help="channels of y (default: 32)")
    parser.add_argument("--out", default="14_one_layer_four_times.png", help="where the picture goes")
    args = parser.parse_args(argv)
    if min(args.batch, args.size, args.channels, args.out_channels) < 1:
        parser.error("expected sizes of at least 1")
    g = Sizes(args.batch, args.size, args.channels, args.out_channels)
    forms, missing = find_forms()
    report_checks(forms, Sizes(2, min(args.size, 4), channels=3, out_channels=5))
    times = {name: measure(form, g) for name, form in forms.items()}
    report_times(times, g)
    report_sources(g, missing)
    draw(times, g, args.out)
    print(f"\n{args.out}: the time of each form")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
