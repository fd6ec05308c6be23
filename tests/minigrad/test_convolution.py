"""Convolutions over random geometries, against naive loops, forward and all gradients."""

import numpy as np
import pytest
from accuracy import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
import minigrad.functional as F
from minigrad import naive, nn
from minigrad.backend import get
from minigrad.backend.base import Backend
from minigrad.backend.geometry import ConvGeometry, conv_output_size

EVERY_DEVICE = True

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
pairs = st.tuples
small = st.integers(1, 3)


@st.composite
def geometries(draw):
    """Any convolution that fits: kernels, strides, dilations, paddings on each side."""
    kernel, stride, dilation = (draw(pairs(small, small)) for _ in range(3))
    padding = draw(
        st.one_of(
            st.just("same"), st.just("valid"), st.integers(0, 2), pairs(*[st.integers(0, 3)] * 2),
            pairs(*[pairs(st.integers(0, 3), st.integers(0, 2))] * 2),
        )
    )  # fmt: skip
    least = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = tuple(n + draw(st.integers(0, 4)) for n in least)
    return size, kernel, stride, padding, dilation


@st.composite
def transposed(draw):
    """Any transposed convolution that leaves something."""
    size, kernel, stride, padding, dilation = draw(geometries())
    if padding == "same":
        return size, kernel, stride, padding, 0, dilation
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    sides = padding if isinstance(padding, tuple) else (0, 0)
    cropped = [max(0, sum(p) if isinstance(p, tuple) else 2 * p) for p in sides]
    size = tuple(n + c for n, c in zip(size, cropped, strict=True))
    return size, kernel, stride, sides, extra, dilation


def numbers(seed, *shapes, dtype="float64"):
    rng = np.random.default_rng(seed)
    return [mg.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True) for shape in shapes]


def check(y, inputs, oracles, dtype):
    """The result, and each gradient for a random gradient from above, against the oracles."""
    value, *gradients = oracles
    above = np.random.default_rng(9).standard_normal(y.shape).astype(dtype)
    assert_close(y.numpy(), value(), dtype)
    for found, oracle in zip(mg.grad(y, inputs, mg.tensor(above)), gradients, strict=True):
        assert_close(found.numpy(), oracle(above), dtype)


@pytest.mark.every_form
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(geometries(), st.integers(1, 3), small, small)
@QUICK
def test_conv2d_and_its_gradients(dtype, geometry, n, c, o):
    size, kernel, stride, padding, dilation = geometry
    g = ConvGeometry.of_conv(size, kernel, stride, padding, dilation)
    x, w, b = numbers(1, (n, c, *size), (o, c, *kernel), (o,), dtype=dtype)
    xa, wa, ba = x.numpy(), w.numpy(), b.numpy()
    check(
        F.conv2d(x, w, b, stride, padding, dilation),
        [x, w, b],
        [
            lambda: naive.convolve(xa, wa, g) + ba.reshape(-1, 1, 1),
            lambda dy: naive.convolve_input_gradient(dy, wa, g),
            lambda dy: naive.convolve_weight_gradient(xa, dy, g),
            lambda dy: dy.sum((0, 2, 3), dtype=np.float64),
        ],
        dtype,
    )


@pytest.mark.every_form
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(transposed(), st.integers(1, 3), small, small)
@QUICK
def test_conv_transpose2d_and_its_gradients(dtype, geometry, n, c, o):
    size, kernel, stride, padding, extra, dilation = geometry
    g = ConvGeometry.of_conv_transpose(size, kernel, stride, padding, extra, dilation)
    x, w, b = numbers(2, (n, c, *size), (c, o, *kernel), (o,), dtype=dtype)
    xa, wa, ba = x.numpy(), w.numpy(), b.numpy()
    check(
        F.conv_transpose2d(x, w, b, stride, padding, extra, dilation),
        [x, w, b],
        [
            lambda: naive.convolve_input_gradient(xa, wa, g) + ba.reshape(-1, 1, 1),
            lambda dx: naive.convolve(dx, wa, g),
            lambda dx: naive.convolve_weight_gradient(dx, xa, g),
            lambda dx: dx.sum((0, 2, 3), dtype=np.float64),
        ],
        dtype,
    )


@given(geometries())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_second_order_over_random_geometries(geometry):
    size, kernel, stride, padding, dilation = geometry
    x, w = numbers(3, (1, 2, *size), (1, 2, *kernel))
    assert mg.gradcheck(lambda x, w: F.conv2d(x, w, None, stride, padding, dilation), [x, w], order=2)


@pytest.mark.cpu_only("its forms against the reference's; those of a GPU: test_gpu_kernels.py")
@given(geometries(), st.integers(1, 5))
@QUICK
def test_the_cpu_forms_equal_the_reference_forms(geometry, n):
    size, kernel, stride, padding, dilation = geometry
    g = ConvGeometry.of_conv(size, kernel, stride, padding, dilation)
    x, w, y = (t.numpy() for t in numbers(4, (n, 3, *size), (2, 3, *kernel), (n, 2, *g.output_size)))
    cpu = get("cpu")
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for image in (x, channels_last):
        assert_close(cpu.convolve(image, w, None, g)[0], Backend.convolve(cpu, x, w, None, g)[0])
        assert_close(
            cpu.convolve_weight_gradient(image, y, g), Backend.convolve_weight_gradient(cpu, x, y, g)
        )
    assert_close(
        cpu.convolve_input_gradient(y, w, None, g), Backend.convolve_input_gradient(cpu, y, w, None, g)
    )


@pytest.mark.cpu_only("the pool of threads")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_the_same_on_any_number_of_threads(threads):
    x, w, dy = numbers(5, (64, 32, 14, 14), (48, 32, 5, 5), (64, 48, 14, 14), dtype="float32")
    pool = get("cpu").pool
    before = pool.threads

    def results():
        y = F.conv2d(x, w, None, 1, 2)
        return [y.numpy(), *(g.numpy() for g in mg.grad(y, [x, w], dy))]

    try:
        pool.resize(1)
        expected = results()
        pool.resize(threads)
        found = results()
    finally:
        pool.resize(before)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_layer_of_full_size_is_as_accurate_in_float32():
    x, w = numbers(6, (4, 256, 7, 7), (256, 128, 5, 5), dtype="float32")
    double = [t.to("float64") for t in (x, w)]
    y = F.conv_transpose2d(x, w, None, 1, 2)
    expected = F.conv_transpose2d(*double, None, 1, 2)
    assert_close(y.numpy(), expected.numpy(), "float32")


# TensorFlow's SAME at stride 2 and kernel 5: 28 -> 14 -> 7 pads 3 in all, 1 before and 2 after.
@pytest.mark.parametrize(("size", "out"), [(28, 14), (14, 7)])
def test_same_pads_one_before_and_two_after(size, out):
    g = ConvGeometry.of_conv((size, size), (5, 5), 2, "same", 1)
    assert (g.output_size, g.padding) == ((out, out), ((1, 2), (1, 2)))


@pytest.mark.parametrize(("size", "out"), [(7, 14), (14, 28)])
def test_the_transposed_same_crops_one_before_and_two_after(size, out):
    x, w = numbers(7, (1, 1, size, size), (1, 1, 5, 5))
    full = F.conv_transpose2d(x, w, None, 2)
    same = F.conv_transpose2d(x, w, None, 2, "same")
    assert full.shape[2:] == (2 * size + 3,) * 2
    assert same.shape[2:] == (out, out)
    assert np.array_equal(same.numpy(), full.numpy()[:, :, 1:-2, 1:-2])


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
@QUICK
def test_same_gives_the_size_over_the_stride_rounded_up(size, kernel, stride, dilation):
    g = ConvGeometry.of_conv((size, 1), (kernel, 1), stride, "same", dilation)
    assert g.output_size[0] == -(-size // stride)
    before, after = g.padding[0]
    assert 0 <= after - before <= 1
    if before or after:  # no row more than is needed
        assert conv_output_size(size, kernel, stride, (before, after - 1), dilation) < g.output_size[0]


@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
@QUICK
def test_the_transposed_same_gives_the_size_times_the_stride(size, kernel, stride, dilation):
    x, w = numbers(8, (1, 1, size, 1), (1, 1, kernel, 1))
    assert F.conv_transpose2d(x, w, None, stride, "same", 0, dilation).shape[2] == size * stride


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: F.conv2d(x, w), r"expected x of shape \(N, 3, H, W\).*got \(2, 4, 5, 5\)"),
        (lambda x, w: F.conv_transpose2d(x, w), r"expected x of shape \(N, 6, H, W\)"),
        (lambda x, w: F.conv2d(x[:, :3], w, stride=0), r"stride: expected .* >= 1, got 0"),
        (lambda x, w: F.conv2d(x[:, :3], w, dilation=3), r"spans \(7, 7\) pixels.*smaller kernel"),
        (lambda x, w: F.conv2d(x[:, :3], w, padding="full"), r"padding: expected .*got 'full'"),
        (lambda x, w: F.conv2d(x[:, :3], w, padding=-1), r"padding: expected .*got -1"),
        (lambda x, w: F.conv2d(x[:, :3], w, padding=np.array([1, 1])), r"padding: .*got array\(\[1, 1\]\)"),
        (lambda x, w: F.conv_transpose2d(x, w[:4], padding=np.ones(2)), r"padding: expected .*got array"),
        (lambda x, w: nn.Conv2d(3, 6, 3, padding=np.array([1, 1])), r"padding: expected .*got array"),
        (lambda x, w: nn.ConvTranspose2d(3, 6, 3, 2, np.ones(2), 1), r"padding: expected .*got array"),
        (lambda x, w: F.conv2d(x[:, :3], w, w[0, 0, 0]), r"expected a bias of shape \(6,\), got \(3,\)"),
        (lambda x, w: F.conv2d(x[0, :3], w), r"got \(3, 5, 5\)"),
        (lambda x, w: F.conv_transpose2d(x[:, :1], w[:1], padding=9), r"crops all of the output"),
        (lambda x, w: F.conv_transpose2d(x[:, :1], w[:1], output_padding=1), r"output_padding .* smaller"),
        (lambda x, w: F.conv_transpose2d(x[:, :1], w[:1], None, 2, "same", 1), r"leave it at 0"),
    ],
)
def test_what_does_not_fit_is_told(call, message):
    x, w = numbers(9, (2, 4, 5, 5), (6, 3, 3, 3))
    with pytest.raises(ValueError, match=message):
        call(x, w)


def test_a_stride_over_the_kernel_and_a_single_pixel_are_fine():
    x, w = numbers(10, (1, 1, 7, 7), (1, 1, 1, 1))
    y = F.conv2d(x, w, stride=3)
    assert np.array_equal(y.numpy(), x.numpy()[:, :, ::3, ::3] * w.numpy().item())
    y = F.conv_transpose2d(x[:, :, :1, :1], w, stride=4, output_padding=3)
    assert y.shape == (1, 1, 4, 4)
    assert np.count_nonzero(y.numpy()) == 1
