"""Every kernel against the reference body of its method (base.py, convolution.py), run by NumPy in float64.

Device memory is guarded here: before, in and after each array it is NaN, so that what a kernel forgets to
write, or reads past an end, shows in its result; and what it writes past an end is found.
"""

import copy
import math
import re

import numpy as np
import pytest
from accuracy import ACCURACY, assert_close

import minigrad as mg
from minigrad import backend, nn, optim
from minigrad.backend import launches
from minigrad.backend.arrays import channels_first, channels_last
from minigrad.backend.base import Backend
from minigrad.backend.epilogue import Epilogue
from minigrad.backend.geometry import ConvGeometry
from minigrad.backend.gpu.kernels import load
from minigrad.backend.philox import philox

pytestmark = pytest.mark.gpu

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SLOPES = pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
GUARD = 512  # bytes, which is what CuPy's own allocations are aligned to


class Reference(Backend):
    """The reference bodies on NumPy's arrays."""

    device = "reference"
    xp = np


REFERENCE = Reference()


@pytest.fixture
def gpu():
    return backend.get("gpu")


@pytest.fixture(autouse=True)
def guarded(gpu):
    """Every array of the test in memory of its own, with NaN in it and around it.

    Each has a NaN of its own, since one that is read past an end may be written past another; and a
    signalling one, which changes where a kernel computes with it in place.
    """
    cuda, made = gpu.xp.cuda, []

    def allocate(size):
        # Two words make a double, the low one first; the low one alone is a float.
        pair = np.array([0x7F800001, 0x7FF00001], np.uint32) + np.uint32(len(made))
        fill = np.tile(pair, -(-(size + 2 * GUARD) // 8)).view(np.uint8)[: size + 2 * GUARD]
        memory = cuda.Memory(len(fill))
        cuda.MemoryPointer(memory, 0).copy_from_host(fill.ctypes.data, len(fill))
        made.append((memory, fill))
        return cuda.MemoryPointer(memory, GUARD)

    with cuda.using_allocator(allocate):
        yield
    for memory, fill in made:
        whole = gpu.xp.ndarray(fill.shape, "uint8", cuda.MemoryPointer(memory, 0)).get()
        assert np.array_equal(whole[:GUARD], fill[:GUARD])
        assert np.array_equal(whole[-GUARD:], fill[-GUARD:])


NUMBERS = {
    "int": "int32", "unsigned int": "uint32", "long long": "int64", "u64": "uint64",
    "float": "float32", "double": "float64",
}  # fmt: skip
POINTERS = {**NUMBERS, "unsigned char": "uint8", "bool": "bool", "Place": "uint64"}  # its six numbers


def declared(file, kernel, types):
    """The types of a kernel's parameters, those of its template filled in: ["const float*", "int", ...]."""
    found = re.search(rf"(?:template <([^>]*)>\n)?__global__ void {kernel}\(([^)]*)\)", load.source(file))
    names = [name.split()[-1] for name in (found[1] or "").split(",") if name.strip()]
    given = dict(zip(names, types.strip("<>").split(", "), strict=bool(names)))
    parameters = (" ".join(p.split()[:-1]) for p in found[2].split(","))
    return [re.sub(r"\b[A-Z]\b", lambda name: given[name[0]], p) for p in parameters]


def assert_as_declared(arguments, parameters, gpu):
    """A launch copies bytes: what differs from its declaration is read as something else."""
    for argument, parameter in zip(arguments, parameters, strict=True):
        if parameter.endswith("*") and gpu.owns(argument):
            assert argument.dtype == POINTERS[parameter.removeprefix("const ").removesuffix("*")]
        elif parameter.endswith("*"):
            assert (type(argument), argument) == (np.uint64, 0)
        elif parameter in NUMBERS:
            assert argument.dtype == NUMBERS[parameter]
        else:
            assert isinstance(argument, np.void)


@pytest.fixture(autouse=True)
def declarations(monkeypatch, gpu):
    """Every launch of the test is held against the declaration of its kernel."""
    function = load.function

    def watched(file, kernel, types):
        launch, parameters = function(file, kernel, types), declared(file, kernel, types)

        def checked(grid, block, arguments):
            assert_as_declared(arguments, parameters, gpu)
            launch(grid, block, arguments)

        return checked

    monkeypatch.setattr(load, "function", watched)


def numbers(seed, shape, dtype="float64", scale=1.0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale + shift).astype(dtype)


def misaligned(a, xp):
    """The same values in memory that starts one element after a round address."""
    room = xp.zeros(a.size + 1, a.dtype)
    room[1:] = a.reshape(-1)
    return room[1:].reshape(a.shape)


LAYOUTS = {
    "as made": lambda a, xp: a,
    "transposed": lambda a, xp: a.T.copy().T,
    "every other": lambda a, xp: a.repeat(2, axis=-1)[..., ::2] if a.ndim else a,
    "reversed": lambda a, xp: a[::-1].copy()[::-1] if a.ndim else a,
    "misaligned": misaligned,
    "channels innermost": lambda a, xp: (
        channels_first(channels_last(a).copy()) if a.ndim == 4 else a.T.copy().T
    ),
    "misaligned channels": lambda a, xp: (
        channels_first(misaligned(channels_last(a).copy(), xp)) if a.ndim == 4 else misaligned(a, xp)
    ),
}
EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS)


def on(gpu, array, layout="as made"):
    """A NumPy array on the device, laid out like that."""
    laid_out = LAYOUTS[layout](gpu.asarray(array), gpu.xp)
    assert laid_out.shape == np.shape(array)
    return laid_out


def off(gpu, array):
    assert gpu.owns(array)
    return gpu.to_numpy(array)


def double(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


# -- arrays ----------------------------------------------------------------------------------------------


@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(), (0,), (33,), (4, 5), (2, 3, 4, 5), (0, 4, 2, 2)], ids=str)
def test_a_copy_lies_in_the_same_order_in_memory_of_its_own(gpu, shape, layout):
    values = numbers(38, shape, "float32")
    array = on(gpu, values, layout)
    copied = gpu.copy(array)
    assert gpu.owns_memory(copied)
    assert np.array_equal(off(gpu, copied), values)
    if array.size and layout not in ("every other", "reversed"):
        assert copied.strides == array.strides  # nothing lies between the elements
    array[...] = 0
    assert np.array_equal(off(gpu, copied), values)


OTHER_ORDER = [(3, 8, 1, 8), (2, 33, 5, 13), (1, 64, 8, 8), (5, 9, 31, 1), (7, 130, 7, 7)]


@DTYPES
@pytest.mark.parametrize("shape", OTHER_ORDER, ids=str)
def test_images_in_the_other_memory_order(gpu, given, shape, dtype, monkeypatch):
    """Copies, and the rows of a Flatten, by the kernel for it, also with fewer blocks than images."""
    from minigrad.backend.gpu.kernels import launch

    contiguous = launch.contiguous
    monkeypatch.setattr(launch, "MOST_BLOCKS", 5)
    n, c, h, w = shape
    values = np.arange(n * c * h * w, dtype=dtype).reshape(shape)
    innermost = channels_first(on(gpu, channels_last(values).ravel()).reshape(n, h, w, c))
    outermost = on(gpu, values.ravel()).reshape(shape)
    for found, right in (
        (contiguous(innermost), values),
        (contiguous(channels_last(outermost)), channels_last(values)),
        (gpu.reshape(innermost, (n, c * h * w)), values.reshape(n, -1)),
    ):
        assert found.flags.c_contiguous
        assert gpu.owns_memory(found)
        assert np.array_equal(off(gpu, found), right)
        work = given.pop(0)
        assert work.kernel == f"transpose<{load.FLOATS[dtype]}>"
        assert (work.bytes, work.flop) == (2 * values.nbytes, 0)
    assert not given


@EVERY_LAYOUT
@pytest.mark.parametrize(
    "shape", [(2, 9, 5, 3), (2, 3, 16, 16), (2, 1, 9, 9), (0, 9, 9, 9), (3, 33)], ids=str
)
def test_reshapes_of_any_memory_order(gpu, given, shape, layout):
    """A view where one shows it so, else one copy, which owns its memory."""
    from minigrad.backend.gpu.kernels.launch import contiguous

    values = numbers(46, shape, "float32")
    x = on(gpu, values, layout)
    given.clear()
    for new in ((shape[0], math.prod(shape[1:])), (math.prod(shape),), (*shape[:2], math.prod(shape[2:]))):
        found = gpu.reshape(x, new)
        assert np.array_equal(off(gpu, found), values.reshape(new))
        copied = x.size and found.data.ptr != x.data.ptr
        assert len(given) == copied <= gpu.owns_memory(found)
        assert not (copied and x.flags.c_contiguous)
        given.clear()
    for dtype in (None, "float32", "float64"):
        copied = contiguous(x, dtype)
        assert np.array_equal(off(gpu, copied), values)
        assert copied.dtype == (dtype or x.dtype)
    with pytest.raises(ValueError, match="reshape"):
        gpu.reshape(x, (5, 7, 11))


def test_numbers_of_several_arrays(gpu):
    values = [np.array(0.1, "float32"), np.array([-2.5], "float32"), np.array([[1e300]], "float64")]
    assert gpu.numbers([on(gpu, a) for a in values[:2]]) == [float(np.float32(0.1)), -2.5]
    assert gpu.numbers([on(gpu, a) for a in values]) == [float(np.float32(0.1)), -2.5, 1e300]
    assert gpu.numbers([on(gpu, a) for a in values]) == REFERENCE.numbers(values)
    assert gpu.numbers([]) == []


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint64"])
@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3), (2, 3, 4, 5), (0, 4, 2, 2)], ids=str)
def test_numbers_of_the_host(gpu, shape, dtype):
    values, asked = (numbers(39, shape) * 1000).astype("int64").astype(dtype), []

    def make():
        asked.append(len(asked))
        return values + np.array(asked[-1], dtype)

    for call in range(2):
        found = gpu.from_host(make, shape, dtype)
        assert (found.shape, found.dtype) == (shape, dtype)
        assert np.array_equal(off(gpu, found), values + np.array(call, dtype))
        assert channels_last(found).flags.c_contiguous if len(shape) == 4 else found.flags.c_contiguous
    assert asked == [0, 1]


# -- element by element --------------------------------------------------------------------------------

SHAPES = [(), (0,), (1,), (31,), (33,), (257,), (3, 257), (5, 0), (2, 3, 4), (2, 5, 3, 7), (0, 4, 2, 2)]
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
FORWARD = {
    "leaky_relu": lambda b, x: b.leaky_relu(x, 0.2),
    "relu": lambda b, x: b.leaky_relu(x, 0.0),
    "tanh": lambda b, x: b.tanh(x),
    "sigmoid": lambda b, x: b.sigmoid(x),
    "softplus": lambda b, x: b.softplus(x),
}
BACKWARD = {
    "leaky_relu": lambda b, dy, y: b.leaky_relu_backward(dy, y, 0.2),
    "tanh": lambda b, dy, y: b.tanh_backward(dy, y),
    "sigmoid": lambda b, dy, y: b.sigmoid_backward(dy, y),
}


@DTYPES
@EVERY_LAYOUT
@EVERY_SHAPE
@pytest.mark.parametrize("name", FORWARD)
def test_activations(gpu, name, shape, layout, dtype):
    x = numbers(1, shape, dtype, scale=2.0)
    y = FORWARD[name](gpu, on(gpu, x, layout))
    assert_close(off(gpu, y), FORWARD[name](REFERENCE, *double(x)), dtype)


@DTYPES
@EVERY_LAYOUT
@EVERY_SHAPE
@pytest.mark.parametrize("name", BACKWARD)
def test_activations_backward(gpu, name, shape, layout, dtype):
    dy, y = numbers(2, shape, dtype), np.tanh(numbers(3, shape)).astype(dtype)
    expected = BACKWARD[name](REFERENCE, *double(dy, y))
    for layouts in ((layout, "as made"), ("as made", layout)):
        dx = BACKWARD[name](gpu, *(on(gpu, a, how) for a, how in zip((dy, y), layouts, strict=True)))
        assert_close(off(gpu, dx), expected, dtype)


@DTYPES
@EVERY_LAYOUT
@EVERY_SHAPE
def test_mask_scale(gpu, shape, layout, dtype):
    x, mask = numbers(4, shape, dtype), np.asarray(numbers(5, shape) > 0)
    expected = REFERENCE.mask_scale(*double(x), mask, 1.25)
    for layouts in ((layout, "as made"), ("as made", layout)):
        y = gpu.mask_scale(on(gpu, x, layouts[0]), on(gpu, mask, layouts[1]), 1.25)
        assert_close(off(gpu, y), expected, dtype)


@DTYPES
@SLOPES
@EVERY_LAYOUT
@EVERY_SHAPE
def test_leaky_dropout_backward(gpu, shape, layout, slope, dtype):
    dy, y, mask = numbers(4, shape, dtype), numbers(5, shape, dtype), np.asarray(numbers(6, shape) > 0)
    expected = np.where(mask, dy * 1.25, 0.0) * np.where(y > 0, 1.0, slope)
    for i in range(3):
        given = (on(gpu, a, layout if i == j else "as made") for j, a in enumerate((dy, y, mask)))
        assert_close(off(gpu, gpu.leaky_dropout_backward(*given, slope, 1.25)), expected, dtype)


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1000.0, -1000.0, 90.0, -90.0, 1e-30, -1e-30]


@DTYPES
@pytest.mark.parametrize("name", FORWARD)
def test_activations_of_what_is_far_out_or_no_number(gpu, name, dtype):
    x = np.array(SPECIAL, dtype)
    expected = FORWARD[name](REFERENCE, *double(x)).astype(dtype)
    found = off(gpu, FORWARD[name](gpu, on(gpu, x)))
    np.testing.assert_allclose(found, expected, rtol=ACCURACY[dtype], atol=np.finfo(dtype).tiny)


@DTYPES
def test_what_is_no_number_stays_none_in_gradients_but_for_what_is_dropped(gpu, dtype):
    values = np.array([np.nan, np.inf, -np.inf, 1.0], dtype)
    y, mask = np.array([1.0, -1.0, np.nan, 0.0], dtype), np.array([True, True, True, False])
    for slope, expected in ((0.5, [np.nan, np.inf, -np.inf, 0.5]), (0.0, [np.nan, 0.0, 0.0, 0.0])):
        found = gpu.leaky_relu_backward(on(gpu, values), on(gpu, y), slope)
        np.testing.assert_array_equal(off(gpu, found), expected)
        np.testing.assert_array_equal(REFERENCE.leaky_relu_backward(values, y, slope), expected)
        expected = [*np.array(expected[:3]) * 2, 0.0]
        found = gpu.leaky_dropout_backward(on(gpu, values), on(gpu, y), on(gpu, mask), slope, 2.0)
        np.testing.assert_array_equal(off(gpu, found), expected)
        np.testing.assert_array_equal(REFERENCE.leaky_dropout_backward(values, y, mask, slope, 2.0), expected)
        dropped = gpu.leaky_dropout_backward(on(gpu, values), on(gpu, y), on(gpu, mask & False), slope, 2.0)
        np.testing.assert_array_equal(off(gpu, dropped), np.zeros(4))
    found = gpu.mask_scale(on(gpu, np.array([np.nan, np.nan], dtype)), on(gpu, mask[2:]), 2.0)
    np.testing.assert_array_equal(off(gpu, found), [np.nan, 0.0])


def test_a_gradient_that_is_stretched_and_one_of_another_dtype(gpu):
    """Kernels see memory alone: a stretched array has too little of it, one of another dtype too much."""
    y = numbers(6, (3, 33), "float32")
    stretched = gpu.xp.broadcast_to(on(gpu, np.array(2.0, "float32")), y.shape)
    assert_close(off(gpu, gpu.tanh_backward(stretched, on(gpu, y))), 2 * (1 - np.float64(y) ** 2), "float32")
    dx = gpu.tanh_backward(on(gpu, np.full((3, 33), 2.0, "float32")), on(gpu, y.astype("float64")))
    assert_close(off(gpu, dx), 2 * (1 - np.float64(y) ** 2), "float32")


def test_what_does_not_fit_is_refused(gpu):
    x, weight = on(gpu, numbers(7, (4, 3), "float32")), on(gpu, np.ones(4, "float32"))
    geometry = ConvGeometry.of_conv((5, 4), (3, 2), 1, 0, 1)
    image = on(gpu, numbers(8, (2, 3, 5, 5), "float32"))
    with pytest.raises(TypeError, match="expected float32 or float64, got int64"):
        gpu.tanh(on(gpu, np.arange(3)))
    with pytest.raises(ValueError, match="broadcast"):
        gpu.tanh_backward(x, x[:, :2])
    with pytest.raises(ValueError, match=r"expected an array of shape \(3,\), got \(4,\)"):
        gpu.normalize(x, weight, weight, 1e-5, weight, weight)
    with pytest.raises(ValueError, match=r"im2col: expected images of \(5, 4\), got \(5, 5\)"):
        gpu.im2col(image, geometry)
    with pytest.raises(ValueError, match="col2im: columns"):
        gpu.col2im(on(gpu, numbers(9, (17, 18), "float32")), 2, geometry)


# -- dropout -------------------------------------------------------------------------------------------

LAST = 2**64 - 1
PLACES = {
    "start": ((0, 0), (0, 0, 0, 0)),
    "a seed's": ((0x0123456789ABCDEF, 0xFEDCBA9876543210), (0, 7, 0, 3)),
    "carry": ((5, 7), (LAST, 0, 0, 0)),
    "carry on the way": ((5, 7), (LAST - 3, 4, 1, 2)),
    "carry twice": ((5, 7), (LAST - 2, LAST, 0, 2)),
    "carry through": ((5, 7), (LAST - 2, LAST, LAST, 2)),
    "carry around": ((5, 7), (LAST - 2, LAST, LAST, LAST)),
}


@DTYPES
@pytest.mark.parametrize("place", PLACES)
@EVERY_SHAPE
def test_dropout_is_the_cpus_bit_for_bit(gpu, shape, place, dtype):
    x = numbers(10, shape, dtype)
    y, mask = gpu.dropout(on(gpu, x), 0.4, *PLACES[place])
    expected = backend.get("cpu").dropout_mask(shape, 0.4, *PLACES[place])
    assert np.array_equal(off(gpu, mask), expected)
    assert mask.shape == y.shape == shape
    assert_close(off(gpu, y), REFERENCE.mask_scale(*double(x), expected, 1 / 0.6), dtype)


@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(33, 65), (2, 5, 3, 7), (3, 4, 9, 11)], ids=str)
def test_dropout_counts_elements_whatever_their_order_in_memory(gpu, shape, layout):
    x = numbers(11, shape, "float32")
    y, mask = gpu.dropout(on(gpu, x, layout), 0.5, *PLACES["a seed's"])
    expected = backend.get("cpu").dropout_mask(shape, 0.5, *PLACES["a seed's"])
    assert np.array_equal(off(gpu, mask), expected)
    assert np.array_equal(off(gpu, y), x * expected * np.float32(2.0))


@pytest.mark.parametrize("p", [2.0**-16, 0.25, 1 - 2.0**-16, 1 - 2.0**-40])
def test_dropout_at_the_ends_of_its_range(gpu, p):
    x = np.ones(20_011, "float32")
    y, mask = gpu.dropout(on(gpu, x), p, *PLACES["a seed's"])
    expected, kept = REFERENCE.dropout(x, p, *PLACES["a seed's"])
    assert np.array_equal(off(gpu, mask), kept)
    assert np.array_equal(off(gpu, y), expected)


def test_dropout_keeps_a_draw_that_is_the_limit_itself(gpu):
    place = PLACES["a seed's"]
    draw = int(philox(*place).random_raw(1)[0]) & 0xFFFF
    for p, kept in ((draw / 2**16, True), ((draw + 1) / 2**16, False)):
        _, mask = gpu.dropout(on(gpu, np.ones(3, "float32")), p, *place)
        assert off(gpu, mask)[0] == REFERENCE.dropout_mask((3,), p, *place)[0] == kept


def test_dropout_lets_through_what_is_no_number_where_it_keeps_it(gpu):
    y, mask = gpu.dropout(on(gpu, np.full(64, np.nan, "float32")), 0.5, *PLACES["a seed's"])
    assert not off(gpu, mask).all()
    np.testing.assert_array_equal(off(gpu, y), np.where(off(gpu, mask), np.nan, 0))


@DTYPES
@SLOPES
@pytest.mark.parametrize("p", [0.0, 0.4, 1 - 2.0**-16, 1 - 2.0**-40])
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(
    "shape",
    [*((1, 1), (33, 1), (5, 31), (257, 3), (0, 4), (12, 16)), *((5000, 1), (70, 64), (33, 127), (20, 300))],
    ids=str,
)
def test_rows_are_finished_in_place(gpu, shape, with_bias, p, slope, dtype):
    rows, bias = numbers(12, shape, dtype), numbers(13, shape[1], dtype) if with_bias else None
    epilogue = Epilogue(slope, p, PLACES["a seed's"])
    y = rows.astype("float64") + (0.0 if bias is None else bias)
    y = np.where(y > 0, y, slope * y)
    mask = REFERENCE.dropout_mask(shape, p, *PLACES["a seed's"])
    given = on(gpu, rows)
    dropped = gpu.finish_rows(given, None if bias is None else on(gpu, bias, "every other"), epilogue)
    assert_close(off(gpu, given), np.where(mask, y / (1 - p), 0.0) if p else y, dtype)
    if p:
        assert np.array_equal(off(gpu, dropped), mask)
    else:
        assert dropped is None


@SLOPES
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_rows_that_are_no_numbers_are_finished(gpu, p, slope):
    rows = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0]] * 8, "float32")
    epilogue = Epilogue(slope, p, PLACES["a seed's"])
    expected, mask = REFERENCE.apply_epilogue(rows, epilogue)
    given = on(gpu, rows)
    dropped = gpu.finish_rows(given, None, epilogue)
    np.testing.assert_array_equal(off(gpu, given), expected)
    assert p == 0 or np.array_equal(off(gpu, dropped), mask)


# -- convolution -----------------------------------------------------------------------------------------

GEOMETRIES = {
    "plain": ConvGeometry.of_conv((5, 4), (3, 2), 1, 0, 1),
    "one pixel": ConvGeometry.of_conv((1, 1), (1, 1), 1, 0, 1),
    "stride down": ConvGeometry.of_conv((9, 7), (3, 3), (2, 1), 1, 1),
    "stride across": ConvGeometry.of_conv((7, 9), (2, 4), (1, 3), (0, 1), 1),
    "padding above": ConvGeometry.of_conv((4, 5), (3, 3), 2, ((2, 0), (0, 0)), 1),
    "padding below": ConvGeometry.of_conv((4, 5), (3, 3), 2, ((0, 2), (0, 0)), 1),
    "padding left": ConvGeometry.of_conv((5, 4), (3, 3), 2, ((0, 0), (3, 0)), 1),
    "padding right": ConvGeometry.of_conv((5, 4), (3, 3), 2, ((0, 0), (0, 3)), 1),
    "dilation down": ConvGeometry.of_conv((9, 6), (3, 2), 1, (1, 0), (3, 1)),
    "dilation across": ConvGeometry.of_conv((6, 9), (2, 3), (1, 2), (0, 2), (1, 3)),
    "stride over kernel": ConvGeometry.of_conv((8, 7), (2, 1), 3, 0, 1),
    "same": ConvGeometry.of_conv((7, 8), (5, 4), 2, "same", 1),
    "output padding": ConvGeometry.of_conv_transpose((3, 4), (4, 5), 3, (1, 2), (2, 1), 1),
    "many": ConvGeometry.of_conv((31, 33), (4, 4), 2, 1, 1),
}
EVERY_GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
CHANNELS = pytest.mark.parametrize("c", [1, 3, 4, 6, 8])


@DTYPES
@CHANNELS
@EVERY_GEOMETRY
def test_im2col_and_back(gpu, geometry, c, dtype):
    for n in (0, 1, 3):
        x = numbers(12, (n, c, *geometry.input_size), dtype)
        columns = REFERENCE.im2col(x, geometry)
        for layout in ("as made", "channels innermost"):
            assert np.array_equal(off(gpu, gpu.im2col(on(gpu, x, layout), geometry)), columns)
        dy = numbers(13, columns.shape, dtype)
        expected = REFERENCE.col2im(*double(dy), n, geometry)
        assert_close(off(gpu, gpu.col2im(on(gpu, dy), n, geometry)), expected, dtype)


@DTYPES
@CHANNELS
@EVERY_LAYOUT
@pytest.mark.parametrize("shape", ["plain", "dilation across", "padding left"])
def test_im2col_and_back_of_any_memory_order(gpu, shape, layout, c, dtype):
    geometry = GEOMETRIES[shape]
    x = numbers(14, (3, c, *geometry.input_size), dtype)
    columns = REFERENCE.im2col(x, geometry)
    assert np.array_equal(off(gpu, gpu.im2col(on(gpu, x, layout), geometry)), columns)
    dy = numbers(15, columns.shape, dtype)
    expected = REFERENCE.col2im(*double(dy), 3, geometry)
    assert_close(off(gpu, gpu.col2im(on(gpu, dy, layout), 3, geometry)), expected, dtype)


def test_im2col_of_a_part_of_an_image_and_of_a_stretched_one(gpu):
    """Channels innermost, but with gaps that 16-byte loads can't take."""
    geometry = GEOMETRIES["plain"]
    whole = numbers(16, (2, 7, 9, 6), "float32")  # (N, H, W, C)
    for first in (0, 1):
        part = slice(None), slice(first, first + 5), slice(first, first + 4), slice(2 * first, 2 * first + 4)
        found = gpu.im2col(channels_first(on(gpu, whole)[part]), geometry)
        assert np.array_equal(off(gpu, found), REFERENCE.im2col(channels_first(whole[part]), geometry))
    part = channels_first(whole[:, :5, :4, :4])
    stretched = gpu.xp.broadcast_to(on(gpu, part[:1]), part.shape)
    expected = REFERENCE.im2col(np.broadcast_to(part[:1], part.shape), geometry)
    assert np.array_equal(off(gpu, gpu.im2col(stretched, geometry)), expected)


def result_of(engine, method, image, weight, bias, geometry, slope):
    """The result of a convolution or of its transpose, without the mask of a dropout."""
    result = getattr(engine, method)(image, weight, bias, geometry, Epilogue(slope))
    return result[0] if method == "convolve" else result


@DTYPES
@SLOPES
@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@EVERY_GEOMETRY
def test_convolutions(gpu, geometry, with_bias, slope, dtype):
    for n, c, o in ((2, 4, 5), (1, 3, 8), (0, 4, 1)):
        x = numbers(17, (n, c, *geometry.input_size), dtype)
        y = numbers(18, (n, o, *geometry.output_size), dtype)
        weight = numbers(19, (o, c, *geometry.kernel_size), dtype)
        bias = [numbers(20, size, dtype) if with_bias else None for size in (o, c)]
        for method, image, b in (("convolve", x, bias[0]), ("convolve_input_gradient", y, bias[1])):
            exact = (*double(image, weight), None if b is None else b.astype("float64"))
            expected = result_of(REFERENCE, method, *exact, geometry, slope)
            given = None if b is None else on(gpu, b, "every other")
            found = result_of(gpu, method, on(gpu, image), on(gpu, weight), given, geometry, slope)
            assert_close(off(gpu, found), expected, dtype)
        found = gpu.convolve_weight_gradient(on(gpu, x), on(gpu, y), geometry)
        assert_close(off(gpu, found), REFERENCE.convolve_weight_gradient(*double(x, y), geometry), dtype)


@DTYPES
@SLOPES
@EVERY_GEOMETRY
def test_a_convolution_with_a_dropout(gpu, geometry, slope, dtype):
    x = numbers(17, (2, 4, *geometry.input_size), dtype)
    weight, bias = numbers(19, (5, 4, *geometry.kernel_size), dtype), numbers(20, 5, dtype)
    epilogue = Epilogue(slope, 0.4, PLACES["a seed's"])
    expected, kept = REFERENCE.convolve(*double(x, weight, bias), geometry, epilogue)
    found, mask = gpu.convolve(*(on(gpu, a) for a in (x, weight, bias)), geometry, epilogue)
    assert np.array_equal(off(gpu, mask), kept)
    assert_close(off(gpu, found), expected, dtype)


def same_memory(a, b):
    return a.data.ptr == b.data.ptr and a.nbytes == b.nbytes


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 5, 4), nn.ConvTranspose2d(3, 5, 4), nn.Conv2d(1, 5, 4)], ids=repr
)
def test_kernels_lie_as_products_read_them(gpu, layer):
    """So that neither a kernel nor its gradient is copied into another memory order."""
    layer = copy.deepcopy(layer).to("gpu")
    twin = copy.deepcopy(layer)
    twin.load_state_dict(layer.to("cpu").state_dict())
    layer.to("gpu")
    channels = layer.weight.shape[0 if isinstance(layer, nn.ConvTranspose2d) else 1]
    x = mg.tensor(numbers(34, (2, channels, 6, 6)), "float32", device="gpu")
    for one in (layer, twin):
        one(x).sum().backward()
        weight, gradient = one.weight.data, one.weight.grad.data
        for array in (weight, gradient, *optim.Adam(one.parameters()).state[0].values()):
            assert array.shape == weight.shape
            assert channels_last(array).flags.c_contiguous
        assert gpu.owns_memory(gradient)
        assert same_memory(gpu.kernel_matrix(weight), weight)


@SLOPES
def test_convolutions_let_through_what_is_no_number(gpu, slope):
    geometry = GEOMETRIES["one pixel"]
    x = np.array([np.nan, -1.0, 2.0], "float32").reshape(3, 1, 1, 1)  # (N, C, H, W)
    weight, bias = np.ones((1, 1, 1, 1), "float32"), np.zeros(1, "float32")
    for method in ("convolve", "convolve_input_gradient"):
        expected = result_of(REFERENCE, method, x, weight, bias, geometry, slope)
        found = result_of(gpu, method, on(gpu, x), on(gpu, weight), on(gpu, bias), geometry, slope)
        assert np.array_equal(off(gpu, found), expected, equal_nan=True)


# -- batch normalisation -----------------------------------------------------------------------------------

# The last is cut into chunks of more rows than the least.
BATCHES = [(2, 1), (31, 33), (33, 31), (257, 4), (1029, 65), (3, 5, 7, 9), (2, 32, 17, 31), (132_099, 1)]
EVERY_BATCH = pytest.mark.parametrize("shape", BATCHES, ids=str)
EPS = 1e-3


def statistics(shape, dtype, shift=0.5):
    """x, dy and weight and bias of a batch, and its mean and variance in float64."""
    x, dy = numbers(21, shape, dtype, shift=shift), numbers(22, shape, dtype)
    weight, bias = numbers(23, shape[1], dtype), numbers(24, shape[1], dtype)
    return x, dy, weight, bias, *REFERENCE.moments(*double(x))


@DTYPES
@EVERY_BATCH
def test_moments(gpu, shape, dtype):
    x, *_, mean, variance = statistics(shape, dtype)
    for layout in LAYOUTS if len(shape) == 4 else ("as made", "transposed"):
        found = gpu.moments(on(gpu, x, layout))
        assert_close(off(gpu, found[0]), mean)
        assert_close(off(gpu, found[1]), variance)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_moments_of_what_is_no_number_are_none(gpu, value):
    """Not a variance of 0, which would hide it in the running statistics."""
    x = np.array([[1.0, 1.0], [value, 2.0], [3.0, 3.0]], "float32")
    with np.errstate(invalid="ignore"):
        expected = REFERENCE.moments(x)
    for found, right in zip(gpu.moments(on(gpu, x)), expected, strict=True):
        np.testing.assert_allclose(off(gpu, found), right, rtol=1e-12)


@DTYPES
@SLOPES
@EVERY_BATCH
def test_normalize(gpu, shape, slope, dtype):
    x, _, weight, bias, mean, variance = statistics(shape, dtype)
    for kind in ("float64", dtype):
        given = mean.astype(kind), variance.astype(kind)
        expected = REFERENCE.normalize(*double(x, *given), EPS, *double(weight, bias), Epilogue(slope))
        for layout in ("as made", "channels innermost", "misaligned"):
            stats = (on(gpu, v, "every other") for v in given)
            affine = (on(gpu, v, "every other") for v in (weight, bias))
            y = gpu.normalize(on(gpu, x, layout), *stats, EPS, *affine, Epilogue(slope))
            assert_close(off(gpu, y), expected, dtype)


@DTYPES
@SLOPES
@EVERY_BATCH
def test_normalize_backward(gpu, shape, slope, dtype):
    x, dy, weight, bias, mean, variance = statistics(shape, dtype)
    epilogue, given = Epilogue(slope), (mean, variance, EPS)
    y = REFERENCE.normalize(*double(x), *given, *double(weight, bias), epilogue).astype(dtype)
    expected = REFERENCE.normalize_backward(*double(dy, x, y), *given, *double(weight), epilogue)
    # Of two values a channel's dx is nearly 0: the rounding is of the terms that cancel in it.
    terms = np.linalg.norm(dy * np.abs(weight).max()) if shape[0] == 2 and len(shape) == 2 else 0.0
    for layouts in (
        ("as made",) * 3,
        ("transposed", "as made", "misaligned"),
        ("misaligned", "reversed", "as made"),
    ):
        arrays = (on(gpu, a, how) for a, how in zip((dy, x, y), layouts, strict=True))
        found = gpu.normalize_backward(
            *arrays, on(gpu, mean), on(gpu, variance), EPS, on(gpu, weight, "every other"), epilogue
        )
        for array, oracle in zip(found, expected, strict=True):
            if terms:
                assert np.linalg.norm(off(gpu, array) - oracle) <= ACCURACY[dtype] * terms
            else:
                assert_close(off(gpu, array), oracle, dtype)


@pytest.mark.parametrize("shape", [(20_000, 3), (50, 3, 20, 20)], ids=str)
def test_nothing_cancels_where_the_mean_is_10_000_and_the_deviation_1(gpu, shape):
    x, dy, weight, bias, mean, variance = statistics(shape, "float32", shift=1e4)
    found = [off(gpu, v) for v in gpu.moments(on(gpu, x))]
    assert_close(found[0], mean)
    assert np.abs(found[1] / variance - 1).max() <= ACCURACY["float32"]
    constants = on(gpu, mean), on(gpu, variance), EPS
    y = gpu.normalize(on(gpu, x), *constants, on(gpu, weight), on(gpu, bias), Epilogue(0.2))
    expected = REFERENCE.normalize(*double(x), mean, variance, EPS, *double(weight, bias), Epilogue(0.2))
    assert_close(off(gpu, y), expected, "float32")
    found = gpu.normalize_backward(on(gpu, dy), on(gpu, x), y, *constants, on(gpu, weight), Epilogue(0.2))
    oracles = REFERENCE.normalize_backward(
        *double(dy, x, off(gpu, y)), mean, variance, EPS, *double(weight), Epilogue(0.2)
    )
    for array, oracle in zip(found, oracles, strict=True):
        assert_close(off(gpu, array), oracle, "float32")


@SLOPES
def test_batch_norm_lets_through_what_is_no_number(gpu, slope):
    x = np.array([[np.nan], [-1.0], [2.0]], "float32")
    mean, one = np.zeros(1, "float32"), np.ones(1, "float32")
    given, affine = (x, mean, one), (one, mean)
    expected = REFERENCE.normalize(*given, 0.0, *affine, Epilogue(slope))
    found = gpu.normalize(*(on(gpu, v) for v in given), 0.0, *(on(gpu, v) for v in affine), Epilogue(slope))
    assert np.array_equal(off(gpu, found), expected, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2, 2)], ids=str)
def test_batch_norm_of_nothing(gpu, shape):
    empty, ones = on(gpu, np.zeros(shape, "float32")), on(gpu, np.ones(3))
    weight = on(gpu, np.ones(3, "float32"))
    assert gpu.normalize(empty, ones, ones, EPS, weight, weight, Epilogue(0.2)).shape == shape
    assert np.isnan(off(gpu, gpu.moments(empty)[0])).all()
    dx, dweight, dbias = gpu.normalize_backward(empty, empty, empty, ones, ones, EPS, weight, Epilogue(0.2))
    assert dx.shape == shape
    assert off(gpu, dweight).tolist() == off(gpu, dbias).tolist() == [0.0] * 3


def moved(old, new, share):
    """A running statistic after a step, number by number."""
    return np.array([0.9 * a + share * b for a, b in zip(old.tolist(), new.tolist(), strict=True)])


@pytest.mark.parametrize("count", [1, 31, 257, 0])
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float32",) * 2, ("float64",) * 2], ids=str)
@pytest.mark.parametrize("kept", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_running_statistics_move_in_place(gpu, count, dtypes, kept):
    running = [numbers(i, count, dtypes[0]) if keep else None for i, keep in enumerate(kept, 25)]
    batch = [numbers(i, count, dtypes[1]) for i in (27, 28)]
    shares = 0.1, 0.1 * 64 / 63
    expected = [
        None if old is None else moved(old, new, share)
        for old, new, share in zip(running, batch, shares, strict=True)
    ]
    for layout in ("as made", "every other"):
        found = [None if old is None else on(gpu, old, layout) for old in running]
        addresses = [None if array is None else array.data.ptr for array in found]
        gpu.move_statistics(found, [on(gpu, new, layout) for new in batch], 0.9, shares)
        for array, address, right in zip(found, addresses, expected, strict=True):
            if array is not None:
                assert array.data.ptr == address
                assert_close(off(gpu, array), right, dtypes[0])


def test_running_statistics_of_two_dtypes_move_in_place(gpu):
    running = [on(gpu, numbers(29, 33, dtype)) for dtype in ("float32", "float64")]
    before = [off(gpu, array) for array in running]
    batch = [numbers(i, 33) for i in (30, 31)]
    gpu.move_statistics(running, [on(gpu, new) for new in batch], 0.9, (0.1, 0.2))
    for array, old, new, share in zip(running, before, batch, (0.1, 0.2), strict=True):
        assert_close(off(gpu, array), moved(old, new, share), str(array.dtype))


# -- sums and losses -----------------------------------------------------------------------------------------


@DTYPES
@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(31,), (3, 257), (2, 5, 3, 7), (0, 3), (1,)], ids=str)
def test_sums(gpu, shape, layout, dtype):
    x = numbers(27, shape, dtype)
    every_axis = tuple(range(len(shape)))
    for axes in {every_axis, every_axis[:1], every_axis[-1:], every_axis[::2], ()}:
        for keepdims in (False, True):
            found = gpu.sum(on(gpu, x, layout), axes, keepdims)
            assert_close(off(gpu, found), REFERENCE.sum(*double(x), axes, keepdims), dtype)
            if x.size:
                found = gpu.mean(on(gpu, x, layout), axes, keepdims)
                assert_close(off(gpu, found), x.astype("float64").mean(axes, keepdims=keepdims), dtype)


def test_sums_add_up_in_double(gpu):
    x = np.array([1e8, 1.0, -1e8] * 1000, "float32")
    assert off(gpu, gpu.sum(on(gpu, x), (0,))) == 1000.0
    assert off(gpu, gpu.mean(on(gpu, x), (0,))) == np.float32(1 / 3)


COLUMNS = pytest.mark.parametrize(
    ("m", "c"),
    [
        *((1, 1), (1, 33), (255, 1), (2047, 1), (4096, 1), (4097, 1), (70_001, 1)),
        *(
            (2048, 2),
            (2731, 3),
            (999, 9),
            (4100, 17),
            (127, 32),
            (129, 32),
            (641, 33),
            (3333, 65),
            (3, 20_011),
        ),
    ],
)


@pytest.fixture
def given():
    """The works of the launches of a test."""
    found = []
    launches.listeners.append(found.append)
    yield found
    launches.listeners.remove(found.append)


def column_sums(x):
    """The sums of the columns of x (M, C), each exact but for one rounding."""
    return np.array([math.fsum(column) for column in x.T.tolist()])


@DTYPES
@COLUMNS
def test_sums_of_columns(gpu, given, m, c, dtype):
    """They are rounded once: in float32 they are the exact sums' nearest numbers, also where much cancels."""
    x = numbers(40, (m, c), dtype, scale=1e4)
    sums, on_gpu = column_sums(x), on(gpu, x)
    tolerance = 0 if dtype == "float32" else 1e-13 * np.abs(x).sum(axis=0)
    for keepdims, shape in ((False, (c,)), (True, (1, c))):
        total, mean = gpu.sum(on_gpu, (0,), keepdims), gpu.mean(on_gpu, (0,), keepdims)
        assert (total.shape, mean.shape) == (shape, shape)
        assert (total.dtype, mean.dtype) == (dtype, dtype)
        assert gpu.owns_memory(total)
        assert gpu.owns_memory(mean)
        assert np.all(np.abs(off(gpu, total).ravel() - sums.astype(dtype)) <= tolerance)
        assert np.all(
            np.abs(off(gpu, mean).ravel() - sums.astype(dtype) / np.dtype(dtype).type(m)) <= tolerance
        )
    assert all(work.kernel.startswith("column_sums") for work in given)


@DTYPES
@pytest.mark.parametrize("layout", ["as made", "channels innermost", "misaligned channels", "every other"])
@pytest.mark.parametrize("shape", [(9, 1, 25, 30), (9, 7, 25, 30), (260, 33, 1, 1), (2, 70, 40, 41)], ids=str)
def test_sums_of_channels_and_of_all(gpu, shape, layout, dtype):
    x = numbers(41, shape, dtype)
    images = on(gpu, x, layout)
    sums = column_sums(x.transpose(0, 2, 3, 1).reshape(-1, shape[1]))  # (C,)
    for keepdims, channels, one in ((False, shape[1:2], ()), (True, (1, shape[1], 1, 1), (1, 1, 1, 1))):
        found = gpu.sum(images, (0, 2, 3), keepdims)
        assert found.shape == channels
        np.testing.assert_allclose(off(gpu, found).ravel(), sums, rtol=1e-6 if dtype == "float32" else 1e-11)
        for axes in ((0, 1, 2, 3), (1, 3, 0, 2)):
            total = gpu.sum(images, axes, keepdims)
            assert total.shape == one
            np.testing.assert_allclose(off(gpu, total), math.fsum(x.ravel().tolist()), rtol=1e-6)


def test_which_sums_are_ours(gpu, given):
    """Sums of columns and of all; not those along the last axis, nor of arrays in another memory order."""
    images = on(gpu, numbers(42, (4, 3, 5, 6), "float32"))  # the channels innermost
    rows = on(gpu, numbers(43, (4, 3, 5), "float32"))
    for x, axes in (
        (images, (0, 2, 3)),
        (images, (0, 1, 2, 3)),
        (rows, (0,)),
        (rows, (0, 1)),
        (rows, (0, 1, 2)),
    ):
        gpu.sum(x, axes)
        assert given.pop().kernel == "column_sums<float, float>"
    flipped = on(gpu, numbers(44, (4, 3), "float32"), "reversed")
    for x, axes in (
        (images, (1,)),
        (images, (0,)),
        (images, (0, 2)),
        (rows, (2,)),
        (rows, (1,)),
        (flipped, (0,)),
    ):
        expected = off(gpu, x).astype("float64").sum(axes)
        assert_close(off(gpu, gpu.sum(x, axes)), expected, "float32")
        assert given.pop().kernel == "CuPy sum"
    counts = gpu.sum(on(gpu, np.array([[True, False], [True, True]])), (0,))
    assert off(gpu, counts).tolist() == [2, 1]
    assert counts.dtype == "int64"
    assert gpu.sum(on(gpu, np.zeros((0, 3), "float32")), (0,)).tolist() == [0, 0, 0]
    assert gpu.sum(on(gpu, np.zeros((3, 0), "float32")), (0,)).shape == (0,)


@pytest.mark.parametrize(
    ("m", "c", "chunked"),
    [(20_000, 64, True), (10_000, 128, True), (600_000, 1, True), (400_000, 3, True), (128, 12_544, False)],
)
def test_sums_fill_a_large_gpu(gpu, given, m, c, chunked):
    """They have blocks for the 132 multiprocessors of an H100: twice over, and not many times as many."""
    x = on(gpu, np.ones((m, c), "float32"))
    assert np.all(off(gpu, gpu.sum(x, (0,))) == m)
    grids = [math.prod(work.grid) for work in given]
    assert 2 * 132 <= grids[0] <= 8 * 132
    assert len(grids) == 1 + chunked
    assert sum(work.bytes for work in given) < 1.1 * x.nbytes
    assert given[0].flop == m * c


def test_sums_of_columns_add_up_in_double(gpu):
    for start in range(3):
        x = np.roll([1e8, 1.0, -1e8], start).astype("float32")
        x = np.tile(x, 4000)[:, None] * np.array([1, -2, 4], "float32")  # (12000, 3): in several chunks
        assert off(gpu, gpu.sum(on(gpu, x), (0,))).tolist() == [4000.0, -8000.0, 16000.0]
        assert off(gpu, gpu.sum(on(gpu, x), (0, 1))) == 12000.0


@DTYPES
@pytest.mark.parametrize("m", [40, 5000])
def test_what_is_no_number_stays_in_its_column(gpu, m, dtype):
    x = np.ones((m, 5), dtype)
    x[m - 1, 1], x[m // 2, 2], x[0, 3], x[m - 1, 3] = np.nan, -np.inf, np.inf, -np.inf
    expected = [m, np.nan, -np.inf, np.nan, m]
    np.testing.assert_array_equal(off(gpu, gpu.sum(on(gpu, x), (0,))), expected)
    np.testing.assert_array_equal(off(gpu, gpu.mean(on(gpu, x), (0,))), np.array(expected) / m)


@DTYPES
def test_sums_are_the_same_bits_each_time(gpu, dtype):
    x = numbers(45, (9001, 5), dtype, scale=1e6)
    first = off(gpu, gpu.sum(on(gpu, x), (0,)))
    for layout in ("as made", "misaligned", "as made"):
        assert off(gpu, gpu.sum(on(gpu, x, layout), (0,))).tobytes() == first.tobytes()


def test_the_sum_of_a_mean_may_overflow(gpu):
    x = np.array([3e38, 3e38], "float32")
    assert off(gpu, gpu.mean(on(gpu, x), (0,))) == np.inf
    with np.errstate(over="ignore"):
        assert REFERENCE.mean(x, (0,)) == np.inf


@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(3, 257), (2, 5, 3, 7)], ids=str)
def test_the_sum_of_two_arrays_lies_as_they_do(gpu, shape, layout):
    a, b = numbers(36, shape, "float32"), numbers(37, shape, "float32")
    for other in (layout, "as made"):
        found = gpu.add(on(gpu, a, layout), on(gpu, b, other))
        assert np.array_equal(off(gpu, found), a + b)
    if layout == "channels innermost":
        alike = gpu.add(on(gpu, a, layout), on(gpu, b, layout))
        assert alike.strides == on(gpu, a, layout).strides
    assert np.array_equal(off(gpu, gpu.add(on(gpu, a, layout), 2.0)), a + np.float32(2))
    assert np.array_equal(off(gpu, gpu.add(on(gpu, a), on(gpu, b[:1]))), a + b[:1])


@DTYPES
@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(1,), (31,), (33, 1), (257,), (3, 5, 7), (2, 3, 5, 7), ()], ids=str)
def test_logit_bce(gpu, shape, layout, dtype):
    x, target = (
        numbers(28, shape, dtype, scale=3.0),
        np.asarray(np.random.default_rng(29).uniform(size=shape)),
    )
    target = target.astype(dtype)
    given = on(gpu, target, layout)
    for t, on_gpu in ((target, given), (0.3, 0.3), (0.0, 0.0), (1.0, 1.0)):
        expected = REFERENCE.logit_bce(*double(x), np.asarray(t, dtype).astype("float64"))
        loss, gradient = gpu.logit_bce(on(gpu, x, layout), on_gpu)
        assert_close(off(gpu, loss), expected[0], dtype)
        assert_close(off(gpu, gradient), expected[1], dtype)


@DTYPES
def test_logit_bce_far_out(gpu, dtype):
    x = np.array([1000.0, -1000.0, 1000.0, -1000.0, 90.0, -90.0, 0.0], dtype)
    for target in (
        np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.5], dtype),
        np.ones(7, dtype),
        np.zeros(7, dtype),
    ):
        for i in range(len(x)):
            expected = REFERENCE.logit_bce(*double(x[i : i + 1], target[i : i + 1]))
            loss, gradient = gpu.logit_bce(on(gpu, x[i : i + 1]), on(gpu, target[i : i + 1]))
            assert np.isfinite(off(gpu, loss))
            tiny = np.finfo(dtype).tiny
            for found, oracle in ((loss, expected[0]), (gradient, expected[1])):
                np.testing.assert_allclose(off(gpu, found), oracle, rtol=ACCURACY[dtype], atol=tiny)


def test_logit_bce_takes_labels_of_another_dtype(gpu):
    x, labels = numbers(30, 33, "float32"), np.arange(33) % 2
    expected = REFERENCE.logit_bce(*double(x, labels))
    for kind in ("int64", "float64"):
        loss, gradient = gpu.logit_bce(on(gpu, x), on(gpu, labels.astype(kind)))
        assert_close(off(gpu, loss), expected[0], "float32")
        assert_close(off(gpu, gradient), expected[1], "float32")


EPSILONS = pytest.mark.parametrize("epsilon", [None, 0.0, 1e-12, 0.25])


@DTYPES
@EPSILONS
@EVERY_LAYOUT
@pytest.mark.parametrize("shape", [(1,), (31,), (33, 1), (257,), (3, 5, 7), (2, 3, 5, 7), ()], ids=str)
def test_bce(gpu, shape, layout, epsilon, dtype):
    p, target = (np.asarray(np.random.default_rng(i).uniform(size=shape), dtype) for i in (32, 33))
    for t in (target, 0.3, 0.0, 1.0):
        expected = REFERENCE.bce(*double(p), np.asarray(t, dtype).astype("float64"), epsilon)
        given = on(gpu, t, layout) if t is target else t
        loss, gradient = gpu.bce(on(gpu, p, layout), given, epsilon)
        assert loss.shape == ()
        assert gradient.shape == shape
        assert_close(off(gpu, loss), expected[0], dtype)
        assert_close(off(gpu, gradient), expected[1], dtype)


@DTYPES
@EPSILONS
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("p", [0.0, -0.0, 1.0, 1e-30, 1e-7, 1 - 2.0**-24, -0.5, 1.5, np.nan, np.inf, -np.inf])
def test_bce_at_the_ends(gpu, p, target, epsilon, dtype):
    p = np.array([p], dtype)
    with np.errstate(all="ignore"):
        expected = REFERENCE.bce(p, target, epsilon)  # in p's dtype, where 1 - p is rounded
    found = gpu.bce(on(gpu, p), target, epsilon)
    for array, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(off(gpu, array), right, rtol=ACCURACY[dtype], atol=1e-37)


# -- Adam ----------------------------------------------------------------------------------------------

CONSTANTS = {"betas": (0.5, 0.999), "eps": 1e-3}


def parameters(dtype, sizes):
    """(parameter, gradient, first, second, rate, correction) of each size, each at a step of its own.

    Every other one has the factors of Adam with epsilon outside of the correction. The first three arrays
    have one sign, element by element, so that no sum cancels: a single number that nearly vanishes has no
    digits to compare.
    """
    for i, size in enumerate(sizes):
        rng = np.random.default_rng(i)
        p, g, m, v = (rng.uniform(0.5, 1.5, size) for _ in range(4))
        sign = rng.choice([-1.0, 1.0], size)
        step = 1 + i % 5
        rate, correction = 0.01 / (1 - 0.5**step), 1 - 0.999**step
        numbers = (rate * correction**0.5, 1.0) if i % 2 else (rate, correction)
        yield *(np.asarray(a, dtype) for a in (sign * p, sign * g, sign * m, v)), *numbers


def adam_by_hand(p, g, m, v, rate, correction, betas, eps, weight_decay):
    """The new (p, m, v), number by number."""
    results = []
    for a, b, c, d in zip(*(x.ravel().tolist() for x in (p, g, m, v)), strict=True):
        b += weight_decay * a
        c = betas[0] * c + (1 - betas[0]) * b
        d = betas[1] * d + (1 - betas[1]) * b * b
        results.append((a - rate * c / (math.sqrt(d / correction) + eps), c, d))
    return [np.array(column).reshape(p.shape) for column in zip(*results, strict=True)]


def assert_adam(gpu, updates, on_gpu, weight_decay):
    factors = [update[4:] for update in on_gpu]
    gpu.adam_updates(
        [update[:4] for update in on_gpu], lambda: factors, **CONSTANTS, weight_decay=weight_decay
    )
    for (*arrays, rate, correction), (*found, _, _) in zip(updates, on_gpu, strict=True):
        expected = double(*arrays)
        numbers = {"rate": rate, "correction": correction, **CONSTANTS, "weight_decay": weight_decay}
        if expected[0].size:
            p, m, v = adam_by_hand(*expected, **numbers)
            for array, right in zip(found, (p, expected[1], m, v), strict=True):
                assert_close(off(gpu, array), right, str(array.dtype))
        REFERENCE.adam_update(*expected, **numbers)
        for array, oracle in zip(found, expected, strict=True):
            assert_close(off(gpu, array), oracle, str(array.dtype))


@DTYPES
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("count", [1, 48, 49, 101])
def test_adam_of_many_parameters(gpu, monkeypatch, count, weight_decay, dtype):
    sizes = [(1, 31, 257, 0, 33, 16_385, 511)[i % 7] for i in range(count)]
    updates = list(parameters(dtype, sizes))
    on_gpu = [(*(on(gpu, a) for a in update[:4]), *update[4:]) for update in updates]
    launched, function = [], load.function
    monkeypatch.setattr(load, "function", lambda *name: launched.append(name) or function(*name))
    assert_adam(gpu, updates, on_gpu, weight_decay)
    assert len(launched) == -(-count // 48)


@EVERY_LAYOUT
@pytest.mark.parametrize("which", range(4))
def test_adam_in_any_memory_order(gpu, which, layout):
    updates = list(parameters("float32", [(5, 4), (3, 4), (2, 3, 4, 5)]))
    on_gpu = [
        (*(on(gpu, a, layout if i == which else "as made") for i, a in enumerate(update[:4])), *update[4:])
        for update in updates
    ]
    assert_adam(gpu, updates, on_gpu, 0.05)


def test_adam_of_kernels_with_the_channels_innermost_in_one_launch(gpu, monkeypatch):
    updates = list(parameters("float32", [(3, 4, 2, 5), (33,), (1, 3, 4, 4)]))
    innermost = "channels innermost"
    on_gpu = [
        (*(on(gpu, a, innermost if a.ndim == 4 else "as made") for a in update[:4]), *update[4:])
        for update in updates
    ]
    launched, function = [], load.function
    monkeypatch.setattr(load, "function", lambda *name: launched.append(name) or function(*name))
    assert_adam(gpu, updates, on_gpu, 0.05)
    assert len(launched) == 1


def test_adam_of_both_dtypes_and_without_axes(gpu):
    updates = [*parameters("float32", [33, (), (2, 0)]), *parameters("float64", [(), 31])]
    on_gpu = [(*(on(gpu, a) for a in update[:4]), *update[4:]) for update in updates]
    assert_adam(gpu, updates, on_gpu, 0.0)
    gpu.adam_updates([], list, **CONSTANTS, weight_decay=0.0)


# -- running averages ----------------------------------------------------------------------------------


def averages(dtype, sizes):
    """(average, new) of each size, all positive: no sum cancels."""
    for i, size in enumerate(sizes):
        rng = np.random.default_rng(100 + i)
        yield tuple(np.asarray(rng.uniform(0.5, 1.5, size), dtype) for _ in range(2))


def assert_averages(gpu, pairs, on_gpu, keep=0.75, share=0.2):
    """One step of the averages against numbers in double; the new values stay, and so do the addresses."""
    addresses = [average.data.ptr for average, _ in on_gpu]
    gpu.average_updates(on_gpu, lambda: (keep, share))
    for (old, new), (average, given), address in zip(pairs, on_gpu, addresses, strict=True):
        numbers_of_both = zip(*(x.ravel().tolist() for x in (old, new)), strict=True)
        expected = np.array([keep * a + share * b for a, b in numbers_of_both]).reshape(old.shape)
        assert_close(off(gpu, average), expected, str(old.dtype))
        assert np.array_equal(off(gpu, given), new)
        assert average.data.ptr == address


@DTYPES
@pytest.mark.parametrize("count", [1, 48, 49, 101])
def test_averages_of_many_arrays(gpu, monkeypatch, count, dtype):
    sizes = [(1, 31, 257, 0, 33, 16_385, 511)[i % 7] for i in range(count)]
    pairs = list(averages(dtype, sizes))
    on_gpu = [tuple(on(gpu, a) for a in pair) for pair in pairs]
    launched, function = [], load.function
    monkeypatch.setattr(load, "function", lambda *name: launched.append(name) or function(*name))
    assert_averages(gpu, pairs, on_gpu)
    assert len(launched) == -(-count // 48)


@EVERY_LAYOUT
@pytest.mark.parametrize("which", range(2))
def test_averages_in_any_memory_order(gpu, which, layout):
    pairs = list(averages("float32", [(5, 4), (3, 4), (2, 3, 4, 5), (), (0, 3)]))
    on_gpu = [
        tuple(on(gpu, a, layout if i == which else "as made") for i, a in enumerate(pair)) for pair in pairs
    ]
    assert_averages(gpu, pairs, on_gpu)


def test_averages_of_kernels_with_the_channels_innermost_in_one_launch(gpu, monkeypatch):
    pairs = list(averages("float32", [(3, 4, 2, 5), (33,), (1, 3, 4, 4)]))
    on_gpu = [tuple(on(gpu, a, "channels innermost" if a.ndim == 4 else "as made") for a in p) for p in pairs]
    launched, function = [], load.function
    monkeypatch.setattr(load, "function", lambda *name: launched.append(name) or function(*name))
    assert_averages(gpu, pairs, on_gpu)
    assert len(launched) == 1


def test_averages_of_both_dtypes_and_without_axes(gpu):
    pairs = [*averages("float32", [33, (), (2, 0)]), *averages("float64", [(), 31])]
    pairs += [(old, new.astype("float64")) for old, new in averages("float32", [(3, 5), 7])]
    for layout in ("as made", "every other"):
        on_gpu = [tuple(on(gpu, a, layout) for a in pair) for pair in pairs]
        assert_averages(gpu, pairs, on_gpu, 0.9, 0.1)
    gpu.average_updates([], list)


def test_updates_and_passes_fill_a_large_gpu(gpu, given):
    """They have two blocks for each of the 132 multiprocessors of an H100, or what there is work for."""
    large, small = (on(gpu, np.ones(size, "float32")) for size in (300_000, 1000))
    update = [gpu.copy(large) for _ in range(4)]
    gpu.adam_updates([update], lambda: [(0.1, 1.0)], **CONSTANTS, weight_decay=0.0)
    gpu.average_updates([(update[0], large)], lambda: (0.5, 0.5))
    gpu.average_updates([(gpu.copy(small), small)], lambda: (0.5, 0.5))
    rows = on(gpu, np.ones((6272, 128), "float32"))
    c = [on(gpu, np.ones(128)) for _ in range(3)]
    gpu.normalize(rows, *c[:2], EPS, *c[1:])
    gpu.normalize_backward(rows, rows, rows, *c[:2], EPS, c[2])
    blocks = [(work.kernel.split("<")[0], math.prod(work.grid)) for work in given]
    assert ("average", 1) in blocks
    for kernel in ("adam", "average", "normalize", "gradient"):
        assert any(name == kernel and 2 * 132 <= count <= 8 * 132 for name, count in blocks)


def test_the_weights_of_averages_are_given_anew_in_each_step(gpu):
    weights = iter([(0.0, 1.0), (1.0, 0.0), (0.5, 0.25)])
    average, new = on(gpu, np.array([1.0, 2.0], "float32")), on(gpu, np.array([4.0, 16.0], "float32"))
    for expected in ([4.0, 16.0], [4.0, 16.0], [3.0, 12.0]):
        gpu.average_updates([(average, new)], lambda: next(weights))
        assert off(gpu, average).tolist() == expected
