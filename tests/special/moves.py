"""Moves of special values: the same elsewhere, to the sign of a zero and to the last bit."""

from decimal import Decimal

import numpy as np

import minigrad.functional as F
from minigrad.ops import OPERATIONS

from .numbers import unary, zeros
from .rows import Row


def box(dtype):
    return (np.resize(unary(dtype), (4, 5, 5)),)


def put(dy, index, shape):
    """Return zeros of a shape with dy added at the index, element by element."""
    places = np.arange(int(np.prod(shape))).reshape(shape)[index]
    found = zeros(shape).reshape(-1)
    for place, value in zip(places.reshape(-1), dy.reshape(-1), strict=True):
        found[place] = value if found[place] == 0 and not found[place].is_nan() else found[place] + value
    return found.reshape(shape)


def move(operation, call, value, first, label="", inputs=box):
    return Row(operation, call, inputs, value, first, label=label, signed=True, ulps=0)


def read(index, label):
    return move(
        "get_item", lambda x: x[index], lambda x: x[index], lambda dy, x: (put(dy, index, x.shape),), label
    )


def cast_target(dtype):
    return "float64" if dtype == "float32" else "float32"


BORDER = ((1, 0), (0, 2), (0, 0))

MOVES = [
    move(
        "reshape",
        lambda x: x.reshape(20, 5),
        lambda x: x.reshape(20, 5),
        lambda dy, x: (dy.reshape(x.shape),),
    ),
    move(
        "transpose",
        lambda x: x.transpose(2, 0, 1),
        lambda x: x.transpose(2, 0, 1),
        lambda dy, x: (dy.transpose(1, 2, 0),),
    ),
    Row(
        "broadcast_to",
        lambda x: F.broadcast_to(x, (3, 4, 5, 5)),
        box,
        lambda x: np.broadcast_to(x, (3, 4, 5, 5)),
        lambda dy, x: (dy[0] + dy[1] + dy[2],),
        signed=True,
    ),
    read((slice(1, None), slice(None, None, -2)), "slices"),
    read([0, 2, 0], "a row twice"),
    move(
        "put_item",
        lambda x: OPERATIONS["put_item"](slice(1, 5), (6, 5, 5))(x),
        lambda x: put(x, slice(1, 5), (6, 5, 5)),
        lambda dy, x: (dy[1:5],),
    ),
    Row(
        "put_item",
        lambda x: OPERATIONS["put_item"]([1, 1, 0, 2], (3, 5, 5))(x),
        box,
        lambda x: np.stack([x[2], x[0] + x[1], x[3]]),
        lambda dy, x: (dy[[1, 1, 0, 2]],),
        label="a row twice",
    ),
    move(
        "concatenate",
        lambda a, b: F.concatenate([a, b], 1),
        lambda a, b: np.concatenate([a, b], 1),
        lambda dy, a, b: (dy[:, :5], dy[:, 5:]),
        inputs=lambda dtype: (*box(dtype), box(dtype)[0][:, 1:3]),
    ),
    *(
        move(
            "pad",
            lambda x, v=value: F.pad(x, BORDER, v),
            lambda x, v=value: np.pad(x, BORDER, constant_values=Decimal(v)),
            lambda dy, x: (dy[1:, :5],),
            label=str(value),
        )
        for value in (0.25, float("inf"), float("nan"))
    ),
    move("cast", lambda x: x.to(cast_target(str(x.dtype))), lambda x: x, lambda dy, x: (dy,)),
    move(
        "to_device",
        lambda x: OPERATIONS["to_device"](x.backend, x.backend)(x),
        lambda x: x,
        lambda dy, x: (dy,),
    ),
    move(
        "gradient_hook",
        lambda x: OPERATIONS["gradient_hook"](lambda dy: None)(x),
        lambda x: x,
        lambda dy, x: (dy,),
    ),
]

ROWS = MOVES
