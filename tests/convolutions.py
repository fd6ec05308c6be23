"""Operands of convolutions in several memory orders, and the check of a form against the plain one.

NaN lie around every array that goes in. Around every one that is made lie bytes that nobody may write, and it
is full of NaN at first.
"""

import numpy as np
from accuracy import ACCURACY
from forms import Reference
from poisoned import guarded

import minigrad as mg
from minigrad.backend.epilogue import Epilogue

PLAIN = Reference()
FRAME = 48  # numbers around what goes in
ORDERS = [
    "channels first", "channels last", "every other", "backwards", "packed records", "an odd address",
    "one image",
]  # fmt: skip


def framed(values):
    """The values in memory of their own, between NaN."""
    memory = np.full(values.size + 2 * FRAME, np.nan, values.dtype)
    inner = memory[FRAME : FRAME + values.size].reshape(values.shape)
    inner[...] = values
    return inner


def laid(values, order):
    """The values of images (N, C, H, W) in another memory order; what lies between them is NaN."""
    n, c, h, w = values.shape
    if order == "channels last":
        return framed(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if order == "every other":
        memory = framed(np.full((2 * n, c + 1, h, 3 * w), np.nan, values.dtype))
        view = memory[::2, 1:, :, 1::3]
        view[...] = values
        return view
    if order == "backwards":
        return framed(np.ascontiguousarray(values[::-1, ::-1, ::-1, ::-1]))[::-1, ::-1, ::-1, ::-1]
    if order == "one image":
        return np.broadcast_to(framed(values[:1]), values.shape)
    if order == "packed records":
        memory = np.zeros(values.shape, [("byte", "i1"), ("number", values.dtype)])
        memory["number"] = values
        return memory["number"]
    if order == "an odd address":
        memory = np.zeros(values.nbytes + 1, np.uint8)
        view = memory[1:].view(values.dtype).reshape(values.shape)
        view[...] = values
        return view
    return framed(values)


def operands(geometry, n, c, o, dtype, orders=("channels last", "channels first", "channels last")):
    """x, weight and dy."""
    rng = np.random.default_rng(n + 131 * c + 977 * o)
    shapes = (n, c, *geometry.input_size), (o, c, *geometry.kernel_size), (n, o, *geometry.output_size)
    return [
        laid(rng.standard_normal(s).astype(dtype), order) for s, order in zip(shapes, orders, strict=True)
    ]


def biases(geometry, c, o, dtype):
    """One of a convolution (O,) and one of its input gradient (C,), every other number of some memory."""
    rng = np.random.default_rng(c)
    return [rng.standard_normal(2 * size).astype(dtype)[::2] for size in (o, c)]


def first(y):
    """(N, H, W, C) as (N, C, H, W)."""
    assert y.flags.c_contiguous
    return y.transpose(0, 3, 1, 2)


def assert_near(found, right, dtype, terms):
    """`found` is as near to `right` as the dtype allows for sums of so many products of standard normals.

    The few sums of a small result may all cancel: the rounding is that of sums of the usual size.
    """
    assert (found.shape, str(found.dtype)) == (right.shape, dtype)
    size = max(np.linalg.norm(right), np.sqrt(terms * right.size))
    assert np.linalg.norm(found - right) <= ACCURACY[dtype] * size


def check(form, geometry, x, weight, dy, bias=None, back_bias=None, slope=1.0):
    """The three products, alone and by pairs."""
    before = [a.tobytes() for a in (x, weight, dy)]
    epilogue, dtype = Epilogue(slope), str(x.dtype)
    with guarded():
        y = form.convolve(x, weight, bias, geometry, epilogue)
        dx = form.input_gradient(dy, weight, back_bias, geometry, epilogue)
        dw = form.weight_gradient(x, dy, geometry)
        pair = form.convolve_and_weight_gradient(x, weight, dy, geometry)
        gradients = form.gradients(x, weight, dy, geometry)
    assert before == [a.tobytes() for a in (x, weight, dy)]
    x, weight, dy = (a.astype(np.float64) for a in (x, weight, dy))
    bias, back_bias = (None if b is None else b.astype(np.float64) for b in (bias, back_bias))
    terms = geometry.taps * x.shape[1]
    assert_near(first(y), PLAIN.convolve(x, weight, bias, geometry, epilogue)[0], dtype, terms)
    assert_near(first(pair[0]), PLAIN.convolve(x, weight, None, geometry)[0], dtype, terms)
    terms = geometry.taps * dy.shape[1]
    right = PLAIN.convolve_input_gradient(dy, weight, back_bias, geometry, epilogue)
    assert_near(first(dx), right, dtype, terms)
    right = PLAIN.convolve_input_gradient(dy, weight, None, geometry)
    assert_near(first(gradients[0]), right, dtype, terms)
    right = PLAIN.convolve_weight_gradient(x, dy, geometry)
    for found in (dw, pair[1], gradients[1]):
        assert found.flags.c_contiguous
        assert_near(found, right, dtype, len(x) * geometry.positions)


def gradients_agree(call):
    """Whether both orders of the gradients of a 2x2 convolution of 16 channels agree with differences."""
    rng = np.random.default_rng(1)
    shapes = (1, 16, 3, 2), (16, 16, 2, 2), (16,)
    inputs = [mg.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]
    x, w, b = inputs
    few = rng.standard_normal((5, 16, 16, 2, 2))

    def called(x, s, b):  # along a few directions of the weight: it has too many numbers
        return call(x, w + (s.reshape(5, 1, 1, 1, 1) * mg.tensor(few)).sum(0), b, padding=1)

    directions = mg.tensor(rng.standard_normal(5), requires_grad=True)
    return mg.gradcheck(called, [x, directions, b], order=2)
