"""The frequency form of convolutions, and the others that the CPU chooses among: against naive loops."""

import dataclasses
import functools
import weakref

import numpy as np
import pytest
from accuracy import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, naive
from minigrad.backend import kept
from minigrad.backend.base import Backend
from minigrad.backend.cpu import backend as cpu_module
from minigrad.backend.cpu import frequency
from minigrad.backend.cpu.bilinear import BilinearForm
from minigrad.backend.cpu.parallel import _do_part
from minigrad.backend.geometry import ConvGeometry
from minigrad.backend.kept import KernelTransforms, Memo
from minigrad.ops import conv

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
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


def arrays(geometry, dtype, n=2, c=3, o=2):
    rng = np.random.default_rng(0)
    shapes = (n, c, *geometry.input_size), (o, c, *geometry.kernel_size), (n, o, *geometry.output_size)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


class Form:
    """The three products of a geometry in the frequency domain, channels innermost."""

    def __init__(self, geometry, dtype):
        engine = backend.get("cpu")
        self.own = BilinearForm(engine.pool, engine.scratch, engine.arena.empty)
        self.geometry, self.transform = geometry, frequency.transform(geometry, dtype)

    def __getattr__(self, name):
        return functools.partial(getattr(self.own, name), geometry=self.geometry, t=self.transform)


def first(y):
    """(N, H, W, C) as (N, C, H, W)."""
    return y.transpose(0, 3, 1, 2)


@QUICK
@given(unstrided() | strided(), st.sampled_from(["float32", "float64"]))
def test_the_three_products_of_any_geometry(geometry, dtype):
    x, weight, dy = arrays(geometry, dtype)
    exact = [a.astype("float64") for a in (x, weight, dy)]
    form = Form(geometry, dtype)
    y = naive.convolve(exact[0], exact[1], geometry)
    assert_close(first(form.convolve(x, weight)), y, dtype)
    dx = naive.convolve_input_gradient(exact[2], exact[1], geometry)
    assert_close(first(form.input_gradient(dy, weight)), dx, dtype)
    dw = naive.convolve_weight_gradient(exact[0], exact[2], geometry)
    assert_close(form.weight_gradient(x, dy), dw, dtype)
    both = form.convolve_and_weight_gradient(x, weight, dy)
    assert_close(first(both[0]), y, dtype)
    assert_close(both[1], dw, dtype)
    turned = Form(
        dataclasses.replace(geometry, transposed=True), dtype
    )  # its kernel lies the other way round
    assert_close(first(turned.input_gradient(dy, weight)), dx, dtype)
    assert_close(first(turned.convolve(x, weight)), y, dtype)
    gradients = form.gradients(x, weight, dy)
    assert_close(first(gradients[0]), dx, dtype)
    assert_close(gradients[1], dw, dtype)


@QUICK
@given(strided())
def test_the_phases_of_a_stride_share_out_pixels_and_taps(geometry):
    for axis in range(2):
        size, kernel, stride = (v[axis] for v in (geometry.input_size, geometry.kernel_size, geometry.stride))
        before, found = geometry.padding[axis][0], frequency.lines(geometry, axis)
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

        period = frequency.period(geometry, axis)
        assert not wraps(period)
        # Smaller ones would do only where gaps of a dilated kernel leave room, or the image does not fit.
        if geometry.dilation[axis] == 1 and period > max(geometry.input_size[axis], out):
            assert wraps(period - 1) or before > geometry.kernel_size[axis] - 1


@pytest.mark.parametrize(
    ("geometry", "period", "rows", "phases"),
    [
        (FLUX, 9, 1 + 3 * 40, 1),
        (STRIDED, 8, 4 + 3 * 30, 4),
    ],
)
def test_fluxs_layers_take_so_many_products_of_channels(geometry, period, rows, phases):
    t = frequency.transform(geometry, "float64")
    assert [frequency.period(geometry, axis) for axis in range(2)] == [period, period]
    assert t.rows == rows
    assert t.image.shape == (phases, rows, 49)
    assert (t.kernel.shape, t.back.shape) == ((rows * phases, geometry.taps), (49, rows))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_an_even_circle_has_more_real_frequencies(size):
    t = frequency.transform(ConvGeometry.of_conv((size, size), (1, 1), 1, 0, 1), "float64")
    real = 4 if size % 2 == 0 else 1
    assert t.rows == real + 3 * (size * size - real) // 2


@pytest.mark.parametrize("name", ["FLUX", "STRIDED"])
def test_fluxs_layers_are_as_exact_as_the_plain_form(name):
    geometry, c, o = {"FLUX": (FLUX, 128, 256), "STRIDED": (STRIDED, 64, 128)}[name]
    x, weight, dy = arrays(geometry, "float32", n=16, c=c, o=o)
    engine, form = backend.get("cpu"), Form(geometry, "float32")
    exact = [a.astype("float64") for a in (x, weight, dy)]

    def error(got, expected):
        return np.linalg.norm(got - expected) / np.linalg.norm(expected)

    y, _ = Backend.convolve(engine, exact[0], exact[1], None, geometry)
    assert error(first(form.convolve(x, weight)), y) < 6e-7
    plain, _ = Backend.convolve(engine, x, weight, None, geometry)
    assert error(plain, y) > 5e-8  # the plain form errs as well
    dx = Backend.convolve_input_gradient(engine, exact[2], exact[1], None, geometry)
    assert error(first(form.input_gradient(dy, weight)), dx) < 6e-7
    dw = Backend.convolve_weight_gradient(engine, exact[0], exact[2], geometry)
    assert error(form.weight_gradient(x, dy), dw) < 6e-7


def test_which_form_runs_follows_from_the_sizes():
    assert frequency.pays(FLUX, 128, 128, 256)
    assert frequency.pays(STRIDED, 128, 64, 128)
    assert frequency.pays(FLUX, 32, 32, 48)  # test_nn.py counts on it
    assert not frequency.pays(STRIDED, 16, 64, 128)  # few images: the kernel's transform is not worth it
    assert not frequency.pays(ConvGeometry.of_conv((32, 32), (4, 4), 2, 1, 1), 128, 64, 128)  # large
    assert not frequency.pays(ConvGeometry.of_conv((28, 28), (5, 5), 1, 2, 1), 128, 64, 64)
    assert not frequency.pays(ConvGeometry.of_conv((64, 64), (9, 9), 1, 4, 1), 128, 4096, 4096)  # huge
    assert not frequency.pays(ConvGeometry.of_conv((8, 8), (4, 4), 2, 1, 1), 128, 256, 512)  # many channels
    assert not frequency.pays(ConvGeometry.of_conv((7, 7), (1, 1), 1, 0, 1), 128, 128, 256)
    assert not frequency.pays(ConvGeometry.of_conv((14, 14), (4, 4), 2, 1, 2), 128, 64, 128)  # dilated, too
    assert not frequency.pays(FLUX, 128, 1, 1)  # the transforms are not worth it
    assert not frequency.pays(ConvGeometry.of_conv((14, 14), (2, 3), 3, 1, 1), 128, 512, 512)  # thin


def test_a_huge_stride_is_seen_at_once(monkeypatch):
    monkeypatch.setattr(frequency, "lines", None)  # which would take them one by one
    assert not frequency.pays(ConvGeometry.of_conv((9, 9), (3, 3), 10**9, 0, 1), 128, 64, 64)
    assert not frequency.pays(ConvGeometry.of_conv((3000, 3000), (3, 3), 1, 1, 1), 128, 64, 64)


def test_a_weight_that_changes_in_place_is_seen(always):
    engine, (x, weight, _) = backend.get("cpu"), arrays(FLUX, "float64", c=30)
    before, _ = engine.convolve(x, weight, None, FLUX)
    assert weight.size > kept.SAMPLE
    weight[-1, -1, -1, -1] += 1.0  # the last number of all
    after, _ = engine.convolve(x, weight, None, FLUX)
    assert_close(after, naive.convolve(x, weight, FLUX), "float64")
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("shapes", [((48, 32, 5, 5), (32, 48, 5, 5)), ((1, 4, 5, 5), (2, 2, 5, 5))])
def test_weights_of_the_same_numbers_in_another_shape_are_others(always, shapes):
    engine = backend.get("cpu")
    for shape in (*shapes, shapes[0]):
        y, _ = engine.convolve(np.ones((2, shape[1], 7, 7)), np.zeros(shape), None, FLUX)
        assert (y.shape, np.abs(y).max()) == ((2, shape[0], 7, 7), 0.0)


def made_of(form, weight):
    """A weight's transform."""
    kernel = form.own._of_weight(weight, form.transform)
    form.own.pool.run_stages(kernel.there)
    return kernel.made


def test_a_weight_that_changes_while_it_is_used_is_another(always, monkeypatch):
    engine = backend.get("cpu")
    x, weight, _ = arrays(FLUX, "float64")
    old, run = weight.copy(), engine.pool.run_stages

    def and_change(*stages):
        run(*stages)
        weight[0, 0, 0, 0] += 1

    monkeypatch.setattr(engine.pool, "run_stages", and_change)
    assert_close(engine.convolve(x, weight, None, FLUX)[0], naive.convolve(x, old, FLUX), "float64")
    now = weight.copy()
    assert_close(engine.convolve(x, weight, None, FLUX)[0], naive.convolve(x, now, FLUX), "float64")


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_transformed_is_the_copy_that_is_compared_later(always, monkeypatch, turned):
    engine = backend.get("cpu")
    geometry = ConvGeometry.of_conv_transpose((7, 7), (5, 5), 1, 2, 0, 1) if turned else FLUX
    form = BilinearForm(engine.pool, engine.scratch, engine.arena.empty)
    transform = frequency.transform(geometry, "float64")
    x, weight, _ = arrays(FLUX, "float64")
    old, right = weight.copy(), engine.scratch.get

    def and_change(name, *rest):
        if name == "taps":  # the weight has been copied, and is about to be multiplied
            weight[...] += 1
        return right(name, *rest)

    monkeypatch.setattr(type(engine.scratch), "get", lambda self, *a: and_change(*a))
    monkeypatch.setattr(engine.pool, "run_stages", lambda *stages: one_slice_at_once(stages))
    assert_close(form.convolve(x, weight, geometry, transform), last(naive.convolve(x, old, FLUX)), "float64")


def one_slice_at_once(stages):
    for stage in stages:
        whole = stage.slices
        if stage.work is not _do_part and "kernel" in stage.work.__name__:
            whole = [slice(whole[0].start, whole[-1].stop)]
        for piece in whole:
            stage.work(piece)


def last(images):
    """Channels innermost."""
    return images.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("known", [False, True])
def test_what_could_not_be_made_is_not_kept(always, monkeypatch, known):
    engine = backend.get("cpu")
    x, weight, _ = arrays(FLUX, "float64")
    if known:
        engine.convolve(x, weight, None, FLUX)
    memo = Memo()

    def stop(*stages):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine.pool, "run_stages", stop)
        with pytest.raises(KeyboardInterrupt):
            engine.convolve(x, weight, None, FLUX, memo=memo)
    other = Memo()
    other._kernel = memo._kernel
    expected = naive.convolve(x, weight, FLUX)
    assert_close(engine.convolve(x, weight, None, FLUX, memo=other)[0], expected, "float64")


@pytest.mark.parametrize("call", ["convolve", "input_gradient", "gradients", "convolve_and_weight_gradient"])
def test_a_transform_of_a_weight_is_kept_whoever_made_it_first(always, work_done, call):
    engine = backend.get("cpu")
    x, weight, y = arrays(FLUX, "float64")
    transform = frequency.transform(FLUX, "float64")
    first = {"convolve": x, "input_gradient": y, "gradients": x, "convolve_and_weight_gradient": x}[call]
    rest = (y,) if call in ("gradients", "convolve_and_weight_gradient") else ()
    for _ in range(2):
        getattr(engine.bilinear, call)(first, weight, *rest, FLUX, transform)
    assert work_done.count("kernel_there") == 1


@pytest.mark.parametrize("padding", [2, "same"])
def test_a_kernel_lies_as_its_layer_reads_it_on_the_way_forward(padding):
    plain = ConvGeometry.of_conv((7, 7), (5, 5), 1, padding, 1)
    turned = ConvGeometry.of_conv_transpose((7, 7), (5, 5), 1, padding, 0, 1)
    _, weight, _ = arrays(plain, "float64")
    forms = [Form(geometry, "float64") for geometry in (plain, turned)]
    kernels = [made_of(form, weight) for form in forms]
    assert kernels[0].flags.c_contiguous
    assert kernels[1].transpose(0, 2, 1).flags.c_contiguous
    assert_close(kernels[1], kernels[0], "float64")


def test_what_dy_becomes_is_made_once_for_both_gradients(always, monkeypatch):
    asked, right = [], BilinearForm._of_results
    monkeypatch.setattr(BilinearForm, "_of_results", lambda *a: asked.append(a) or right(*a))
    x, weight, _ = (mg.tensor(a, requires_grad=True) for a in arrays(FLUX, "float64"))
    F.conv2d(x, weight, padding=2).sum().backward()
    assert len(asked) == 1


@pytest.mark.parametrize("layer", [F.conv2d, F.conv_transpose2d])
def test_a_weight_is_not_compared_again_on_the_way_back(always, monkeypatch, layer):
    asked, right = [], KernelTransforms.find
    monkeypatch.setattr(KernelTransforms, "find", lambda *a: asked.append(a) or right(*a))
    x = mg.tensor(np.ones((2, 4, 7, 7)), requires_grad=True)
    weight = mg.tensor(np.ones((4, 4, 5, 5)), requires_grad=True)
    layer(x, weight, padding=2).sum().backward()
    assert len(asked) == 1
    assert x.grad is not None
    assert weight.grad is not None


@pytest.fixture
def work_done(monkeypatch):
    """The names of the stages of work that the engine has been through."""
    pool, done = backend.get("cpu").pool, []
    run = pool.run_stages

    def watched(*stages):
        for stage in stages:
            parts = {work for work, _ in stage.slices} if stage.work is _do_part else {stage.work}
            done.extend(work.__name__ for work in parts if len(stage.slices))
        run(*stages)

    monkeypatch.setattr(pool, "run_stages", watched)
    return done


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("call", [F.conv2d, F.conv_transpose2d])
def test_each_image_is_transformed_once_for_forward_and_backward(always, work_done, call, frozen):
    images, weight, results = arrays(FLUX, "float64")
    given, gradient = (images, results) if call is F.conv2d else (results, images)
    w = mg.tensor(weight, requires_grad=True)
    call(mg.tensor(given, requires_grad=not frozen), w, padding=2).backward(mg.tensor(gradient))
    there = sorted(name for name in work_done if name in ("images_there", "results_there"))
    assert there == ["images_there", "results_there"]
    assert_close(w.grad.numpy(), naive.convolve_weight_gradient(images, results, FLUX), "float64")


def test_a_convolution_with_a_dropout_transforms_its_image_once(always, work_done):
    x, weight, _ = (mg.tensor(a, requires_grad=True) for a in arrays(FLUX, "float64"))
    F.conv2d(x, weight, padding=2, epilogue=mg.Epilogue(p=0.5)).sum().backward()
    assert work_done.count("images_there") == 1


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("call", [F.conv2d, F.conv_transpose2d])
def test_a_gradient_may_be_the_very_array_that_went_in(always, call, frozen):
    images, weight, _ = arrays(FLUX, "float64", c=3, o=3)
    x, w = mg.tensor(images, requires_grad=not frozen), mg.tensor(weight, requires_grad=True)
    call(x, w, padding=2).backward(mg.Tensor(x.data))
    assert_close(w.grad.numpy(), naive.convolve_weight_gradient(images, images, FLUX), "float64")


def test_what_was_made_of_an_image_goes_with_the_graph(always, monkeypatch):
    memos, right = [], conv.Memo
    monkeypatch.setattr(conv, "Memo", lambda: memos.append(weakref.ref(made := right())) or made)
    x, weight, _ = (mg.tensor(a, requires_grad=True) for a in arrays(FLUX, "float64"))
    y = F.conv2d(x, weight, padding=2)
    assert memos[0]()._kept is not None
    y.sum().backward()
    assert memos[0]() is None
    with mg.no_grad():
        F.conv2d(x, weight, padding=2)
    assert len(memos) == 1


@pytest.mark.parametrize(
    ("shape", "out", "size", "stride", "padding", "least"),
    [
        ((128, 1, 28, 28), 64, 4, 2, 1, 4),
        ((128, 64, 14, 14), 128, 4, 2, 1, 4),
        ((512, 32, 7, 7), 48, 5, 1, 2, 4),
    ],
)
def test_all_work_on_a_large_layer_is_shared_out(monkeypatch, shape, out, size, stride, padding, least):
    engine = backend.get("cpu")
    geometry = ConvGeometry.of_conv(shape[2:], (size, size), stride, padding, 1)
    rng = np.random.default_rng(0)
    x = first(rng.standard_normal((shape[0], *shape[2:], shape[1])).astype("float32"))
    dy = first(rng.standard_normal((shape[0], *geometry.output_size, out)).astype("float32"))
    weight = rng.standard_normal((out, shape[1], size, size)).astype("float32")
    run, cuts = engine.pool.run_stages, {}

    def watched(*stages):
        cuts.update((stage.work.__qualname__, len(stage.slices)) for stage in stages)
        run(*stages)

    monkeypatch.setattr(engine.pool, "run_stages", watched)
    engine.convolve(x, weight, None, geometry)
    engine.convolve_gradients(x, weight, dy, geometry)
    of_images = [count for name, count in cuts.items() if "kernel" not in name]  # these may be small
    assert min(of_images) >= least, cuts


@pytest.fixture
def always(monkeypatch):
    """The frequency form wherever it can be used."""
    monkeypatch.setattr(frequency, "pays", lambda geometry, *sizes: geometry.dilation == (1, 1))


@pytest.mark.parametrize("slope", [1.0, 0.2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_and_an_activation_come_after_it(always, bias, slope):
    geometry = ConvGeometry.of_conv((5, 4), (3, 3), 1, 1, 1)
    x, weight, dy = arrays(geometry, "float64")
    engine = backend.get("cpu")
    for name, image, channels in (("convolve", x, 2), ("convolve_input_gradient", dy, 3)):
        b = np.arange(1.0, channels + 1) if bias else None
        expected = getattr(naive, name)(image, weight, geometry) + (0 if b is None else b[:, None, None])
        got = getattr(engine, name)(image, weight, b, geometry, mg.Epilogue(slope))
        if name == "convolve":
            got, mask = got
            assert mask is None
        assert_close(got, naive.leaky_relu(expected, slope), "float64")


@pytest.mark.parametrize("call", [F.conv2d, F.conv_transpose2d])
def test_gradients_of_both_orders(always, call):
    rng = np.random.default_rng(1)
    inputs = [
        mg.tensor(rng.standard_normal(shape), requires_grad=True)
        for shape in ((2, 2, 4, 3), (2, 2, 3, 2), (2,))
    ]
    assert mg.gradcheck(lambda x, w, b: call(x, w, b, padding=1), inputs, order=2)


def test_a_planted_mistake_of_one_percent_is_caught(always, monkeypatch):
    right = frequency.transform

    def wrong(geometry, dtype):
        t = right(geometry, dtype)
        return dataclasses.replace(t, back=t.back * np.where(np.arange(t.rows) == 5, 1.01, 1))

    monkeypatch.setattr(frequency, "transform", wrong)
    geometry = ConvGeometry.of_conv((4, 4), (3, 3), 1, 1, 1)
    x, weight, _ = arrays(geometry, "float64")
    got, _ = backend.get("cpu").convolve(x, weight, None, geometry)
    with pytest.raises(AssertionError):
        assert_close(got, naive.convolve(x, weight, geometry), "float64")


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


# -- the plain form's own variants -------------------------------------------------------------------


@QUICK
@given(unstrided(), st.sampled_from(["float32", "float64"]))
def test_gradients_seen_from_a_narrow_result(geometry, dtype):
    x, weight, dy = arrays(geometry, dtype, c=5, o=2)
    exact = [a.astype("float64") for a in (x, weight, dy)]
    engine = backend.get("cpu")
    dx = engine.convolve_input_gradient(dy, weight, None, geometry)
    assert_close(dx, naive.convolve_input_gradient(exact[2], exact[1], geometry), dtype)
    dw = engine.convolve_weight_gradient(x, dy, geometry)
    assert_close(dw, naive.convolve_weight_gradient(exact[0], exact[2], geometry), dtype)


@QUICK
@given(unstrided(), st.sampled_from(["float32", "float64"]), st.sampled_from([(8, 2), (7, 2), (64, 16)]))
def test_a_result_of_few_channels(geometry, dtype, channels):
    """By its planes, by columns where it has more than a quarter of x's channels, or too many at all."""
    x, weight, _ = arrays(geometry, dtype, c=channels[0], o=channels[1])
    bias = np.linspace(-1, 1, channels[1]).astype(dtype)
    exact = [a.astype("float64") for a in (x, weight)]
    expected = naive.convolve(*exact, geometry) + bias.astype("float64").reshape(-1, 1, 1)
    engine = backend.get("cpu")
    assert_close(engine.convolve(x, weight, bias, geometry)[0], expected, dtype)
    slope = naive.leaky_relu(expected, 0.2)
    assert_close(engine.convolve(x, weight, bias, geometry, mg.Epilogue(0.2))[0], slope, dtype)
    epilogue = mg.Epilogue(0.2, 0.3, ((1, 2), (0, 0, 0, 0)))
    y, keep = engine.convolve(x, weight, bias, geometry, epilogue)
    assert_close(y, np.where(keep, slope / 0.7, 0), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_single_pixel_is_laid_once(monkeypatch, dtype, size, stride):
    """As the first layer of a generator does it: no two taps meet, there is nothing to add up."""
    geometry = ConvGeometry.of_conv(size, size, stride, 0, 1)
    _, weight, dy = arrays(geometry, dtype, n=9, c=12, o=7)
    bias = np.linspace(-1, 1, 12).astype(dtype)
    expected = naive.convolve_input_gradient(dy.astype("float64"), weight.astype("float64"), geometry)
    expected += bias.astype("float64").reshape(-1, 1, 1)
    engine = backend.get("cpu")
    monkeypatch.setattr(engine, "_laid_in_planes", None)
    monkeypatch.setattr(engine, "_overlapped", None)
    found = engine.convolve_input_gradient(dy, weight, bias, geometry, mg.Epilogue(0.2))
    assert_close(found, naive.leaky_relu(expected, 0.2), dtype)


def test_which_products_are_seen_from_the_result():
    same, valid = (ConvGeometry.of_conv((9, 9), (3, 3), 1, padding, 1) for padding in (1, 0))
    point = ConvGeometry.of_conv((4, 4), (4, 4), 1, 0, 1)  # the first layer of a generator, transposed
    narrow, planes = cpu_module._is_narrow, cpu_module._makes_few_planes
    assert narrow(same, 8, 4)
    assert not narrow(same, 8, 5)
    assert not narrow(valid, 8, 4)  # it has fewer positions than the image pixels
    assert not narrow(point, 256, 64)
    assert narrow(point, 32, 1)
    assert planes(same, 8, 2)
    assert planes(valid, 8, 2)
    assert not planes(same, 8, 3)
    assert not planes(same, 64, 16)
    assert not planes(point, 128, 1)  # its columns are the image
    assert not planes(ConvGeometry.of_conv((9, 9), (1, 1), 1, 0, 1), 8, 2)
    assert not planes(ConvGeometry.of_conv((9, 9), (3, 3), 2, 1, 1), 8, 2)
    assert not planes(ConvGeometry.of_conv((9, 9), (3, 3), 1, 3, 1), 8, 2)


def test_the_mirrored_geometry_mirrors_back():
    geometry = ConvGeometry.of_conv((6, 7), (3, 2), 1, ((2, 0), (1, 1)), (1, 2))
    assert geometry.mirrored().mirrored() == geometry
    assert geometry.mirrored().input_size == geometry.output_size
    with pytest.raises(ValueError, match="mirrored: expected stride 1 and no padding beyond the kernel"):
        ConvGeometry.of_conv((6, 6), (2, 2), 2, 0, 1).mirrored()
    with pytest.raises(ValueError, match="no padding beyond"):
        ConvGeometry.of_conv((6, 6), (2, 2), 1, 2, 1).mirrored()


@pytest.mark.parametrize("channels", [3, 16, 20])
@pytest.mark.parametrize("kernel", [(4, 4), (4, 3), (6, 2), (2, 4), (3, 3)])
def test_overlapping_taps_are_added_in_groups(kernel, channels):
    geometry = ConvGeometry.of_conv((9, 10), kernel, 2, ((1, 0), (1, 2)), 1)
    engine = backend.get("cpu")
    rng = np.random.default_rng(2)
    columns = rng.standard_normal((2 * geometry.positions, geometry.taps * channels))
    expected = Backend.col2im(engine, columns, 2, geometry)
    assert np.array_equal(first(engine._overlapped(columns, 2, geometry)), expected)


def test_one_im2col_gives_both_gradients_of_a_transposed_convolution():
    geometry = ConvGeometry.of_conv((8, 6), (4, 4), 2, 1, 1)
    x, weight, y = arrays(geometry, "float64", n=5)
    convolved, dw = backend.get("cpu").convolve_and_weight_gradient(x, weight, y, geometry)
    assert_close(convolved, naive.convolve(x, weight, geometry), "float64")
    assert_close(dw, naive.convolve_weight_gradient(x, y, geometry), "float64")


def test_many_slices_add_up_in_groups(monkeypatch):
    monkeypatch.setattr(cpu_module, "MAX_PARTIAL_SUMS", 2)
    monkeypatch.setattr("minigrad.backend.cpu.parallel.MAX_SLICE_BYTES", 1024)
    geometry = ConvGeometry.of_conv((5, 5), (3, 3), 1, 0, 1)
    x, _, dy = arrays(geometry, "float64", n=13, c=2)
    dw = backend.get("cpu").convolve_weight_gradient(x, dy, geometry)
    assert_close(dw, naive.convolve_weight_gradient(x, dy, geometry), "float64")


def test_no_channels_have_no_sums():
    assert mg.tensor(np.zeros((2, 0, 3, 3), np.float32)).sum(axis=(0, 2, 3)).shape == (0,)
