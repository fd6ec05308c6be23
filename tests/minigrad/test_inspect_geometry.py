"""`geometry`: sizes by running layers, touches by kernels of ones, what is seen by changing pixels."""

import re

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn
from minigrad.inspect import geometry

LAYERS = {
    "flux, 5x5": (nn.ConvTranspose2d(2, 3, 5, 1, 2), (7, 7)),
    "flux, 4x4": (nn.ConvTranspose2d(2, 3, 4, 2, 1), (7, 7)),
    "same": (nn.ConvTranspose2d(2, 3, 5, 2, "same"), (4, 3)),
    "output_padding": (nn.ConvTranspose2d(2, 3, (3, 4), (2, 3), 1, 1), (3, 4)),
    "dilation": (nn.ConvTranspose2d(2, 3, 3, 2, 0, dilation=2), (3, 4)),
    "gaps": (nn.ConvTranspose2d(2, 3, 1, 3), (3, 2)),
    "one pixel": (nn.ConvTranspose2d(2, 3, 4, 1), (1, 1)),
    "down": (nn.Conv2d(2, 3, 4, 2, 1), (9, 8)),
    "down, same": (nn.Conv2d(2, 3, (5, 2), (2, 3), "same"), (8, 7)),
    "down, dilation": (nn.Conv2d(2, 3, 3, 1, ((2, 0), (1, 3)), dilation=(1, 2)), (6, 5)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def ran(layer, x):
    with mg.no_grad():
        return layer(mg.tensor(x, "float32")).numpy()


@every_layer
def test_sizes_are_those_of_the_result_and_the_formula_is_true(name):
    layer, size = LAYERS[name]
    found = geometry(layer, size)
    shape = ran(layer, np.zeros((1, 2, *size))).shape
    assert found.output_size == shape[2:]
    assert found.input_size == size
    for text, expected in zip(found.formulas, shape[2:], strict=True):
        left, _, right = text.partition(" = ")
        assert eval(left.replace("floor", "").replace("/", "//")) == int(right) == expected
    for wider in ((2, *size), (5, 2, *size)):
        assert geometry(layer, wider).output_size == shape[2:]


@every_layer
def test_a_kernel_of_ones_counts_the_touches(name):
    layer, size = LAYERS[name]
    found = geometry(layer, size)
    ones = type(layer)(
        1, 1, layer.weight.shape[2:], layer.stride, layer.padding, bias=False, dilation=layer.dilation,
        **({"output_padding": layer.output_padding} if found.transposed else {}),
    )  # fmt: skip
    ones.weight.data[:] = 1
    x = mg.tensor(np.ones((1, 1, *size), np.float32), requires_grad=True)
    y = ones(x)
    y.sum().backward()
    counts = y if found.transposed else x.grad
    assert np.array_equal(found.touched, counts.numpy()[0, 0])


@every_layer
def test_what_a_pixel_sees_is_what_it_changes_with(name):
    layer, size = LAYERS[name]
    x = np.random.default_rng(0).standard_normal((1, 2, *size))
    before = ran(layer, x)
    seen = np.zeros((*before.shape[2:], *size), bool)
    for i, j in np.ndindex(*size):
        other = x.copy()
        other[:, :, i, j] += 1
        seen[:, :, i, j] = (ran(layer, other) != before).any(axis=(0, 1))
    spans = []
    for others, n in ((3, size[0]), (2, size[1])):
        along, numbers = seen.any(axis=others), np.arange(n)
        first, last = np.where(along, numbers, n).min(-1), np.where(along, numbers, -1).max(-1)
        spans.append((last - first + 1).max())
    assert geometry(layer, size).field == tuple(spans)


def test_the_text_of_an_uneven_layer():
    assert str(geometry(nn.ConvTranspose2d(8, 4, 3, 2, 1), (2, 3))).splitlines() == [
        "ConvTranspose2d(8, 4), kernel 3 x 3, stride 2 x 2: 2 x 3 to 3 x 5 pixels",
        "  height = (2 - 1) * 2 + 3 - 1 - 1 = 3",
        "  width  = (3 - 1) * 2 + 3 - 1 - 1 = 5",
        "  cut off the output: 1 above, 1 below, 1 left, 1 right",
        "  a pixel of the output sees up to 2 x 2 pixels of the input",
        "  a pixel of the output is written to 1 to 4 times:",
        "    1 2 1 2 1",
        "    2 4 2 4 2",
        "    1 2 1 2 1",
        "  warning: the kernel is no multiple of the stride in height (3 and 2) and width (3 and 2), "
        "so that pixels are written to unequally often: expect a checkerboard",
    ]


def test_the_flux_generator_is_even_but_for_its_edges():
    for channels, size in (((128, 64), (7, 7)), ((64, 1), (14, 14))):
        found = geometry(nn.ConvTranspose2d(*channels, 4, 2, 1, bias=False), (channels[0], *size))
        assert found.output_size == (2 * size[0], 2 * size[1])
        assert found.warning == ""
        assert set(found.touched[1:-1, 1:-1].ravel()) == {4}
        assert found.touched[0, 0] == 1


def test_the_text_of_an_even_one_and_of_a_convolution():
    assert "  each pixel of the output is written to 1 times" in str(
        geometry(nn.ConvTranspose2d(1, 1, 2, 2), (3, 3))
    )
    text = str(geometry(nn.Conv2d(1, 64, 4, 2, 1), (28, 28)))
    assert "height = floor((28 + 1 + 1 - 4) / 2) + 1 = 14" in text
    assert "added around the input: 1 above" in text
    assert "warning" not in text


def test_a_picture_is_written_whole(tmp_path):
    found = geometry(nn.ConvTranspose2d(1, 1, 3, 2), (4, 4))
    found.save(tmp_path / "touched.png")
    assert (tmp_path / "touched.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"ends in \.png, got .*touched\.gif"):
        found.save(tmp_path / "touched.gif")


def test_what_is_no_convolution_or_does_not_fit_is_an_error():
    with pytest.raises(TypeError, match=r"expected a Conv2d or a ConvTranspose2d, got Dense\(2, 3\)"):
        geometry(nn.Dense(2, 3), (2, 2))
    with pytest.raises(ValueError, match=r"Conv2d\(1, 3\) takes \(H, W\), \(1, H, W\).*got \(2, 8, 8\)"):
        geometry(nn.Conv2d(1, 3, 3), (2, 8, 8))
    with pytest.raises(ValueError, match="the kernel of"):
        geometry(nn.Conv2d(1, 3, 5), (3, 3))
    with pytest.raises(
        TypeError, match="expected a Conv2d or a ConvTranspose2d, got str: of a network, pass"
    ):
        geometry("x", (3, 3))


@pytest.mark.parametrize("given", [5, None, "5", (5.0, 5.0), (5, 0), (-5, 5), np.ones((5, 5))])
def test_what_is_no_shape_is_an_error(given):
    message = (
        "expected as input_shape that of an image.*got " + re.escape(repr(given)[:40]) + ".*tuple of whole"
    )
    with pytest.raises(TypeError, match=f"(?s){message}"):
        geometry(nn.Conv2d(1, 3, 3), given)
    assert geometry(nn.Conv2d(1, 3, 3), [np.int64(5), 5]).output_size == (3, 3)
