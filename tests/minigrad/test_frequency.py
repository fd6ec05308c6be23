"""The convolution in the frequency domain: its matrices, and its products against naive loops."""

import dataclasses

import numpy as np
import pytest
from accuracy import assert_close
from convolutions import ORDERS, gradients_agree, operands
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, naive
from minigrad.backend.base import Backend
from minigrad.backend.cpu import frequency, native, transforms
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.cpu.frequency import FrequencyForm
from minigrad.backend.cpu.workspace import Workspace
from minigrad.backend.geometry import ConvGeometry

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
FLUX = ConvGeometry.of_conv((7, 7), (5, 5), 1, 2, 1)
STRIDED = ConvGeometry.of_conv((14, 14), (4, 4), 2, 1, 1)
side, pad = st.integers(1, 4), st.integers(0, 5)


@st.composite
def unstrided(draw):
    """Any convolution of stride 1 that fits, its padding on each side by itself, beyond the kernel too."""
    kernel, dilation = (draw(st.tuples(side, st.integers(1, 2))) for _ in range(2))
    padding = draw(st.tuples(st.tuples(pad, pad), st.tuples(pad, pad)))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(max(1, r - sum(p)) + draw(st.integers(0, 4)) for r, p in zip(reach, padding, strict=True))
    return ConvGeometry.of_conv(size, kernel, 1, padding, dilation)


@st.composite
def strided(draw):
    """Any convolution without dilation that fits: kernels smaller than the stride, too."""
    kernel, stride = draw(st.tuples(side, side)), draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = draw(st.tuples(st.tuples(pad, pad), st.tuples(pad, pad)))
    size = tuple(max(1, k - sum(p)) + draw(st.integers(0, 6)) for k, p in zip(kernel, padding, strict=True))
    return ConvGeometry.of_conv(size, kernel, stride, padding, 1)


def arrays(geometry, dtype, n=2, c=16, o=32):
    rng = np.random.default_rng(0)
    shapes = (n, c, *geometry.input_size), (o, c, *geometry.kernel_size), (n, o, *geometry.output_size)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.fixture(scope="module")
def form():
    return FrequencyForm(Workspace.of(native.kernels()))


@pytest.fixture
def always(monkeypatch):
    """The frequency form wherever it can be used."""

    def can(geometry, n, channels, out_channels):
        return geometry.dilation == (1, 1) and channels % 16 == out_channels % 16 == 0

    monkeypatch.setattr(frequency, "pays", can)


def first(y):
    """(N, H, W, C) as (N, C, H, W)."""
    return y.transpose(0, 3, 1, 2)


def innermost(x):
    """The same images with their channels innermost in memory."""
    return first(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))


@pytest.mark.native
@QUICK
@given(
    unstrided() | strided(),
    st.sampled_from(["float32", "float64"]),
    st.tuples(*[st.sampled_from(ORDERS)] * 3),
)
def test_the_three_products_of_any_geometry(form, geometry, dtype, orders):
    if any(k < s for k, s in zip(geometry.kernel_size, geometry.stride, strict=True)):
        return  # pixels that no tap meets: `pays` leaves them to others
    x, weight, dy = operands(geometry, 2, 16, 16, dtype, orders)
    exact = [a.astype("float64") for a in (x, weight, dy)]
    plain = CPUBackend()
    y = Backend.convolve(plain, exact[0], exact[1], None, geometry)[0]
    dx = Backend.convolve_input_gradient(plain, exact[2], exact[1], None, geometry)
    dw = Backend.convolve_weight_gradient(plain, exact[0], exact[2], geometry)
    none = mg.Epilogue()
    assert_close(first(form.convolve(x, weight, None, geometry, none)), y, dtype)
    assert_close(first(form.input_gradient(dy, weight, None, geometry, none)), dx, dtype)
    assert_close(form.weight_gradient(x, dy, geometry), dw, dtype)
    both = form.convolve_and_weight_gradient(x, weight, dy, geometry)
    assert_close(first(both[0]), y, dtype)
    assert_close(both[1], dw, dtype)
    gradients = form.gradients(x, weight, dy, geometry)
    assert_close(first(gradients[0]), dx, dtype)
    assert_close(gradients[1], dw, dtype)


@pytest.mark.native
@pytest.mark.parametrize(("c", "o"), [(16, 48), (32, 64), (48, 16), (64, 32)])
def test_blocks_of_one_and_of_two_vectors(form, c, o):
    for geometry in (FLUX, ConvGeometry.of_conv((6, 7), (3, 2), 2, 1, 1)):
        x, weight, dy = arrays(geometry, "float32", n=3, c=c, o=o)
        exact = [a.astype("float64") for a in (x, weight, dy)]
        dx = Backend.convolve_input_gradient(CPUBackend(), exact[2], exact[1], None, geometry)
        assert_close(first(form.gradients(x, weight, dy, geometry)[0]), dx, "float32")
        dw = Backend.convolve_weight_gradient(CPUBackend(), exact[0], exact[2], geometry)
        assert_close(form.weight_gradient(x, dy, geometry), dw, "float32")
        y = Backend.convolve(CPUBackend(), exact[0], exact[1], None, geometry)[0]
        assert_close(first(form.convolve(x, weight, None, geometry, mg.Epilogue())), y, "float32")


@pytest.mark.native
@pytest.mark.parametrize(("n", "c", "o"), [(2, 528, 16), (2, 16, 528), (530, 16, 32)])
def test_sums_that_are_added_up_in_parts(form, n, c, o):
    geometry = ConvGeometry.of_conv((2, 3), (2, 2), 1, 1, 1)
    x, weight, dy = arrays(geometry, "float64", n, c, o)
    plain, none = CPUBackend(), mg.Epilogue()
    y, _ = Backend.convolve(plain, x, weight, None, geometry)
    assert_close(first(form.convolve(x, weight, None, geometry, none)), y, "float64")
    dx = Backend.convolve_input_gradient(plain, dy, weight, None, geometry)
    assert_close(first(form.input_gradient(dy, weight, None, geometry, none)), dx, "float64")
    dw = Backend.convolve_weight_gradient(plain, x, dy, geometry)
    assert_close(form.weight_gradient(x, dy, geometry), dw, "float64")


@QUICK
@given(strided())
def test_the_phases_of_a_stride_share_out_pixels_and_taps(geometry):
    for axis in range(2):
        size, kernel, stride = (v[axis] for v in (geometry.input_size, geometry.kernel_size, geometry.stride))
        before, found = geometry.padding[axis][0], transforms.lines(geometry, axis)
        pixels = [range(size)[phase::stride] for phase in range(stride)]
        assert sorted(np.concatenate([line.taps for line in found])) == list(range(kernel))
        met = {
            (int(u) - j, a, int(tap))
            for line, own in zip(found, pixels, strict=True)
            for a, u in zip(own, line.places, strict=True)
            for j, tap in enumerate(line.taps)
        }
        out = geometry.output_size[axis]
        reads = {(q, stride * q + i - before, i) for q in range(out) for i in range(kernel)}
        assert {read for read in reads if 0 <= read[1] < size} == {m for m in met if 0 <= m[0] < out}


@QUICK
@given(unstrided())
def test_the_period_is_the_smallest_on_which_nothing_wraps(geometry):
    for axis in range(2):
        taps = [i * geometry.dilation[axis] for i in range(geometry.kernel_size[axis])]
        before, out = geometry.padding[axis][0], geometry.output_size[axis]
        reached = {a - i + before for a in range(geometry.input_size[axis]) for i in taps}

        def wraps(period, reached=reached, out=out):
            return any((q - p) % period == 0 and q != p for p in range(out) for q in reached)

        period = transforms.period(geometry, axis)
        assert not wraps(period)
        # Smaller ones would do only where gaps of a dilated kernel leave room, or the image does not fit.
        if geometry.dilation[axis] == 1 and period > max(geometry.input_size[axis], out):
            assert wraps(period - 1) or before > geometry.kernel_size[axis] - 1


@pytest.mark.parametrize(
    ("geometry", "period", "products", "phases", "factors"),
    [
        (FLUX, 9, 1 + 3 * 40, 1, 7 * 9 * 7 + 9 * 7 + 4 * 18 * 14),
        (STRIDED, 8, 4 + 3 * 30, 4, 7 * 8 * 7 + 2 * 8 * 7 + 3 * 16 * 14),
    ],
)
def test_fluxs_layers_take_so_many_products_of_channels(geometry, period, products, phases, factors):
    t = transforms.transform(geometry, "float64")
    assert [transforms.period(geometry, axis) for axis in range(2)] == [period, period]
    assert transforms.count_products(period, period) == products
    assert t.real + 3 * (t.numbers - t.real) // 2 == products
    assert [len(b.places) for b in t.images] == [49] * phases
    assert sorted(np.concatenate([g.places for g in t.kernels])) == list(range(geometry.taps))
    assert list(t.back.places) == list(range(49))
    assert sum(rows * depth for rows, depth, *_ in t.back.there.table) == factors


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_an_even_circle_has_more_real_frequencies(size):
    t = transforms.transform(ConvGeometry.of_conv((size, size), (1, 1), 1, 0, 1), "float64")
    assert t.real == (4 if size % 2 == 0 else 1)
    assert t.numbers == size * size


def mapped(steps, given, count):
    """The numbers that a map makes of others, block by block: (count,)."""
    between, made = np.full(steps.between, np.nan), np.full(count, np.nan)
    for line, (rows, depth, factors, here, there) in enumerate(steps.table):
        first = line < steps.first
        matrix = steps.factors[factors : factors + rows * depth].reshape(depth, rows).T
        found = matrix @ (given if first else between)[steps.places[here : here + depth]]
        (between if first else made)[steps.places[there : there + rows]] = found
    return made


@pytest.mark.parametrize("size", [(7, 7), (1, 1), (4, 5), (5, 4), (6, 2)])
def test_a_map_is_a_fourier_transform_and_its_transpose(size):
    rng = np.random.default_rng(0)
    t = transforms.transform(ConvGeometry.of_conv(size, (1, 1), 1, 0, 1), "float64")
    x, numbers = rng.standard_normal(size), rng.standard_normal(t.numbers)
    found = mapped(t.images[0].there, x.reshape(-1), t.numbers)
    pairs = found[t.real :].reshape(-1, 2)
    spectrum = [*found[: t.real], *(a + s * 1j * b for a, b in pairs for s in (1, -1))]
    expected = np.fft.fft2(x).reshape(-1)
    assert_close(np.sort(np.abs(spectrum)), np.sort(np.abs(expected)), "float64")
    assert_close(np.sort(np.real(spectrum)), np.sort(expected.real), "float64")
    assert_close(np.sort(np.imag(spectrum)), np.sort(expected.imag), "float64")
    turned = mapped(t.images[0].turned, numbers, x.size)
    assert_close(turned @ x.reshape(-1), numbers @ found, "float64")


@pytest.mark.native
@pytest.mark.parametrize("name", ["FLUX", "STRIDED"])
def test_fluxs_layers_are_as_exact_as_the_plain_form(form, name):
    geometry, c, o = {"FLUX": (FLUX, 128, 256), "STRIDED": (STRIDED, 64, 128)}[name]
    x, weight, dy = arrays(geometry, "float32", n=16, c=c, o=o)
    plain, none = CPUBackend(), mg.Epilogue()
    exact = [a.astype("float64") for a in (x, weight, dy)]

    def error(got, expected):
        return np.linalg.norm(got - expected) / np.linalg.norm(expected)

    y, _ = Backend.convolve(plain, exact[0], exact[1], None, geometry)
    assert error(first(form.convolve(x, weight, None, geometry, none)), y) < 6e-7
    in_float32, _ = Backend.convolve(plain, x, weight, None, geometry)
    assert error(in_float32, y) > 5e-8  # the plain form errs as well
    dx = Backend.convolve_input_gradient(plain, exact[2], exact[1], None, geometry)
    assert error(first(form.input_gradient(dy, weight, None, geometry, none)), dx) < 6e-7
    dw = Backend.convolve_weight_gradient(plain, exact[0], exact[2], geometry)
    assert error(form.weight_gradient(x, dy, geometry), dw) < 6e-7


def test_which_form_runs_follows_from_the_sizes():
    assert frequency.pays(FLUX, 128, 128, 256)
    assert frequency.pays(ConvGeometry.of_conv((14, 14), (5, 5), 2, "same", 1), 128, 128, 256)
    assert not frequency.pays(STRIDED, 16, 64, 128)  # few images: the kernel's transform is not worth it
    assert not frequency.pays(ConvGeometry.of_conv((32, 32), (4, 4), 2, 1, 1), 128, 64, 128)  # large
    assert not frequency.pays(ConvGeometry.of_conv((28, 28), (5, 5), 1, 2, 1), 128, 64, 64)
    assert not frequency.pays(ConvGeometry.of_conv((64, 64), (9, 9), 1, 4, 1), 128, 4096, 4096)  # huge
    assert not frequency.pays(ConvGeometry.of_conv((8, 8), (4, 4), 2, 1, 1), 128, 256, 512)  # many channels
    assert not frequency.pays(ConvGeometry.of_conv((7, 7), (1, 1), 1, 0, 1), 128, 128, 256)
    assert not frequency.pays(ConvGeometry.of_conv((14, 14), (4, 4), 2, 1, 2), 128, 64, 128)  # dilated, too
    assert not frequency.pays(FLUX, 128, 1, 1)  # the transforms are not worth it
    assert not frequency.pays(FLUX, 128, 128, 250)  # channels that do not fill vectors
    assert not frequency.pays(FLUX, 128, 100, 256)
    assert not frequency.pays(ConvGeometry.of_conv((14, 14), (2, 3), 3, 1, 1), 128, 512, 512)  # thin


def test_a_huge_stride_is_seen_at_once(monkeypatch):
    monkeypatch.setattr(transforms, "lines", None)  # which would take them one by one
    assert not frequency.pays(ConvGeometry.of_conv((9, 9), (3, 3), 10**9, 0, 1), 128, 64, 64)
    assert not frequency.pays(ConvGeometry.of_conv((3000, 3000), (3, 3), 1, 1, 1), 128, 64, 64)


@pytest.mark.native
@pytest.mark.parametrize("slope", [1.0, 0.2, 0.0])
@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_and_an_activation_come_after_it(always, bias, slope):
    geometry = ConvGeometry.of_conv((5, 4), (3, 3), 1, 1, 1)
    x, weight, dy = arrays(geometry, "float64")
    engine = backend.get("cpu")
    for name, image, channels in (("convolve", x, 32), ("convolve_input_gradient", dy, 16)):
        b = np.arange(1.0, 2 * channels + 1)[::2] if bias else None  # not side by side in memory
        expected = getattr(naive, name)(image, weight, geometry) + (0 if b is None else b[:, None, None])
        got = getattr(engine, name)(image, weight, b, geometry, mg.Epilogue(slope))
        if name == "convolve":
            got, mask = got
            assert mask is None
        assert_close(got, naive.leaky_relu(expected, slope), "float64")
        assert "frequency" in engine.convolution_form(name, geometry, 2, 16, 32)


@pytest.mark.native
@pytest.mark.parametrize("call", [F.conv2d, F.conv_transpose2d])
def test_gradients_of_both_orders(always, call):
    assert gradients_agree(call)


@pytest.mark.native
@pytest.mark.parametrize("place", ["images", "kernels", "back"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_planted_mistake_of_one_percent_is_caught(always, monkeypatch, place, turned):
    right = transforms.transform

    def wrong(geometry, dtype):
        t = right(geometry, dtype)
        given = getattr(t, place) if place == "back" else getattr(t, place)[0]
        name = "turned" if turned else "there"
        steps = getattr(given, name)
        factors = steps.factors.copy()
        factors[np.argmax(np.abs(factors))] *= 1.01
        changed = dataclasses.replace(given, **{name: dataclasses.replace(steps, factors=factors)})
        return dataclasses.replace(t, **{place: changed if place == "back" else (changed,)})

    geometry = ConvGeometry.of_conv((4, 4), (3, 3), 1, 1, 1)
    x, weight, dy = arrays(geometry, "float64")
    dw = Backend.convolve_weight_gradient(CPUBackend(), x, dy, geometry)
    expected = [
        naive.convolve(x, weight, geometry), naive.convolve_input_gradient(dy, weight, geometry), dw,
    ]  # fmt: skip

    def caught():
        engine = backend.get("cpu")
        found = [
            engine.convolve(x, weight, None, geometry)[0],
            engine.convolve_input_gradient(dy, weight, None, geometry),
            engine.convolve_weight_gradient(x, dy, geometry),
        ]
        wrongs = []
        for got, right in zip(found, expected, strict=True):
            try:
                assert_close(got, right, "float64")
            except AssertionError:
                wrongs.append(got)
        return len(wrongs)

    assert caught() == 0
    monkeypatch.setattr(frequency, "transform", wrong)
    assert caught() > 0


@pytest.mark.native
def test_the_number_of_threads_changes_no_bit(always):
    engine = backend.get("cpu")
    x, weight, dy = arrays(FLUX, "float32", n=32, c=32, o=48)
    before, results = engine.pool.threads, []
    try:
        for threads in (1, 2, 3):
            engine.pool.resize(threads)
            y, dw = engine.convolve_and_weight_gradient(x, weight, dy, FLUX)
            dx = engine.convolve_input_gradient(dy, weight, None, FLUX)
            gradients = engine.convolve_gradients(x, weight, dy, FLUX)
            assert [a.tobytes() for a in gradients] == [dx.tobytes(), dw.tobytes()]
            results.append([a.tobytes() for a in (y, dw, dx)])
    finally:
        engine.pool.resize(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.native
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_images_of_a_dense_layer_get_their_channels_innermost(dtype):
    rows = np.arange(2 * 3 * 4 * 5, dtype=dtype).reshape(2, 60)
    images = backend.get("cpu").reshape(rows, (2, 3, 4, 5))
    assert images[1, 2, 3, 4] == 119
    assert images.tolist() == rows.reshape(2, 3, 4, 5).tolist()
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous
