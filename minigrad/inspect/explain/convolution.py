"""Conv2d and ConvTranspose2d: im2col, product, col2im, one way and the other.

Both run over one `ConvGeometry`, seen from the convolution's side: `input_size` is the larger image (x of a
Conv2d, y of a ConvTranspose2d), whose pixels are copied into columns or added up from them; `output_size`
is the smaller, each of whose pixels is a row.
"""

import numpy as np

from ...backend.arrays import Array, channels_first, per_channel
from ...backend.geometry import ConvGeometry
from ...nn import Conv2d, ConvTranspose2d
from ...tensor import Tensor
from ..receptive import taps
from .checks import norms
from .convolution_loop import checks_of, loop_of
from .registry import Opened, Steps, explains, host


@explains(Conv2d)
def conv2d(layer: Conv2d, x: Tensor, dy: Tensor, seed: int) -> Opened:
    """Forward im2col and a product; back the product's two gradients, one through col2im."""
    backend, weight, bias = x.backend, layer.weight, layer.bias
    g = ConvGeometry.of_conv(
        (x.shape[2], x.shape[3]),
        (weight.shape[2], weight.shape[3]),
        layer.stride,
        layer.padding,
        layer.dilation,
    )
    n, (o, c) = x.shape[0], weight.shape[:2]
    forward, backward = Steps(backend), Steps(backend)

    columns = _columns(forward, "x", x.data, g)
    kernel = _kernel(forward, weight.data, g, "y")
    rows = forward.take(
        "product",
        "rows",
        f"columns @ kernel: {_product(n * g.positions, g.taps * c, o)}",
        backend.matmul(columns, kernel),
    )
    if bias is not None:
        rows = forward.take("bias", "rows", f"the bias {bias.shape} is added to each row", rows + bias.data)
    _images(forward, "y", rows, n, g)

    drows = _rows(backward, "dy", dy.data, g)
    dcolumns = backward.take(
        "product",
        "dcolumns",
        f"drows @ kernel^T: {_product(n * g.positions, o, g.taps * c)}",
        backend.matmul(drows, kernel.T),
    )
    gradients = {"x": _overlap(backward, "dx", dcolumns, n, g)}
    gradients["weight"] = _weight_gradient(backward, "columns^T @ drows", columns, drows, g)
    if bias is not None:
        gradients["bias"] = _bias_gradient(backward, dy.data)

    own = _forms(
        x,
        g,
        n,
        c,
        o,
        {"y": "convolve", "dx": "convolve_input_gradient", "dweight": "convolve_weight_gradient"},
    )
    checks = checks_of(layer, g, x, dy, (*forward, *backward), seed)
    sizes = {"bias": norms(host(backend, dy.data))}
    return Opened(forward, backward, gradients, (own,), loop_of(layer, g, n), checks, sizes=sizes)


@explains(ConvTranspose2d)
def conv_transpose2d(layer: ConvTranspose2d, x: Tensor, dy: Tensor, seed: int) -> Opened:
    """Forward a product and col2im, as a Conv2d's backward; back im2col and the two gradients' products."""
    backend, weight, bias = x.backend, layer.weight, layer.bias
    g = ConvGeometry.of_conv_transpose(
        (x.shape[2], x.shape[3]),
        (weight.shape[2], weight.shape[3]),
        layer.stride,
        layer.padding,
        layer.output_padding,
        layer.dilation,
    )
    n, (o, c) = x.shape[0], weight.shape[:2]  # o is of x here: the smaller image's channels
    forward, backward = Steps(backend), Steps(backend)

    rows = _rows(forward, "x", x.data, g)
    kernel = _kernel(forward, weight.data, g, "x")
    columns = forward.take(
        "product",
        "columns",
        f"rows @ kernel^T: {_product(n * g.positions, o, g.taps * c)}",
        backend.matmul(rows, kernel.T),
    )
    y = _overlap(forward, "y", columns, n, g)
    if bias is not None:
        forward.take(
            "bias", "y", f"the bias {bias.shape} is added to each pixel", y + per_channel(bias.data, 4)
        )

    dcolumns = _columns(backward, "dy", dy.data, g)
    drows = backward.take(
        "product",
        "drows",
        f"dcolumns @ kernel: {_product(n * g.positions, g.taps * c, o)}",
        backend.matmul(dcolumns, kernel),
    )
    gradients = {"x": _images(backward, "dx", drows, n, g)}
    gradients["weight"] = _weight_gradient(backward, "dcolumns^T @ rows", dcolumns, rows, g)
    if bias is not None:
        gradients["bias"] = _bias_gradient(backward, dy.data)

    both = "convolve_and_weight_gradient"
    own = _forms(x, g, n, c, o, {"y": "convolve_input_gradient", "dx": both, "dweight": both})
    checks = checks_of(layer, g, x, dy, (*forward, *backward), seed)
    sizes = {"bias": norms(host(backend, dy.data))}
    return Opened(forward, backward, gradients, (own,), loop_of(layer, g, n), checks, sizes=sizes)


# -- the steps that both take -----------------------------------------------------------------------


def _columns(steps: Steps, name: str, image: Array, g: ConvGeometry) -> Array:
    """im2col of an image (N, C, H, W), in two steps."""
    n, c = image.shape[:2]
    prefix = name[:-1]  # "d" of a gradient
    margin = _margin(g)
    zeros = f"with zeros around it: {margin}" if margin else "with nothing around it"
    steps.take(
        "pad",
        f"{prefix}canvas",
        f"{name} {zeros}" + (f". {_side_by_side(c)}, as the columns want them" if c > 1 else ""),
        channels_first(steps.backend.canvas(image, g)),
    )
    return steps.take(
        "im2col",
        f"{prefix}columns",
        f"at each of the {n} x {_size(g.output_size)} places of the kernel the {_size(g.kernel_size)} pixels "
        f"under its taps{_spacing(g)}, one after another, each with its {_count(c, 'channel')}: "
        f"{n * g.positions:,} rows of {g.taps * c:,}. The place (p, q) begins at the row "
        f"{_times(g.stride[0], 'p')} and the column {_times(g.stride[1], 'q')} of the {prefix}canvas",
        steps.backend.im2col(image, g),
    )


def _kernel(steps: Steps, weight: Array, g: ConvGeometry, of: str) -> Array:
    """The weight (O, C, kh, kw) as a matrix; O are the channels `of` the smaller image."""
    o, c = weight.shape[:2]
    return steps.take(
        "kernel",
        "kernel",
        f"the weight {tuple(weight.shape)} as a matrix: a row for each of {_size(g.kernel_size)} taps x "
        f"{_count(c, 'channel')}, in the order of the columns, and a column for each of {of}'s "
        f"{_count(o, 'channel')}",
        steps.backend.kernel_matrix(weight),
    )


def _rows(steps: Steps, name: str, image: Array, g: ConvGeometry) -> Array:
    """The smaller image, (N, O, oh, ow), with a row for each pixel."""
    n, o = image.shape[:2]
    prefix = name[:-1]  # "d" of a gradient
    return steps.take(
        "rows",
        f"{prefix}rows",
        f"{name} with each of its {n} x {_size(g.output_size)} pixels as a row of {_count(o, 'channel')}",
        steps.backend.position_rows(image),
    )


def _images(steps: Steps, name: str, rows: Array, n: int, g: ConvGeometry) -> Array:
    """The rows as the smaller image again."""
    o = rows.shape[1]
    return steps.take(
        "images",
        name,
        f"the rows seen as {_count(n, 'image')} of {_count(o, 'channel')} x {_size(g.output_size)} pixels; "
        "nothing is copied" + (f". {_side_by_side(o)}, as before" if o > 1 else ""),
        channels_first(rows.reshape(n, *g.output_size, o)),
    )


def _overlap(steps: Steps, name: str, columns: Array, n: int, g: ConvGeometry) -> Array:
    """col2im: the columns' numbers added up to the larger image."""
    times = [np.bincount(taps(g, axis)[0], minlength=g.input_size[axis]) for axis in range(2)]
    least, most = (int(f(times[0])) * int(f(times[1])) for f in (np.min, np.max))
    many = f"{least}" if least == most else f"{least} to {most}"
    added = f"what overlaps is added: a pixel is the sum of {many}" if most > 1 else "nothing overlaps"
    margin = _margin(g)
    return steps.take(
        "col2im",
        name,
        f"the way back of im2col: each row is laid on the image as {_size(g.kernel_size)} pixels"
        f"{_spacing(g)}, {_size(g.stride)} pixels from the one before, and {added}"
        + (f". What falls outside ({margin}) is dropped" if margin else ""),
        steps.backend.col2im(columns, n, g),
    )


def _weight_gradient(steps: Steps, product: str, columns: Array, rows: Array, g: ConvGeometry) -> Array:
    c, o = columns.shape[1] // g.taps, rows.shape[1]
    matrix = steps.take(
        "product",
        "dkernel",
        f"{product}: a weight is used at each of the {len(rows):,} places: there what it multiplied, times "
        "the gradient of what that went into; all of them added up",
        steps.backend.matmul(columns.T, rows),
    )
    return steps.take(
        "kernel back",
        "dweight",
        f"the same numbers in the weight's shape, {(o, c, *g.kernel_size)}",
        matrix.reshape(*g.kernel_size, c, o).transpose(3, 2, 0, 1),  # (O, C, kh, kw)
    )


def _bias_gradient(steps: Steps, dy: Array) -> Array:
    n, _, height, width = dy.shape
    return steps.take(
        "sum",
        "dbias",
        f"the sum of dy over {n} x {height} x {width} pixels, for each channel",
        steps.backend.sum(dy, (0, 2, 3)),
    )


# -- in words ----------------------------------------------------------------------------------------


def _forms(x: Tensor, g: ConvGeometry, n: int, c: int, o: int, products: dict[str, str]) -> str:
    """Return the form that the engine picks for each product, by the symbol of its result."""
    by_form: dict[str, list[str]] = {}
    for symbol, product in products.items():
        by_form.setdefault(x.backend.convolution_form(product, g, n, c, o), []).append(symbol)
    forms = "; ".join(f"{_listed(symbols)} {form}" for form, symbols in by_form.items())
    return f"For these sizes the engine itself computes {forms}. Below it is compared with the steps."


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _product(rows: int, terms: int, across: int) -> str:
    return f"({rows:,}, {terms:,}) by ({terms:,}, {across:,}), {rows * terms * across:,} multiplications"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + "s" * (count != 1)


def _size(pair: tuple[int, ...]) -> str:
    return f"{pair[0]} x {pair[1]}"


def _margin(g: ConvGeometry) -> str:
    """Rows and columns of the canvas around the larger image; "" for none."""
    (top, _), (left, _), (height, width) = *g.padding, g.canvas_size
    bottom, right = height - top - g.input_size[0], width - left - g.input_size[1]
    sides = {"above": top, "below": bottom, "left": left, "right": right}
    return ", ".join(f"{count} {side}" for side, count in sides.items()) if any(sides.values()) else ""


def _side_by_side(channels: int) -> str:
    return f"In memory the {channels:,} channels of a pixel lie side by side"


def _times(factor: int, name: str) -> str:
    return name if factor == 1 else f"{factor} {name}"


def _spacing(g: ConvGeometry) -> str:
    return "" if g.dilation == (1, 1) else f" ({_size(g.dilation)} pixels from tap to tap)"
