"""The kernels and the products that a GPU is given to run, in their order."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

from .. import observer
from ..backend import launches as given
from ..backend.launches import Work
from ..markup import html_table, paragraph
from ..tables import in_bytes, table
from ..tensor import Tensor
from .names import Names, Networks

HEADS = ("", "operation", "kernel", "blocks", "bytes", "MFLOP")
ALIGN = "><<>"
MOVES = ("cast", "concatenate", "get_item", "pad", "put_item")  # those that compute nothing


@dataclass(frozen=True)
class Launch(Work):
    """One launch of a kernel, or one product by cuBLAS, and its place in the networks.

    Attributes:
        layer: the name of the layer with its description; of an optimizer's step the name of the network; ""
            for what belongs to none.
        operation: the operation that it is a part of, such as "convolve", or the optimizer; "" between them.
        phase: "forward", "backward" or "step".
    """

    layer: str
    operation: str
    phase: str


@dataclass(repr=False)
class Launches(observer.Observer):
    """The launches on a GPU while this was entered. See `launches`.

    Attributes:
        launches: in the order in which the GPU runs them.
    """

    follows_updates = False

    names: Names
    launches: list[Launch] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._layers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # of operations
        self._running: list[tuple[Any, str, int]] = []  # subject, phase, launches before it

    def __enter__(self) -> "Launches":
        super().__enter__()
        given.listeners.append(self._add)
        return self

    def __exit__(self, *error: object) -> None:
        given.listeners.remove(self._add)
        super().__exit__(*error)
        self._running.clear()  # where another observer raised, nobody is notified of an end

    def begin(self, subject: Any, phase: str) -> None:
        if phase == observer.FORWARD and self.differentiated is None:
            self._layers[subject] = self.names.of(self.modules)
        self._running.append((subject, phase, len(self.launches)))

    def abort(self, subject: Any, phase: str) -> None:
        self._running.pop()

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase == observer.UPDATE:
            return  # a part of BatchNorm's forward, without a begin
        _, _, before = self._running[-1]
        if phase == observer.FORWARD and len(self.launches) == before:
            self.launches += [self._placed(work) for work in _by_cupy(subject, inputs, outputs[0])]
        self._running.pop()

    def _add(self, work: Work) -> None:
        if self in observer.current():  # else it is what another observer does
            self.launches.append(self._placed(work))

    def _placed(self, work: Work) -> Launch:
        """Return the launch with what is running: an operation, in a backward pass or not, or a step."""
        subject, phase, _ = self._running[-1] if self._running else (None, observer.FORWARD, 0)
        operation = "" if subject is None else getattr(subject, "name", type(subject).__name__)
        at = self.differentiated
        if at is not None:
            phase = observer.BACKWARD
            layer = self.names.of_parameter(at) if isinstance(at, Tensor) else self._layers.get(at, "")
        elif phase == observer.STEP:
            layer = self.names.of_optimizer(subject)
        else:
            layer = self.names.of(self.modules)
        return Launch(**vars(work), layer=layer, operation=operation, phase=phase)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.sums}>"

    def __str__(self) -> str:
        """The launches in their order, under the layers that they belong to, and their sums."""
        rows = self._rows()
        lines = iter(table([row for row in rows if len(row) > 1], ALIGN).splitlines())
        return "\n".join([*(row[0] if len(row) == 1 else next(lines) for row in rows), self.sums])

    def _repr_html_(self) -> str:
        return html_table(self._rows(), ALIGN) + paragraph(self.sums)

    def _rows(self) -> list[tuple[str, ...]]:
        """The cells of the table: the heads, and for each layer a row of one cell, then its launches."""
        rows: list[tuple[str, ...]] = [HEADS]
        numbered = enumerate(self.launches, 1)
        for (layer, phase), group in groupby(numbered, lambda pair: _place(pair[1])):
            rows.append((f"{layer or 'outside of layers'}, {phase}",))
            rows += [_row(number, launch) for number, launch in group]
        return rows

    @property
    def sums(self) -> str:
        """How many launches and products there are, with their bytes and operations, in one line."""
        products = [each for each in self.launches if each.is_product]
        kernels = len(self.launches) - len(products)
        bytes_, flop = (sum(getattr(each, key) for each in self.launches) for key in ("bytes", "flop"))
        of_products = sum(each.flop for each in products)
        return (
            f"{kernels} launches and {len(products)} products: {in_bytes(bytes_)} and "
            f"{flop / 1e9:.3g} GFLOP, {of_products / 1e9:.3g} of them in products"
        )


def _place(launch: Launch) -> tuple[str, str]:
    return launch.layer, launch.phase


def _row(number: int, launch: Launch) -> tuple[str, ...]:
    grid = " x ".join(map(str, launch.grid)) or "-"
    flop = f"{launch.flop / 1e6:,.3f}" if launch.flop else "-"
    return str(number), launch.operation or "-", launch.kernel, grid, in_bytes(launch.bytes), flop


def _by_cupy(operation: Any, inputs: tuple[Any, ...], output: Tensor) -> list[Work]:
    """Return the launches of an operation whose forward is made of CuPy's own kernels alone.

    As a rule it is one, that reads the inputs and writes the output. A view is none, nor is a copy of
    contiguous memory, which the driver does.
    """
    backend = operation.backend
    if backend.device != "gpu" or operation.result_backend is not backend or not output.size:
        return []
    arrays = [t.data for t in inputs if isinstance(t, Tensor)]
    if operation.view and any(backend.xp.may_share_memory(a, output.data) for a in arrays):
        return []
    if operation.name == "put_item" and output.data[operation.index].flags.c_contiguous:
        return []
    if operation.name == "concatenate":  # one copy each
        return [Work("CuPy copy", (), 2 * array.nbytes, 0) for array in arrays]
    moved = sum(array.nbytes for array in arrays) + output.data.nbytes
    flop = 0 if operation.name in MOVES else output.size
    return [Work(f"CuPy {operation.name}", (), moved, flop)]


def launches(model: Networks = None) -> Launches:
    """A context that lists what a GPU is given to run: each launch of a kernel, and each product by cuBLAS.

    The list stays empty on the CPU. It is complete for the training steps of the recipes. Forward passes that
    several of CuPy's own kernels make (such as `functional.cross_entropy` and `functional.pad`) and the steps
    of `SGD` and `RMSprop` show fewer launches than they make, or none.

        with inspect.launches(model) as found:
            loss(model(x)).backward()
            optimizer.step()
        print(found)
        sum(each.bytes for each in found.launches)

    Args:
        model: whose layers are to be named; or several, by name.
    """
    return Launches(Names(model))
