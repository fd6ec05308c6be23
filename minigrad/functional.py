"""The operations as functions, under the names of the field."""

from . import observer, random
from .backend.epilogue import NO_EPILOGUE, Epilogue, check_epilogue
from .ops.activation import leaky_relu, relu, sigmoid, softplus, tanh
from .ops.conv import conv2d, conv_transpose2d
from .ops.dropout import Dropout
from .ops.elementwise import clip, exp, log, maximum, sqrt, where
from .ops.in_place import check_writeable
from .ops.loss import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy
from .ops.matmul import dense, matmul
from .ops.norm import BatchNorm, Normalize
from .ops.operation import require_float, require_tensor, snapshot
from .ops.reduce import max_ as max
from .ops.reduce import mean, var
from .ops.reduce import sum_ as sum
from .ops.shape import broadcast_to, concatenate, pad, reshape, stack, transpose
from .tensor import Tensor

__all__ = [
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "clip",
    "concatenate",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dense",
    "dropout",
    "exp",
    "flatten",
    "leaky_relu",
    "log",
    "matmul",
    "max",
    "maximum",
    "mean",
    "pad",
    "relu",
    "reshape",
    "sigmoid",
    "softplus",
    "sqrt",
    "stack",
    "sum",
    "tanh",
    "transpose",
    "var",
    "where",
]


def flatten(x: Tensor) -> Tensor:
    """(N, ...) as (N, the product of the rest)."""
    require_tensor("flatten", x)
    if not x.ndim:
        raise ValueError("flatten: expected a batch (N, ...), got a tensor without axes")
    rest = 1
    for n in x.shape[1:]:
        rest *= n
    return x.reshape(x.shape[0], rest)


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, generator: random.Generator | None = None
) -> Tensor:
    """Each element set to 0 with probability p and scaled by 1 / (1 - p) otherwise, in training only.

    Which ones follows from the generator's seed and call number alone, whatever the device and
    the threads. What is dropped is 0 even where x, or the gradient, is infinite or NaN. Source:
    Srivastava et al., "Dropout" (2014); the scaling here is the inverted form.

    Args:
        p: 0 <= p < 1, rounded to a multiple of 2^-16.
        generator: where the numbers come from; by default the engine's (`minigrad.manual_seed`).
    """
    require_float("dropout", x)
    if not 0 <= p < 1:
        raise ValueError(f"dropout: expected 0 <= p < 1, got {p}")
    if not training or p == 0:
        return x
    return Dropout(p, *(generator or random.current()).next_counter())(x)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    epilogue: Epilogue = NO_EPILOGUE,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias, channel by channel.

    Args:
        x: (N, C) or (N, C, H, W).
        running_mean, running_var: (C,), what is used when not training. In training the
            batch's own are used, and these two are changed in place: running = (1 - momentum)
            running + momentum batch, the variance unbiased (n - 1) there. None: not kept.
        weight, bias: (C,).
        epilogue: an activation, applied to the result in the same pass over memory.

    Raises ValueError where shapes do not fit, and in training for a single value per channel, which has no
    variance, and for running statistics in read-only memory.
    """
    require_float("batch_norm", x)
    check_epilogue("batch_norm", epilogue)
    if x.ndim not in (2, 4):
        raise ValueError(f"batch_norm: expected x of shape (N, C) or (N, C, H, W), got {x.shape}")
    channels = x.shape[1:2]
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, t in named.items():
        if t is not None or name in ("weight", "bias"):
            require_tensor(f"batch_norm, {name}", t)
        if t is not None and t.shape != channels:
            raise ValueError(
                f"batch_norm: expected {name} of shape {channels} for x of {x.shape}, got {t.shape}"
            )
    count = x.size // (x.shape[1] or 1)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: outside of training it needs running_mean and running_var")
        mean_, var_ = (snapshot(t.data, x, weight, bias) for t in (running_mean, running_var))
        return Normalize(mean_, var_, eps, epilogue)(x, weight, bias)
    if count < 2:
        raise ValueError(
            f"batch_norm: expected more than one value per channel when training, got shape {x.shape}: "
            "use a larger batch, or eval()"
        )
    for name, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is not None:
            require_float(f"batch_norm, {name}", running)
            check_writeable(f"batch_norm, {name}", running)
    operation = BatchNorm(eps, epilogue)
    y = operation(x, weight, bias)
    shares = momentum, momentum * (count / (count - 1))
    _move(operation, (running_mean, running_var), 1 - momentum, shares)
    return y


def _move(
    operation: BatchNorm, running: tuple[Tensor | None, ...], keep: float, shares: tuple[float, ...]
) -> None:
    """Move the running mean and variance towards the batch's, in place, and notify the observers."""
    batch = operation.mean, operation.variance
    arrays = [None if t is None else t.data for t in running]
    watched = any(each.follows_updates for each in observer.current())
    before = [a.copy() for a in arrays if a is not None] if watched else []
    operation.backend.move_statistics(arrays, batch, keep, shares)
    moved = [(t, new, share) for t, new, share in zip(running, batch, shares, strict=True) if t is not None]
    for statistic, _, _ in moved:
        statistic.mark_changed()
    for old, (statistic, new, share) in zip(before, moved, strict=False):
        came_in = *(Tensor(a, backend=statistic.backend) for a in (old, new)), keep, share
        observer.notify_end(operation, observer.UPDATE, came_in, (statistic,))
