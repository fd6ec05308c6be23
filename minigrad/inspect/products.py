"""The number of operations of a network's products, as plain matrix products."""

from typing import Any

from .. import observer
from ..backend.geometry import ConvGeometry
from ..tensor import is_grad_enabled


def flop(subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> int:
    """The operations of one product, of whose end an observer is notified; a multiply-add is two.

    As many as the plain form takes, whatever way it was computed; 0 for what is no product. A backward
    rule that is made of other operations has none itself.
    """
    name = getattr(subject, "name", "")
    if phase == observer.FORWARD and name in ("matmul", "dense"):
        return 2 * outputs[0].size * inputs[0].shape[-1]
    if phase == observer.FORWARD and name.startswith("convolve"):
        return _convolution(name, subject.geometry, inputs)
    if phase != observer.BACKWARD or is_grad_enabled():
        return 0
    # Products that a fused backward computes, which observers do not see.
    if name == "dense":
        return sum(subject.needs[:2]) * 2 * inputs[0].size * subject.inputs[0].shape[-1]
    if name in ("convolve", "convolve_input_gradient") and all(subject.needs[:2]):
        return 2 * _convolution(name, subject.geometry, subject.inputs)
    return 0


def _convolution(name: str, geometry: ConvGeometry, inputs: tuple[Any, ...]) -> int:
    first, second = inputs[0].shape, inputs[1].shape
    channels = first[1] * second[1] if name == "convolve_weight_gradient" else second[0] * second[1]
    return 2 * first[0] * geometry.positions * geometry.taps * channels


class Products(observer.Observer):
    """Counts the operations of all products that run while it is entered.

    Attributes:
        flop: so far; a multiply-add is two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        self.flop += flop(subject, phase, inputs, outputs)
