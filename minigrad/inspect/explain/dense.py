"""Dense: one product, and two back."""

import math
from dataclasses import dataclass

from ... import naive
from ...nn import Dense
from ...tensor import Tensor
from .checks import Place, check_places, check_sums, double, norms
from .explanation import Check, Step
from .look import Host
from .registry import Opened, Steps, explains, host


@explains(Dense)
def dense(layer: Dense, x: Tensor, dy: Tensor, seed: int) -> Opened:
    """y = x @ weight^T + bias: dx = dy @ weight, dweight = dy^T @ x, dbias = the sum of dy's rows."""
    backend, weight, bias = x.backend, layer.weight, layer.bias
    (n, features), outputs = x.shape, weight.shape[0]
    forward, backward = Steps(backend), Steps(backend)

    turned = forward.take(
        "transpose",
        "weight^T",
        f"a column of {features:,} numbers for each of the {outputs:,} outputs; no copy",
        weight.data.T,
    )
    y = forward.take(
        "product",
        "y",
        f"x @ weight^T: each number of the ({n:,}, {outputs:,}) is a sum of {features:,} products",
        backend.matmul(x.data, turned),
    )
    if bias is not None:
        y = forward.take(
            "bias", "y", f"the bias {bias.shape} is added to each of the {n:,} rows", y + bias.data
        )

    gradients = {
        "x": backward.take(
            "product",
            "dx",
            f"dy @ weight: a number of x has a part in each of the {outputs:,} outputs of its row, by a "
            "weight; their gradients come back to it by the same weights",
            backend.matmul(dy.data, weight.data),
        ),
        "weight": backward.take(
            "product",
            "dweight",
            f"dy^T @ x: a weight is used once in each of the {n:,} rows of the batch: there the gradient of "
            "its output, times what it multiplied; all of them added up",
            backend.matmul(dy.data.T, x.data),
        ),
    }
    if bias is not None:
        gradients["bias"] = backward.take(
            "sum", "dbias", f"the sum of dy's {n:,} rows", backend.sum(dy.data, (0,))
        )
    checks = _checks(layer, x, dy, (*forward, *backward), seed)
    sizes = {"bias": norms(host(backend, dy.data))}
    return Opened(forward, backward, gradients, loop=_loop(layer, n), checks=checks, sizes=sizes)


def _loop(layer: Dense, n: int) -> str:
    outputs, features = layer.weight.shape
    lines = [
        f"for n, o in ndindex({n}, {outputs}):",
        f"    for i in range({features}):",
        "        y[n, o] += weight[o, i] * x[n, i]",
        "        dx[n, i] += weight[o, i] * dy[n, o]",
        "        dweight[o, i] += x[n, i] * dy[n, o]",
    ]
    if layer.bias is not None:
        lines += ["    y[n, o] += bias[o]", "    dbias[o] += dy[n, o]"]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Loop:
    """The loops of `minigrad.naive` for single numbers: a row by a column."""

    x: Host
    dy: Host
    weight: Host

    def y_at(self, place: Place) -> float:
        return float(naive.matmul(self.x[place[0]][None], self.weight[place[1]][:, None]).item())

    def dx_at(self, place: Place) -> float:
        return float(naive.matmul(self.dy[place[0]][None], self.weight[:, place[1]][:, None]).item())

    def dweight_at(self, place: Place) -> float:
        return float(naive.matmul(self.dy[:, place[0]][None], self.x[:, place[1]][:, None]).item())


def _checks(layer: Dense, x: Tensor, dy: Tensor, steps: tuple[Step, ...], seed: int) -> tuple[Check, ...]:
    values = {step.symbol: step.values for step in steps}
    arrays = double(*(host(x.backend, t.data) for t in (x, dy, layer.weight)))
    bias = None if layer.bias is None else double(host(x.backend, layer.bias.data))[0]
    loop, squares = _Loop(*arrays), _Loop(*(a**2 for a in arrays))

    def compared(symbol: str, products: int, shift: Host | None = None) -> Check:
        value_at, square_at = (getattr(each, f"{symbol}_at") for each in (loop, squares))
        return check_places(
            symbol,
            values[symbol],
            lambda place: value_at(place) + (0.0 if shift is None else float(shift[place[1]])),
            lambda place: math.sqrt(square_at(place)),
            products,
            seed,
        )

    outputs, features = layer.weight.shape
    checks = [compared("y", features, bias), compared("dx", outputs), compared("dweight", len(x))]
    return (*checks, *(() if bias is None else [check_sums("dbias", values["dbias"], arrays[1], seed)]))
