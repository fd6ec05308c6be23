"""CUDA sources to functions, compiled by NVRTC when they are first needed.

Every instance of every template is listed here, so that a test can compile them all.
"""

import functools
from importlib import resources
from typing import Any

FLOATS = {"float32": "float", "float64": "double"}
OPTIONS = ("--std=c++17",)
BLOCK = 256  # threads

_TYPES = [f"<{t}>" for t in FLOATS.values()]
_MIXED = ["<float, double>", "<float, float>", "<double, double>"]
_SUMS = ["<float, double>", "<double, float>", "<float, float>", "<double, double>"]
_PACKED = ["<float, 1>", "<float, 4>", "<double, 1>", "<double, 2>"]

# The kernels of each file, and the instances of each: "" where it is no template.
SOURCES: dict[str, dict[str, list[str]]] = {
    "columns": {"im2col": _PACKED, "col2im": _PACKED},
    "batch_norm": {
        "sums_forward": _TYPES,
        "merge_forward": _TYPES,
        "normalize": _MIXED,
        "sums_backward": _TYPES,
        "merge_backward": _TYPES,
        "gradient": _TYPES,
        "move_statistics": _TYPES,
    },
    "sums": {"column_sums": _SUMS},
    "transpose": {"transpose": _TYPES},
    "elementwise": dict.fromkeys(
        (
            "leaky_relu",
            "leaky_relu_backward",
            "bias_leaky_relu",
            "tanh_forward",
            "tanh_backward",
            "sigmoid",
            "sigmoid_backward",
            "softplus",
            "mask_scale",
            "leaky_dropout_backward",
        ),
        _TYPES,
    ),
    "dropout": {"dropout": _TYPES},
    "bce": {"logit_bce": _TYPES, "bce": _TYPES},
    "adam": {"adam": _TYPES},
    "average": {"average": _TYPES},
    "crop_images": {"crop_images": [""]},
}

# Arithmetic operations of each kernel, an element of the largest array that it goes through. A root, a
# division or an exponential is one. Those on indices, and for random numbers, are left out.
FLOP = {
    "im2col": 0,
    "col2im": 1,
    "sums_forward": 4,
    "merge_forward": 1,
    "normalize": 4,
    "sums_backward": 5,
    "merge_backward": 1,
    "gradient": 6,
    "move_statistics": 3,
    "column_sums": 1,
    "transpose": 0,
    "leaky_relu": 1,
    "leaky_relu_backward": 1,
    "bias_leaky_relu": 2,
    "tanh_forward": 1,
    "tanh_backward": 3,
    "sigmoid": 3,
    "sigmoid_backward": 3,
    "softplus": 4,
    "mask_scale": 1,
    "leaky_dropout_backward": 2,
    "dropout": 3,
    "logit_bce": 17,
    "bce": 14,
    "adam": 15,
    "average": 3,
    "crop_images": 2,
}
# The arguments of a kernel that it reads and writes: their places, or their names in a table of addresses.
IN_PLACE: dict[str, tuple[int | str, ...]] = {
    "bias_leaky_relu": (0,),
    "move_statistics": (0, 1),
    "adam": ("parameter", "first", "second"),
    "average": ("average",),
}
# The argument of a kernel that it reads only so many elements of as another argument has: both places.
READS_FEW = {"merge_forward": (0, 2), "crop_images": (0, 2)}


def source(name: str) -> str:
    """The text of a file, without its ending."""
    return (resources.files(__package__) / f"{name}.cu").read_text(encoding="utf-8")


def instances(name: str) -> list[str]:
    """All that a file defines, as NVRTC names it: "im2col<float, 4>"."""
    return [kernel + types for kernel, all_types in SOURCES[name].items() for types in all_types]


@functools.cache
def module(name: str) -> Any:
    """The compiled file."""
    import cupy

    return cupy.RawModule(code=source(name), options=OPTIONS, name_expressions=instances(name))


@functools.cache
def function(name: str, kernel: str, types: str) -> Any:
    """One kernel of a file, such as ("columns", "im2col", "<float, 4>")."""
    return module(name).get_function(kernel + types)
