"""The graph that operations recorded, as a picture."""

import html
import json
import math
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..nn import Module
from ..serialize import write_whole
from ..tables import in_bytes
from ..tensor import Tensor

Shape = tuple[int, ...]
Way = list[tuple[float, int]]  # places across, and rows
WIDTH, HEIGHT = 190, 56  # of a box, in pixels
ACROSS, DOWN = 24, 34  # between boxes
COLORS = {"operation": "#dbe9f6", "leaf": "#fde3c8", "constant": "#eeeeee"}
TEXT = "#1a1a1a"  # on those
LINE = "#888888"  # seen on a light page and on a dark one


@dataclass(frozen=True)
class Box:
    """An operation's result, or what went into one.

    Attributes:
        name: of the operation; of a leaf in its model, or "leaf"; or "constant".
        kind: "operation", "leaf" (what gradients are for), or "constant" (what has none, as data).
        shape: of the result.
        bytes: of the result, whether that is memory of its own or (as of a reshape) its input's.
        inputs: the places of the boxes that it was computed from.
    """

    name: str
    kind: str
    shape: Shape
    bytes: int
    inputs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The computation of a tensor, as a graph. Notebooks show it as a picture.

    Attributes:
        boxes: each behind its inputs; the tensor itself is the last.
    """

    boxes: tuple[Box, ...]

    def dot(self) -> str:
        """The graph in Graphviz's language."""
        lines = ["digraph {", "  node [shape=box, style=filled, fontname=Helvetica]"]
        for i, box in enumerate(self.boxes):
            label = json.dumps("\n".join(_lines(box)), ensure_ascii=False)
            lines.append(f'  n{i} [label={label}, fillcolor="{COLORS[box.kind]}"]')
        lines += [f"  n{i} -> n{k}" for k, box in enumerate(self.boxes) for i in box.inputs]
        return "\n".join([*lines, "}"]) + "\n"

    def svg(self) -> str:
        """The graph as a picture, what is computed last at the bottom."""
        rows = _rows(self.boxes)
        places, ways = _layout(self.boxes, rows)
        left, right = min(places), max(places)
        width, height = right - left + WIDTH + 2 * ACROSS, (max(rows) + 1) * (HEIGHT + DOWN) + DOWN

        def at(x: float, row: int) -> tuple[float, float]:
            """The middle of the upper edge."""
            return x - left + WIDTH / 2 + ACROSS, row * (HEIGHT + DOWN) + DOWN

        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" font-size="12">'
        ]
        for way in ways:
            points = []
            for x, row in way:
                across, top = at(x, row)
                points += [f"{across:.1f},{top:.1f}", f"{across:.1f},{top + HEIGHT:.1f}"]
            # From the lower edge of the first box to the upper edge of the last.
            line = " ".join(points[1:-1])
            parts.append(f'<polyline points="{line}" fill="none" stroke="{LINE}"/>')
        for x, row, box in zip(places, rows, self.boxes, strict=True):
            middle, top = at(x, row)
            parts.append(
                f'<rect x="{middle - WIDTH / 2:.1f}" y="{top:.1f}" width="{WIDTH}" height="{HEIGHT}" '
                f'rx="5" fill="{COLORS[box.kind]}" stroke="{LINE}"/>'
            )
            for k, text in enumerate(_lines(box)):
                parts.append(
                    f'<text x="{middle:.1f}" y="{top + 18 + 15 * k:.1f}" text-anchor="middle" fill="{TEXT}">'
                    f"{html.escape(text)}</text>"
                )
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _repr_svg_(self) -> str:
        return self.svg()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture (".svg") or Graphviz's text (".dot"), whole or not at all.

        Raises ValueError for another ending.
        """
        ending = Path(path).suffix
        if ending not in (".svg", ".dot"):
            raise ValueError(f"graph: expected a path that ends in .svg or .dot, got {str(path)!r}")
        write_whole(path, (self.svg() if ending == ".svg" else self.dot()).encode())


def graph(tensor: Tensor, model: Module | None = None) -> Graph:
    """Return how a tensor was computed from its leaves, as far as gradients go.

    Python numbers are left out, and what no gradient passes is a constant, once for each use.

    Args:
        tensor: such as a loss, before its `backward`, which frees the graph.
        model: the names of whose parameters leaves are given.

    Raises TypeError for what is no tensor or no model, ValueError where nothing was recorded, and
    RuntimeError where it was freed.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"graph: expected a tensor, got {type(tensor).__name__}: pass what was computed, such as a loss"
        )
    if model is not None and not isinstance(model, Module):
        raise TypeError(
            f"graph: expected a layer or a network of minigrad.nn as model, got {type(model).__name__}: "
            "pass the one whose parameters are to be named, or leave it out"
        )
    if tensor.node is None:
        raise ValueError("graph: nothing was recorded for this tensor: no input requires a gradient")
    names = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    order, shapes = _walk(tensor)
    boxes: list[Box] = []
    places: dict[int, int] = {}  # of nodes and leaves, by id
    sizes: dict[int, int] = {}  # in bytes, of one number of theirs

    def add(name: str, kind: str, shape: Shape, size: int, inputs: tuple[int, ...] = ()) -> int:
        boxes.append(Box(name, kind, shape, math.prod(shape) * size, inputs))
        return len(boxes) - 1

    for node in order:
        for edge in node.edges:
            if isinstance(edge, Tensor) and id(edge) not in places:
                sizes[id(edge)] = edge.dtype.itemsize
                name = names.get(id(edge), "leaf")
                places[id(edge)] = add(name, "leaf", edge.shape, edge.dtype.itemsize)
        size = next((sizes[id(edge)] for edge in node.edges if edge is not None), tensor.dtype.itemsize)
        inputs = [
            places[id(edge)] if edge is not None else add("constant", "constant", shape, size)
            for edge, shape in zip(node.edges, node.shapes, strict=True)
            if edge is not None or shape
        ]
        if node.name == "cast":
            size = node.backend.xp.dtype(node.dtype).itemsize
        sizes[id(node)] = size
        places[id(node)] = add(node.name, "operation", shapes[id(node)], size, tuple(inputs))
    return Graph(tuple(boxes))


def _walk(tensor: Tensor) -> tuple[list[Any], dict[int, Shape]]:
    """The nodes behind a tensor, oldest first, and the shapes of their results by id.

    A node knows the shapes of its inputs; so that of a result is known from where it went.
    """
    shapes, found, waiting = {id(tensor.node): tensor.shape}, {}, [tensor.node]
    while waiting:
        node: Any = waiting.pop()
        if id(node) in found:
            continue
        if node.released:
            raise RuntimeError("graph: freed by backward: draw it before, or pass retain_graph=True")
        found[id(node)] = node
        for edge, shape in zip(node.edges, node.shapes, strict=True):
            if edge is not None and not isinstance(edge, Tensor):
                shapes[id(edge)] = shape
                waiting.append(edge)
    return sorted(found.values(), key=lambda node: node.number), shapes


def _lines(box: Box) -> tuple[str, ...]:
    return box.name, str(box.shape), in_bytes(box.bytes)


def _rows(boxes: tuple[Box, ...]) -> list[int]:
    """The row of each box, from 0 at the top: below all of its inputs; of a leaf, just above its use."""
    rows = [0] * len(boxes)
    for k, box in enumerate(boxes):
        if box.kind == "operation":
            rows[k] = 1 + max((rows[i] for i in box.inputs), default=-1)
    for i, box in enumerate(boxes):
        if box.kind != "operation":
            rows[i] = min(rows[k] for k, user in enumerate(boxes) if i in user.inputs) - 1
    return rows


def _layout(boxes: tuple[Box, ...], rows: list[int]) -> tuple[list[float], list[Way]]:
    """Return the boxes' places across, and for each line the places (across, row) that it goes through.

    From the bottom up, each box is put above the middle of those that use it, as far as there is room.
    A line over more than one row has a place of its own in the rows between.
    """
    # A place is that of a box, by its number, or (from, to, row) of a line.
    below: dict[Any, list[Any]] = {i: [] for i in range(len(boxes))}
    row_of: dict[Any, int] = dict(enumerate(rows))
    chains = []
    for k, box in enumerate(boxes):
        for i in dict.fromkeys(box.inputs):
            between = [(i, k, row) for row in range(rows[i] + 1, rows[k])]
            chains.append([i, *between, k])
            for place, following in pairwise(chains[-1]):
                below.setdefault(place, []).append(following)
            row_of |= {place: place[2] for place in between}
    across: dict[Any, float] = {}
    for row in range(max(rows), -1, -1):
        wanted = {
            place: sum(across[b] for b in below[place]) / len(below[place]) if below[place] else 0.0
            for place, own in row_of.items()
            if own == row
        }
        order = sorted(wanted, key=lambda place: wanted[place])
        step = WIDTH + ACROSS
        middle = sum(wanted.values()) / len(wanted)
        free = -math.inf
        for place in order:
            across[place] = free = max(wanted[place], free + step)
        shift = middle - sum(across[place] for place in order) / len(order)
        for place in order:
            across[place] += shift
    ways = [[(across[place], row_of[place]) for place in chain] for chain in chains]
    return [across[i] for i in range(len(boxes))], ways
