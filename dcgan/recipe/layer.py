"""A kind of layer: one class with its fields, the sizes that follow from them, and its module.

The kinds that come with the package are in layers.py; a plugin may register others (`dcgan.plugins.layer`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

from minigrad import nn
from minigrad.backend.geometry import ConvGeometry

Shape = tuple[int, ...]  # of one image or one row, without the batch


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Layer:
    """A layer of a recipe, as data: what a network is made of, before any array exists.

    A subclass becomes a frozen dataclass. Its fields, of type int, float, bool or str, are what a recipe
    writes: `Dense(128, bias=False)`. The size of the input is no field: it follows from the layers before.

    Attributes:
        kept_arrays: arrays of the size of its output that its graph keeps for the backward pass. Memory is
            estimated by it.
    """

    kept_arrays: ClassVar[float] = 1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclass(frozen=True)(cls)

    def module(self, shape: Shape) -> nn.Module:
        """Return the layer with fresh weights, on the CPU, for items of `shape`."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method module(shape)")

    def output(self, shape: Shape) -> Shape:
        """Return the shape of an item of the output; by default that of the input.

        Raises ValueError if the layer takes no items of `shape`.
        """
        return shape

    def parameters(self, shape: Shape) -> int:
        """Return how many numbers the module learns; by default none."""
        return 0

    def sizes(self, shape: Shape) -> "Sizes":
        """Return the sizes of the layer on items of `shape`. Raises ValueError as `output` does."""
        learned = self.parameters(shape)
        return Sizes(self, shape, self.output(shape), weight=learned, parameters=learned)


@dataclass(frozen=True)
class Sizes:
    """Sizes of one layer.

    Attributes:
        spec: the layer.
        given, made: the shapes of one item of its input and of its output.
        weight: how many numbers its matrix or kernel has.
        parameters: how many numbers it learns: those of the weight, the bias, the scale and the shift.
        buffers: how many numbers its running statistics have.
        geometry: of a convolution, transposed or not; None for other layers.
    """

    spec: Layer
    given: Shape
    made: Shape
    weight: int = 0
    parameters: int = 0
    buffers: int = 0
    geometry: ConvGeometry | None = None


Kind = TypeVar("Kind", bound=type[Layer])
KINDS: dict[str, type[Layer]] = {}  # by the names that recipes write


def register(kind: Kind) -> Kind:
    """Make a subclass of `Layer` a kind that recipes can name, by the name of its class; a decorator."""
    KINDS[kind.__name__] = kind
    return kind
