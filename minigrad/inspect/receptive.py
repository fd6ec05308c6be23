"""The receptive field: the pixels of an image that a pixel of a result depends on."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import observer
from ..backend.geometry import ConvGeometry
from ..tensor import Tensor

Host = np.ndarray[Any, Any]
# Operations that take numbers of one pixel alone to the same pixel.
BY_PIXEL = {
    "add",
    "subtract",
    "multiply",
    "divide",
    "negate",
    "power",
    "exp",
    "log",
    "sqrt",
    "abs",
    "clip",
    "maximum",
    "tanh",
    "sigmoid",
    "softplus",
    "leaky_relu",
    "normalize",
    "dropout",
    "mask_scale",
    "cast",
    "to_device",
}


@dataclass(frozen=True)
class Axis:
    """Along one axis, the first and the last pixel of the image that each pixel sees.

    A pixel that sees none has a first beyond its last.
    """

    first: Host
    last: Host

    @classmethod
    def of_image(cls, size: int) -> "Axis":
        """Each pixel of the image itself."""
        return cls(np.arange(size), np.arange(size))

    @property
    def widest(self) -> int:
        """The most pixels that one sees."""
        return max(int((self.last - self.first).max()) + 1, 0)

    def through(self, source: Host, target: Host, size: int) -> "Axis":
        """Return the receptive field of `size` pixels where target[i] is computed from source[i]."""
        first, last = np.full(size, self.last.max() + 1), np.full(size, -1)
        np.minimum.at(first, target, self.first[source])
        np.maximum.at(last, target, self.last[source])
        return Axis(first, last)

    def __or__(self, other: "Axis") -> "Axis":
        return Axis(np.minimum(self.first, other.first), np.maximum(self.last, other.last))


Field = tuple[Axis, Axis]


def taps(geometry: ConvGeometry, axis: int) -> tuple[Host, Host]:
    """Along an axis, the pixels of a convolution's input and output that taps of its kernel join."""
    outputs = np.arange(geometry.output_size[axis])[:, None]
    inside = np.arange(geometry.kernel_size[axis])[None] * geometry.dilation[axis]
    inputs = outputs * geometry.stride[axis] + inside - geometry.padding[axis][0]
    valid = (inputs >= 0) & (inputs < geometry.input_size[axis])
    return inputs[valid], np.broadcast_to(outputs, inputs.shape)[valid]


class Fields(observer.Observer):
    """Follows what pixels see through all operations that run while it is entered.

    Args:
        image: (N, C, H, W), a pixel of which sees itself. Other shapes have no pixels.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._known: dict[int, tuple[Tensor, Field]] = {}  # tensors are kept, so that ids stay their own
        if image.ndim == 4:
            _, _, height, width = image.shape
            self._known[id(image)] = (image, (Axis.of_image(height), Axis.of_image(width)))

    def of(self, result: Tensor) -> Field | None:
        """By axis (vertical, horizontal); None for a result without pixels, or if it is not known."""
        return self._known[id(result)][1] if id(result) in self._known else None

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase != observer.FORWARD:
            return
        result = outputs[0]
        seen = [(t.shape, field) for t in inputs if isinstance(t, Tensor) and (field := self.of(t))]
        if not seen or result.ndim != 4:
            return
        shape, field = seen[0]
        if subject.name == "convolve":
            field = self._through(subject.geometry, field, forward=True)
        elif subject.name == "convolve_input_gradient":
            field = self._through(subject.geometry, field, forward=False)
        elif subject.name in BY_PIXEL and all(s[2:] == result.shape[2:] for s, _ in seen):
            for _, other in seen[1:]:
                field = (field[0] | other[0], field[1] | other[1])
        elif subject.name != "reshape" or shape != result.shape:
            return
        self._known[id(result)] = (result, field)

    @staticmethod
    def _through(geometry: ConvGeometry, field: Field, forward: bool) -> Field:
        axes = []
        for axis in range(2):
            source, target = taps(geometry, axis)
            sizes = geometry.output_size if forward else geometry.input_size
            if not forward:
                source, target = target, source
            axes.append(field[axis].through(source, target, sizes[axis]))
        return axes[0], axes[1]
