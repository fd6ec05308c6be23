"""`graph`: boxes and lines by hand, and pictures that are read again."""

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import nn
from minigrad.inspect import graph

SVG = "{http://www.w3.org/2000/svg}"


def flux():
    """The layers of the Flux tutorial's generator, narrower."""
    return nn.Sequential(
        nn.Dense(100, 784, bias=False), nn.BatchNorm(784), nn.ReLU(), nn.Reshape(16, 7, 7),
        nn.ConvTranspose2d(16, 8, 5, 1, 2, bias=False), nn.BatchNorm(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def made(model):
    return model(mg.tensor(np.random.default_rng(0).standard_normal((3, 100)), "float32"))


def test_a_small_graph_by_hand():
    x = mg.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = F.tanh(x)
    found = graph((y * mg.tensor(np.ones((1, 3), np.float32)) + y * 2.0).sum())
    assert [(box.name, box.kind, box.shape, box.bytes, box.inputs) for box in found.boxes] == [
        ("leaf", "leaf", (2, 3), 24, ()),
        ("tanh", "operation", (2, 3), 24, (0,)),
        ("constant", "constant", (1, 3), 12, ()),
        ("multiply", "operation", (2, 3), 24, (1, 2)),
        ("multiply", "operation", (2, 3), 24, (1,)),
        ("add", "operation", (2, 3), 24, (3, 4)),
        ("sum", "operation", (), 4, (5,)),
    ]


def test_the_parameters_of_a_model_are_named():
    model = flux()
    found = graph(made(model), model)
    leaves = {box.name: box.shape for box in found.boxes if box.kind == "leaf"}
    assert leaves == {name: p.shape for name, p in model.named_parameters()}
    shapes = [box.shape for box in found.boxes if box.name == "convolve_input_gradient"]
    assert shapes == [(3, 8, 7, 7), (3, 4, 14, 14), (3, 1, 28, 28)]
    assert found.boxes[-1].name == "tanh"
    assert found.boxes[-1].bytes == 4 * 3 * 784


def test_a_change_of_dtype_changes_the_bytes():
    x = mg.tensor(np.ones(5, np.float32), requires_grad=True)
    assert [box.bytes for box in graph(F.exp(x.to("float64"))).boxes] == [20, 40, 40]


def test_the_text_for_graphviz():
    x = mg.tensor([1.0, 2.0], requires_grad=True)
    text = graph(F.exp(x)).dot()
    assert re.findall(r"n\d+ -> n\d+", text) == ["n0 -> n1"]
    assert 'n1 [label="exp\\n(2,)\\n8 B"' in text
    assert text.startswith("digraph {\n")
    assert text.endswith("}\n")


def drawn(found):
    """Boxes as (left, top, right, bottom), and lines as lists of points, from the picture."""
    root = ElementTree.fromstring(found.svg())
    boxes = []
    for rect in root.iter(f"{SVG}rect"):
        x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        boxes.append((x, y, x + width, y + height))
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    size = float(root.get("width")), float(root.get("height"))
    return boxes, lines, size, [text.text for text in root.iter(f"{SVG}text")]


def skipping():
    """A graph with lines over many rows, and a name that is markup."""
    x = mg.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    y = F.tanh(F.exp(F.tanh(x)))
    return y * x + F.sigmoid(x)


@pytest.mark.parametrize("make", [lambda: made(flux()), skipping])
def test_boxes_do_not_overlap_and_lines_join_them_from_above(make):
    found = graph(make())
    boxes, lines, (width, height), texts = drawn(found)
    assert len(boxes) == len(found.boxes)
    assert len(texts) == 3 * len(boxes)
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        for a, b, c, d in boxes[:i]:
            assert right <= a or c <= left or bottom <= b or d <= top
    joined = {(i, k) for k, box in enumerate(found.boxes) for i in box.inputs}
    assert len(lines) == len(joined)
    ends = set()
    for line in lines:
        (x, y), (x_to, y_to) = line[0], line[-1]
        source = next(i for i, (a, _, c, d) in enumerate(boxes) if d == y and a < x < c)
        target = next(i for i, (a, b, c, _) in enumerate(boxes) if b == y_to and a < x_to < c)
        ends.add((source, target))
        assert all(y < lower for (_, y), (_, lower) in pairwise(line))
        for x, y in line[1:-1]:
            assert not any(a < x < c and b < y < d for a, b, c, d in boxes)
    assert ends == joined


def test_names_are_escaped():
    class Model(nn.Module):
        pass

    model = Model()
    setattr(model, "a<b&", nn.Parameter(np.ones(2, np.float32)))
    found = graph(F.exp(getattr(model, "a<b&")), model)
    assert drawn(found)[-1][0] == "a<b&"


def test_a_file_is_written_by_its_ending(tmp_path):
    found = graph(skipping())
    found.save(tmp_path / "g.svg")
    found.save(tmp_path / "g.dot")
    assert (tmp_path / "g.svg").read_text() == found.svg()
    assert (tmp_path / "g.dot").read_text() == found.dot()
    with pytest.raises(ValueError, match=r"ends in \.svg or \.dot, got .*g\.png"):
        found.save(tmp_path / "g.png")


def test_what_was_not_recorded_or_was_freed_is_an_error():
    x = mg.tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match="nothing was recorded"):
        graph(x)
    y = F.exp(F.tanh(x))
    y.backward(retain_graph=True)
    assert len(graph(y).boxes) == 3
    y.backward()
    with pytest.raises(RuntimeError, match="freed by backward"):
        graph(y)


def test_what_is_no_tensor_or_no_model_is_an_error():
    with pytest.raises(TypeError, match="expected a tensor, got int: pass what was computed, such as a loss"):
        graph(3)
    y = F.tanh(mg.tensor([1.0], requires_grad=True))
    with pytest.raises(TypeError, match=r"network of minigrad\.nn as model, got str: pass the one whose"):
        graph(y, "model")


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_gradient_that_nothing_was_recorded_for_is_drawn(shape):
    x = mg.tensor(np.ones(shape), requires_grad=True)
    (g,) = mg.grad(F.relu(x).sum(), x, create_graph=True)
    drawn = graph(g.sum())
    assert [box.name for box in drawn.boxes if box.kind == "operation"] == ["gradient", "sum"]
    assert drawn.boxes[-1].bytes == 8
    assert "gradient" in drawn.svg()
