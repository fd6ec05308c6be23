"""Dense: one product, and two back."""

from ... import naive
from ...nn import Dense
from ...tensor import Tensor
from .checks import Place, check_places, double, plain_sum
from .explanation import Check
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
    checks = _checks(forward, backward, layer, x, dy, seed)
    return Opened(forward, backward, gradients, loop=_loop(layer, n), checks=checks)


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


def _checks(
    forward: Steps, backward: Steps, layer: Dense, x: Tensor, dy: Tensor, seed: int
) -> tuple[Check, ...]:
    at = x.backend
    bias = None if layer.bias is None else host(at, layer.bias.data)
    xs, dys, w, b = double(host(at, x.data), host(at, dy.data), host(at, layer.weight.data), bias)

    def y_at(place: Place) -> float:
        n, o = place
        product = float(naive.matmul(xs[n : n + 1], w[o : o + 1].T).item())
        return product if b is None else product + float(b[o])

    def dx_at(place: Place) -> float:
        n, i = place
        return float(naive.matmul(dys[n : n + 1], w[:, i : i + 1]).item())

    def dweight_at(place: Place) -> float:
        o, i = place
        return float(naive.matmul(dys[:, o : o + 1].T, xs[:, i : i + 1]).item())

    values = {step.symbol: step.values for step in backward}
    checks = [
        check_places("y", forward[-1].values, y_at, len(w[0]), seed),
        check_places("dx", values["dx"], dx_at, len(w), seed),
        check_places("dweight", values["dweight"], dweight_at, len(xs), seed),
    ]
    if b is not None:
        checks.append(
            check_places("dbias", values["dbias"], lambda o: plain_sum(dys[:, o[0]]), len(xs), seed)
        )
    return tuple(checks)
