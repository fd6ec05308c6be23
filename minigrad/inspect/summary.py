"""The layers of a network in a table: shapes, parameters, work, memory, and what a pixel sees."""

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

from .. import backend as backends
from .. import observer, random
from ..markup import html_table
from ..nn import Module
from ..tables import in_bytes, table
from ..tensor import Tensor, no_grad
from .products import flop
from .receptive import Fields
from .shapes import is_shape

HEADS = ("name", "layer", "output", "parameters", "multiply-adds", "output's bytes", "sees")
ALIGN = "<<<>"


@dataclass(frozen=True)
class Row:
    """One layer, each time that it runs.

    Attributes:
        name: by its place in the model, such as "0.2".
        layer: with its arguments.
        shape: of its output, with the batch.
        parameters: how many numbers it learns itself; those that a row above has are not counted again.
        multiply_adds: of its products, in their plain form; of element-wise work none are counted.
        bytes: of its output, whether that is memory of its own or (as of a Reshape) its input's. A leaky
            ReLU that a Sequential takes with the layer before has none of its own in use.
        field: how many pixels of the model's input (down, across) one pixel of the output sees, at most;
            None where input or output have no pixels.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bytes: int
    field: tuple[int, int] | None


@dataclass(frozen=True)
class Summary:
    """The layers of a model; `str()` is a table, which notebooks show as one in HTML.

    Attributes:
        rows: the layers, in the order in which they ran.
        parameters: of the model.
        multiply_adds: of all its products, those outside of any layer too.
    """

    rows: tuple[Row, ...]
    parameters: int
    multiply_adds: int

    @property
    def bytes(self) -> int:
        """Of all outputs together."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        return table(self._lines(), ALIGN)

    def _repr_html_(self) -> str:
        return html_table(self._lines(), ALIGN, foot=1)

    def _lines(self) -> list[tuple[str, ...]]:
        """The cells of the table: the heads, the layers, and the sums."""
        lines: list[tuple[str, ...]] = [HEADS]
        for row in self.rows:
            sees = "-" if row.field is None else "{} x {}".format(*row.field)
            lines.append(
                (
                    row.name,
                    row.layer,
                    str(row.shape),
                    f"{row.parameters:,}",
                    f"{row.multiply_adds:,}",
                    in_bytes(row.bytes),
                    sees,
                )
            )
        parameters, multiply_adds = f"{self.parameters:,}", f"{self.multiply_adds:,}"
        lines.append(("all", "", "", parameters, multiply_adds, in_bytes(self.bytes), ""))
        return lines


class _Work(observer.Observer):
    """Counts the operations of products by the innermost module that they belong to."""

    def __init__(self) -> None:
        super().__init__()
        self.flop: Counter[int] = Counter()  # by id
        self.total = 0

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        count = flop(subject, phase, inputs, outputs)
        self.total += count
        if self.modules:
            self.flop[id(self.modules[-1])] += count


def summary(model: Module, input_shape: "tuple[int, ...] | Tensor") -> Summary:
    """Summarize a model layer by layer, from one forward in eval mode.

    It runs on a copy: the model's mode, statistics and hooks, and the random state, are left alone.

    Args:
        model: a layer or a network of one input.
        input_shape: of one item, without the batch, for one of zeros; or a batch as a Tensor (N, ...).

    Raises TypeError for what is no model, no shape and no batch, and what the model's forward does where the
    shape does not fit: ValueError, naming the layer.
    """
    if not isinstance(model, Module):
        raise TypeError(
            f"summary: expected a layer or a network of minigrad.nn as model, got {type(model).__name__}"
        )
    if not isinstance(input_shape, Tensor) and not is_shape(input_shape):
        raise TypeError(
            "summary: expected as input_shape the shape of one item, such as (100,) or (1, 28, 28), "
            f"or a batch as a Tensor, got {input_shape!r:.80}: write the sizes as a tuple of whole numbers "
            "from 1 on, or use minigrad.tensor"
        )
    model = copy.deepcopy(model).eval()
    names: dict[int, str] = {}
    for name, module in model.named_modules():
        module.forward_hooks.clear()
        module.backward_hooks.clear()
        names.setdefault(id(module), name)
    uncounted = {id(p) for p in model.parameters()}
    parameters = sum(p.size for p in model.parameters())
    x = input_shape if isinstance(input_shape, Tensor) else _zeros(model, input_shape)
    work, fields, rows = _Work(), Fields(x), []

    def add(module: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        own = [value for value in vars(module).values() if id(value) in uncounted]
        multiply_adds = work.flop.pop(id(module), 0) // 2
        if any(module.children()) and not own and not multiply_adds:
            return  # all that it does is done by layers in it
        field = fields.of(output)
        rows.append(
            Row(
                names[id(module)],
                module.describe(),
                output.shape,
                sum(p.size for p in own),
                multiply_adds,
                output.data.nbytes,
                None if field is None else (field[0].widest, field[1].widest),
            )
        )
        uncounted.difference_update(map(id, own))

    for module in {id(m): m for _, m in model.named_modules()}.values():
        module.register_forward_hook(add)
    state = random.get_state()
    try:
        with no_grad(), work, fields:
            model(x)
    finally:
        random.set_state(state)
    return Summary(tuple(rows), parameters, work.total // 2)


def _zeros(model: Module, shape: tuple[int, ...]) -> Tensor:
    """A batch of one, where and of the dtype that the model's parameters are."""
    like = next(model.parameters(), None)
    backend = backends.get() if like is None else like.backend
    dtype = "float32" if like is None else like.dtype
    return Tensor(backend.xp.zeros((1, *shape), dtype), backend=backend)
