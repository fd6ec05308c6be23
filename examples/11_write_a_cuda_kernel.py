"""How a CUDA kernel is written: one transposed convolution, three ways, checked and counted.

    python examples/11_write_a_cuda_kernel.py              # without CuPy or a GPU: its NumPy half
    python examples/11_write_a_cuda_kernel.py --size 12    # images of 12 x 12 instead of 7 x 7
    python examples/11_write_a_cuda_kernel.py --time       # on a real GPU: how long each form takes

A transposed convolution makes a large image of a small one. Every pixel (h, v) of x lays the kernel w,
times its value, on the result, `stride` pixels apart; what overlaps adds up, and `padding` pixels are
cropped off each side:

    out[n, h stride + i - padding, v stride + j - padding, o] += x[n, h, v, c] w[c, i, j, o]

for every image n, channel c, made channel o and tap (i, j) of the kernel. Channels lie innermost in
memory: x is (N, H, W, C), w is (C, k, k, O), out is (N, H', W', O). Three ways to share that out:

    scatter   a thread takes one number of x and adds to all the numbers of `out` that it reaches
    gather    a thread takes one number of `out` and adds up all that reaches it
    product   x @ w as matrices, by a library, and then a gather that only adds

The engine's own kernels are in minigrad/backend/gpu/kernels; `col2im` in columns.cu is the gather of the
third form.
"""

import argparse
import functools
import math
from dataclasses import astuple, dataclass

import numpy as np

try:
    import cupy as cp

    NO_CUPY = ""
except ImportError as error:
    cp, NO_CUPY = None, str(error)

BLOCK = 256  # threads in a block
TILE = 64  # side of the tiles that the count below assumes of the library's product; it chooses its own
NUMBER = 4  # bytes of a float32
MAX_ERROR = {"NumPy": 1e-12, "GPU": 1e-6}  # relative, in norms: float64 on NumPy, float32 on the GPU


@dataclass(frozen=True)
class Geometry:
    """The sizes of one transposed convolution; kernel, stride and padding are the same both ways."""

    images: int
    height: int
    width: int
    channels: int
    out_channels: int
    kernel: int
    stride: int
    padding: int

    @property
    def out_height(self):
        return (self.height - 1) * self.stride + self.kernel - 2 * self.padding

    @property
    def out_width(self):
        return (self.width - 1) * self.stride + self.kernel - 2 * self.padding

    @property
    def x_shape(self):
        return (self.images, self.height, self.width, self.channels)

    @property
    def w_shape(self):
        return (self.channels, self.kernel, self.kernel, self.out_channels)

    @property
    def out_shape(self):
        return (self.images, self.out_height, self.out_width, self.out_channels)

    @property
    def columns_shape(self):
        """Of the third form's matrix: for each pixel of x a row, the kernel that this pixel lays."""
        return (self.images * self.height * self.width, self.kernel**2 * self.out_channels)


# The third layer of the generator of `python -m dcgan.train --preset flux`.
LAYER = Geometry(128, 7, 7, channels=128, out_channels=64, kernel=4, stride=2, padding=1)


# -- in NumPy -------------------------------------------------------------------------------------


def scatter_numpy(x, w, g):
    """The definition, in loops, which all else is held against.

    Args:
        x: (N, H, W, C).
        w: (C, k, k, O).
        g: their Geometry.

    Returns (N, H', W', O). The other forms take and return the same.
    """
    out = np.zeros(g.out_shape, x.dtype)
    for h, v, i, j in np.ndindex(g.height, g.width, g.kernel, g.kernel):
        row, column = h * g.stride + i - g.padding, v * g.stride + j - g.padding
        if 0 <= row < g.out_height and 0 <= column < g.out_width:
            out[:, row, column] += x[:, h, v] @ w[:, i, j]  # (N, C) @ (C, O)
    return out


def sources(row, size, g):
    """Along one axis, the (pixel of x, tap) pairs that reach pixel `row` of the result.

    row = h stride + i - padding, solved for h: h = (row + padding - i) / stride. So tap i counts only
    where the stride divides row + padding - i, which is every stride-th tap, the first being
    (row + padding) % stride; and h must be a pixel, 0 <= h < size. About kernel / stride taps are left.
    """
    taps = range((row + g.padding) % g.stride, g.kernel, g.stride)
    pairs = [((row + g.padding - i) // g.stride, i) for i in taps]
    return [(h, i) for h, i in pairs if 0 <= h < size]


def gather_numpy(x, w, g):
    """The same, pixel by pixel of the result: each is fetched from all that reaches it."""
    out = np.zeros(g.out_shape, x.dtype)
    for row, column in np.ndindex(g.out_height, g.out_width):
        for h, i in sources(row, g.height, g):
            for v, j in sources(column, g.width, g):
                out[:, row, column] += x[:, h, v] @ w[:, i, j]  # (N, C) @ (C, O)
    return out


def product_numpy(x, w, g):
    """The same, as one product, whose rows are laid on a canvas and added up (col2im), tap by tap."""
    columns = x.reshape(-1, g.channels) @ w.reshape(g.channels, -1)  # (N * H * W, k * k * O)
    laid = columns.reshape(*g.x_shape[:3], g.kernel, g.kernel, g.out_channels)  # (N, H, W, k, k, O)
    canvas_size = (g.out_height + 2 * g.padding, g.out_width + 2 * g.padding)
    canvas = np.zeros((g.images, *canvas_size, g.out_channels), x.dtype)
    for i, j in np.ndindex(g.kernel, g.kernel):
        down = slice(i, i + (g.height - 1) * g.stride + 1, g.stride)
        right = slice(j, j + (g.width - 1) * g.stride + 1, g.stride)
        canvas[:, down, right] += laid[:, :, :, i, j]
    return canvas[:, g.padding :, g.padding :][:, : g.out_height, : g.out_width]


def count_sums(x, w, g, orders=100):
    """How many different sums one number of the result has, its products added up in random orders.

    Float addition rounds at every step, so that (a + b) + c and a + (b + c) need not be equal. Returns
    the number of products and that of different sums.
    """
    rows, columns = sources(g.out_height // 2, g.height, g), sources(g.out_width // 2, g.width, g)
    products = np.concatenate([x[0, h, v] * w[:, i, j, 0] for h, i in rows for v, j in columns])
    rng = np.random.default_rng(0)
    # cumsum adds one by one, as atomics do; np.sum would add in pairs.
    sums = {float(np.cumsum(rng.permutation(products))[-1]) for _ in range(orders)}
    return len(products), len(sums)


# -- in CUDA --------------------------------------------------------------------------------------

# Each thread works out from its number what it is for, and leaves where there is nothing for it: threads
# come in whole blocks, and the last block has some to spare. Without `if (index >= count) return` those
# would write past the end of the array, and nobody would notice.
SOURCE = r"""
struct Geometry {  // Geometry of the Python side, field by field, and the sizes that follow from it
    int images, height, width, channels, out_channels, kernel, stride, padding, out_height, out_width;
};

// One thread for each number of x. Several pixels of x reach the same number of `out`, and so do all
// channels of one pixel, so that a plain `+=` would lose sums: two threads read the old value, both add
// to it, and the second write undoes the first. atomicAdd makes read, add and write one step. It costs
// - repeatability: who comes first is settled anew in every run, and with it the order of the sum and
//   how it rounds, so that the last bits of `out` may differ from run to run;
// - time: additions to one number wait for each other, and neighbouring threads, which have neighbouring
//   channels here, add to one and the same number at the same time. And every product makes a trip to
//   memory of its own, where a sum that one thread keeps would stay in a register until it is whole.
extern "C" __global__ void scatter(const float* x, const float* w, float* out, Geometry g,
                                   long long count) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int c = (int)(index % g.channels);  // index = ((n * height + h) * width + v) * channels + c
    long long rest = index / g.channels;
    int v = (int)(rest % g.width);
    rest /= g.width;
    int h = (int)(rest % g.height);
    long long n = rest / g.height;
    for (int i = 0; i < g.kernel; ++i) {
        int row = h * g.stride + i - g.padding;
        if (row < 0 || row >= g.out_height) continue;
        for (int j = 0; j < g.kernel; ++j) {
            int column = v * g.stride + j - g.padding;
            if (column < 0 || column >= g.out_width) continue;
            const float* from = w + (((long long)c * g.kernel + i) * g.kernel + j) * g.out_channels;
            float* to = out + ((n * g.out_height + row) * g.out_width + column) * g.out_channels;
            for (int o = 0; o < g.out_channels; ++o) atomicAdd(to + o, x[index] * from[o]);
        }
    }
}

// One thread for each number of `out`, which no other thread writes: no atomics, and a sum in the order
// of the loops, with the same bits in every run. The loops walk the pairs of `sources`; what is divided
// is a multiple of the stride, so that the quotient is exact, below 0 too. Neighbouring threads are
// neighbouring made channels: they read neighbouring numbers of w, and the same number of x.
extern "C" __global__ void gather(const float* x, const float* w, float* out, Geometry g,
                                  long long count) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int o = (int)(index % g.out_channels);
    long long rest = index / g.out_channels;
    int column = (int)(rest % g.out_width) + g.padding;  // before the crop
    rest /= g.out_width;
    int row = (int)(rest % g.out_height) + g.padding;
    long long n = rest / g.out_height;
    float sum = 0;
    for (int i = row % g.stride; i < g.kernel; i += g.stride) {
        int h = (row - i) / g.stride;
        if (h < 0 || h >= g.height) continue;
        for (int j = column % g.stride; j < g.kernel; j += g.stride) {
            int v = (column - j) / g.stride;
            if (v < 0 || v >= g.width) continue;
            const float* pixel = x + ((n * g.height + h) * g.width + v) * g.channels;
            const float* tap = w + ((long long)i * g.kernel + j) * g.out_channels + o;
            long long next = (long long)g.kernel * g.kernel * g.out_channels;  // from one c to the next
            for (int c = 0; c < g.channels; ++c) sum += pixel[c] * tap[c * next];
        }
    }
    out[index] = sum;
}

// The same walk, where the products are made already: columns[(n, h, v), (i, j, o)].
extern "C" __global__ void col2im(const float* columns, float* out, Geometry g, long long count) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count) return;
    int o = (int)(index % g.out_channels);
    long long rest = index / g.out_channels;
    int column = (int)(rest % g.out_width) + g.padding;
    rest /= g.out_width;
    int row = (int)(rest % g.out_height) + g.padding;
    long long n = rest / g.out_height;
    float sum = 0;
    for (int i = row % g.stride; i < g.kernel; i += g.stride) {
        int h = (row - i) / g.stride;
        if (h < 0 || h >= g.height) continue;
        for (int j = column % g.stride; j < g.kernel; j += g.stride) {
            int v = (column - j) / g.stride;
            if (v < 0 || v >= g.width) continue;
            long long position = (n * g.height + h) * g.width + v;
            sum += columns[((position * g.kernel + i) * g.kernel + j) * g.out_channels + o];
        }
    }
    out[index] = sum;
}
"""

# The fields of the struct above, in its order.
STRUCTURE = np.dtype([(name, np.int32) for name in (
    "images", "height", "width", "channels", "out_channels", "kernel", "stride", "padding",
    "out_height", "out_width",
)])  # fmt: skip


@functools.cache
def module():
    """The three kernels, compiled by NVRTC the first time that one is asked for."""
    return cp.RawModule(code=SOURCE, options=("--std=c++17",))


def launch(name, count, *arguments):
    """Run a kernel with one thread for each of `count` things; the count is its last argument.

    CuPy copies arguments bit for bit and believes us. None of these mistakes is reported; mostly the
    numbers are wrong:

    - A Python int goes as 8 bytes and a Python float as a double. A kernel that declares `float` reads
      the first half of that double: 1.5 arrives as 0. So every number is wrapped in the type that the
      kernel declares: np.int64, np.float32.
    - An array goes as the address where it begins. Its dtype, its strides and its size stay behind:
      float64 is read as float32, a transposed view in the order of memory. `checked` looks instead.
    - Too few arguments: the kernel takes for the rest whatever comes after them.
    - A grid of no blocks, which CuPy launches as one. So a launch for nothing is left out.
    """
    if count:
        blocks = -(-count // BLOCK)  # rounded up
        module().get_function(name)((blocks,), (BLOCK,), (*arguments, np.int64(count)))


def structure(g):
    """The geometry as the kernels take it, by value."""
    return np.array((*astuple(g), g.out_height, g.out_width), STRUCTURE)[()]


def checked(array, shape):
    """`array`, if it is what a kernel takes: float32, of this shape, in C order. Else ValueError."""
    if array.shape != shape or array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError(
            f"expected float32 of shape {shape} in C order, got {array.dtype} of shape {array.shape} "
            f"with strides {array.strides}"
        )
    return array


def scatter_gpu(x, w, g):
    """The first form. As of the other two, x and w are CuPy's, and so is the result."""
    out = cp.zeros(g.out_shape, np.float32)  # the threads add to it
    launch("scatter", x.size, checked(x, g.x_shape), checked(w, g.w_shape), out, structure(g))
    return out


def gather_gpu(x, w, g):
    """The second form."""
    out = cp.empty(g.out_shape, np.float32)  # a thread for each number: none stays as it is
    launch("gather", out.size, checked(x, g.x_shape), checked(w, g.w_shape), out, structure(g))
    return out


def product_gpu(x, w, g):
    """The third form: cuBLAS multiplies, and `col2im` adds up."""
    rows = checked(x, g.x_shape).reshape(-1, g.channels)  # (N * H * W, C)
    columns = cp.matmul(rows, checked(w, g.w_shape).reshape(g.channels, -1))  # (N * H * W, k * k * O)
    out = cp.empty(g.out_shape, np.float32)
    launch("col2im", out.size, checked(columns, g.columns_shape), out, structure(g))
    return out


NUMPY_FORMS = {"scatter": scatter_numpy, "gather": gather_numpy, "product": product_numpy}
GPU_FORMS = {"scatter": scatter_gpu, "gather": gather_gpu, "product": product_gpu}


# -- what each form costs -------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What one form does.

    Args:
        operations: products and additions of floats; the arithmetic of indices is left out.
        once: bytes, if each launch read its arrays once and wrote its result once: perfect caches.
        asked: bytes that all threads together ask for: no caches.
    """

    operations: int
    once: int
    asked: int


def landings(size, out_size, g):
    """Along one axis, how many pairs (pixel of x, tap) land inside of the result.

    Tap i of pixel h lands on h stride + i - padding, which is in [0, out_size) for h from
    (padding - i) / stride, rounded up, to (out_size - 1 + padding - i) / stride, rounded down.
    """
    total = 0
    for i in range(g.kernel):
        first = max(0, -((i - g.padding) // g.stride))
        last = min(size - 1, (out_size - 1 + g.padding - i) // g.stride)
        total += max(0, last - first + 1)
    return total


def count_costs(g):
    """{form: Cost}, by formula."""
    x, w, out, columns = map(math.prod, (g.x_shape, g.w_shape, g.out_shape, g.columns_shape))
    rows, row = g.columns_shape
    # What lands: a pixel and a tap in each direction, of every image, for every made channel.
    pairs = landings(g.height, g.out_height, g) * landings(g.width, g.out_width, g)
    landed = g.images * g.out_channels * pairs
    products = landed * g.channels
    # A tile of the product takes TILE rows of x and TILE columns of w: x is read once for every TILE
    # columns of the result, w once for every TILE rows.
    fetched = x * -(-row // TILE) + w * -(-rows // TILE)
    return {
        # `out` is set to 0, then read and written; each product reads w, and `out`, and writes `out`.
        "scatter": Cost(2 * products, NUMBER * (x + w + 3 * out), NUMBER * (x + out + 3 * products)),
        # Each product reads x and w.
        "gather": Cost(2 * products, NUMBER * (x + w + out), NUMBER * (out + 2 * products)),
        # All products are made, the cropped ones too; all are written, and what lands is read again.
        "product": Cost(
            2 * rows * g.channels * row + landed,
            NUMBER * (x + w + 2 * columns + out),
            NUMBER * (fetched + columns + landed + out),
        ),
    }


def measure(form, x, w, g, repeats=20):
    """Milliseconds of one call on the GPU, on average.

    A launch returns before its kernel has begun, so that a clock in Python would time the launching.
    Events are marks in the queue of the GPU itself. The calls before the first mark compile the kernels
    and fill CuPy's pool of memory.
    """
    for _ in range(3):
        form(x, w, g)
    start, stop = cp.cuda.Event(), cp.cuda.Event()
    start.record()
    for _ in range(repeats):
        form(x, w, g)
    stop.record()
    stop.synchronize()
    return cp.cuda.get_elapsed_time(start, stop) / repeats


# -- the program ----------------------------------------------------------------------------------


def draw(g):
    """Random x and w for a geometry, float32."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=shape).astype(np.float32) for shape in (g.x_shape, g.w_shape))


def relative_error(result, reference):
    """|result - reference| / |reference|, in norms."""
    return float(np.linalg.norm(result - reference) / np.linalg.norm(reference))


def check(g, gpu):
    """Compute all forms and compare them; rows for `show`. AssertionError where one is wrong."""
    x, w = draw(g)
    exact = scatter_numpy(x.astype(np.float64), w.astype(np.float64), g)
    rows = [("form", "on", "relative error", "same bits again")]
    for name, form in NUMPY_FORMS.items():
        error = relative_error(form(x.astype(np.float64), w.astype(np.float64), g), exact)
        assert error < MAX_ERROR["NumPy"], f"{name} on NumPy: relative error {error:.3g}"
        rows.append((name, "NumPy", "the reference" if name == "scatter" else f"{error:.1e}", ""))
    for name, form in GPU_FORMS.items() if gpu else ():
        on_gpu = (cp.asarray(x), cp.asarray(w))
        first, again = (form(*on_gpu, g).get() for _ in range(2))
        error, same = relative_error(first, exact), np.array_equal(first, again)
        assert error < MAX_ERROR["GPU"], f"{name} on the GPU: relative error {error:.3g}"
        assert same or name != "gather", "gather: two runs differ"
        rows.append((name, "GPU", f"{error:.1e}", "yes" if same else "no"))
    return rows


def cost_rows(g, milliseconds=None):
    """The counts of a geometry as rows for `show`, with times where there are any."""
    rows = [("form", "operations", "bytes, once", "op/byte", "bytes, asked", "op/byte")]
    for name, cost in count_costs(g).items():
        row = [name, f"{cost.operations:,}"]
        for size in (cost.once, cost.asked):
            row += [f"{size:,}", f"{cost.operations / size:.2f}"]
        rows.append(tuple(row))
    if milliseconds:
        rows[0] += ("ms", "op/s")
        for i, (name, time) in enumerate(milliseconds.items(), 1):
            rows[i] += (f"{time:.3f}", f"{count_costs(g)[name].operations / time * 1e3:.2e}")
    return rows


def show(rows):
    """Print rows of text as a table: the first column stands left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        print("  " + "  ".join(cells).rstrip())


def describe(g):
    """The geometry in a line."""
    shapes = f"x {g.x_shape}, w {g.w_shape} -> {g.out_shape}"
    return f"{shapes}, stride {g.stride}, padding {g.padding}; columns {g.columns_shape}"


def why_no_gpu():
    """What is missing, as the beginning of a sentence; "" where there is a GPU."""
    if cp is None:
        return f"CuPy is missing ({NO_CUPY})"
    try:
        return "" if cp.cuda.runtime.getDeviceCount() else "CuPy finds no GPU"
    except cp.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no GPU ({error})"


def report_checks(g, gpu):
    """Print what `check` found, and how much the order of a sum matters."""
    print(f"A transposed convolution:\n  {describe(g)}\n")
    show(check(g, gpu))
    if gpu:
        print("\nThe gather has the same bits in every run; where the scatter has them, that is luck.")
    products, sums = count_sums(*draw(g), g)
    print(
        f"\nOne number of the result is the sum of {products} products. Added up in 100 random orders,"
        f"\nin float32, it came out as {sums} different numbers. Atomics leave that order to chance.\n"
    )


def report_costs(g, milliseconds):
    """Print the counts of `g` and of LAYER, the times of LAYER if any, and how to read them."""
    print("What it costs:\n")
    show(cost_rows(g))
    print(f"\nWhat a layer of the flux recipe costs:\n  {describe(LAYER)}\n")
    show(cost_rows(LAYER, milliseconds))
    gather, product = count_costs(LAYER)["gather"], count_costs(LAYER)["product"]
    more, fewer = product.operations / gather.operations - 1, gather.asked / product.asked
    print(
        f"""
"once" counts each array once a launch, as if caches had no limit; "asked" counts all that the threads
ask for, as if there were none (of the product: in tiles of {TILE} x {TILE}). What memory really moves is
mostly between the two. A GPU does many operations in the time that one byte takes: a form with fewer
than that for each byte waits for memory. So the product does {more:.0%} more operations than the gather,
writes its columns out and reads them back, and yet asks for {fewer:.0f} times fewer bytes: a number that
a tile fetches is used {TILE} times before it is dropped.
"""
    )


def main(argv=None):
    """Check the forms on small images and print what each costs; returns 0."""
    parser = argparse.ArgumentParser(description="A transposed convolution as three CUDA kernels.")
    parser.add_argument("--size", type=int, default=7, help="height and width of x (default: 7)")
    parser.add_argument("--time", action="store_true", help="time the three forms, on a real GPU")
    args = parser.parse_args(argv)
    if args.size < 1:
        parser.error(f"--size: expected at least 1, got {args.size}")
    missing = why_no_gpu()

    small = Geometry(4, args.size, args.size, channels=16, out_channels=8, kernel=4, stride=2, padding=1)
    report_checks(small, gpu=not missing)
    milliseconds = {}
    if args.time and not missing:
        x, w = map(cp.asarray, draw(LAYER))
        milliseconds = {name: measure(form, x, w, LAYER) for name, form in GPU_FORMS.items()}
    report_costs(small, milliseconds)

    if missing:
        print(
            f"{missing}, so only the NumPy half ran. pip install 'cupy-cuda12x[ctk]' is what\n"
            "brings CuPy ('cupy-cuda13x[ctk]' for CUDA 13); the kernels want an NVIDIA GPU too."
        )
    if not milliseconds:
        print("No times were taken: that needs a real GPU (a stand-in's say nothing) and --time.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
