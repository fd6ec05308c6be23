"""A generator as an ONNX model, which says by itself how images are drawn with it.

The model is the generator in use: BatchNorm has fixed statistics, Dropout is left out. Each layer becomes
one operator of opset 17, whose weights keep their keys; `z` (batch, *z_shape) goes in, `images`
(batch, C, H, W) from -1 to 1 come out, and the batch may have any size.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import backend as backends
from minigrad import nn
from minigrad.backend.geometry import ConvGeometry, conv_transpose_output_size, pair

from .data.channels import NAMES
from .errors import UserError
from .recipe.preset import Preset
from .run.checkpoint import Checkpoint

Shape = tuple[int, ...]
OPSET = 17
INPUT, OUTPUT, BATCH = "z", "images", "batch"
# By the recipe's `z_distribution`, as `latent.draw_array` draws it: in words, and its parameters.
DISTRIBUTIONS: dict[str, tuple[str, dict[str, float]]] = {
    "normal": ("from the normal distribution with mean 0 and standard deviation 1", {"mean": 0, "std": 1}),
    "uniform": ("from the uniform distribution from -1 to 1", {"low": -1, "high": 1}),
}


def to_onnx(onnx: Any, generator: nn.Module, loaded: Checkpoint, weights: str, statistics: str) -> Any:
    """The generator as an ONNX model, checked by the package's own rules.

    Args:
        onnx: the package.
        loaded: the checkpoint it is from, whose recipe and step are written into the file.
        weights, statistics: those of the generator, by name, which are written into the file.

    Raises UserError for a layer that has no operator here.
    """
    preset, helper = loaded.preset, onnx.helper
    graph, backend = _Graph(onnx), next(generator.parameters()).backend
    generator.eval()
    with mg.no_grad(), backends.using(backend):
        x = mg.tensor(np.zeros((1, *preset.z_shape), np.float32), device=backend.device)
        for name, layer in generator.children():
            _add(graph, name, layer, x.shape)
            x = layer(x)
    graph.nodes[-1].output[0] = OUTPUT
    floats = onnx.TensorProto.FLOAT
    given, made = [BATCH, *preset.z_shape], [BATCH, *x.shape[1:]]
    content = helper.make_graph(
        graph.nodes,
        preset.name,
        [helper.make_tensor_value_info(INPUT, floats, given, _about_z(preset))],
        [helper.make_tensor_value_info(OUTPUT, floats, made, _about_images(preset))],
        graph.weights,
        f"The generator of the recipe {preset.name!r} after step {loaded.position['step']}: "
        f"{INPUT} to {OUTPUT}.",
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        content,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # the oldest, which every onnxruntime reads
        producer_name="minigrad-dcgan",
        producer_version=mg.__version__,
    )
    position = {"step": str(loaded.position["step"]), "weights": weights, "statistics": statistics}
    helper.set_model_props(model, {**_properties(preset), **position})
    onnx.checker.check_model(model, full_check=True)
    return model


def _about_z(preset: Preset) -> str:
    shape = ", ".join((BATCH, *map(str, preset.z_shape)))
    return f"Noise ({shape}): numbers drawn independently {DISTRIBUTIONS[preset.z_distribution][0]}."


def _about_images(preset: Preset) -> str:
    colours = NAMES[preset.channels]
    return f"Images ({BATCH}, channels, height, width), {colours}, from -1 (black) to 1 (white)."


def _properties(preset: Preset) -> dict[str, str]:
    """Return the metadata that follow from a recipe; values that are no words are JSON."""
    size = preset.image_size
    return {
        "preset": preset.name,
        "recipe": json.dumps(preset.to_json(), sort_keys=True),
        "z": _about_z(preset),
        "z_distribution": preset.z_distribution,
        "z_parameters": json.dumps(DISTRIBUTIONS[preset.z_distribution][1]),
        "z_shape": json.dumps(preset.z_shape),
        "images": _about_images(preset),
        "images_shape": json.dumps([preset.channels, size, size]),
        "images_layout": f"{BATCH}, channels, height, width",
        "images_colours": NAMES[preset.channels],
        "images_range": json.dumps([-1, 1]),
    }


class _Graph:
    """Operators in a row, each on the result of the one before."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, name: str, weights: dict[str, NDArray[Any]], **attributes: Any) -> None:
        """An operator; its weights, by the last part of their keys, are its inputs after the first."""
        keys = [f"{name}.{key}" for key in weights]
        self.weights += [
            self.onnx.numpy_helper.from_array(array, key)
            for key, array in zip(keys, weights.values(), strict=True)
        ]
        before = self.nodes[-1].output[0] if self.nodes else INPUT
        make = self.onnx.helper.make_node
        self.nodes.append(make(kind, [before, *keys], [f"{name}.out"], name=name, **attributes))


def _add(graph: _Graph, name: str, layer: nn.Module, shape: Shape) -> None:
    """The operator of a layer whose input is (1, *item), as `shape` says."""
    weights = {key: value.numpy() for key, value in layer.state_dict().items()}
    match layer:
        case nn.Dense():
            graph.add("Gemm", name, weights, transB=1)
        case nn.Conv2d():
            graph.add("Conv", name, weights, **_conv(layer, shape[2:]))
        case nn.ConvTranspose2d():
            graph.add("ConvTranspose", name, weights, **_conv_transpose(layer, shape[2:]))
        case nn.BatchNorm():
            graph.add("BatchNormalization", name, weights, epsilon=layer.eps)
        case nn.LeakyReLU():
            graph.add("LeakyRelu", name, {}, alpha=layer.negative_slope)
        case nn.ReLU():
            graph.add("Relu", name, {})
        case nn.Tanh():
            graph.add("Tanh", name, {})
        case nn.Sigmoid():
            graph.add("Sigmoid", name, {})
        case nn.Flatten():
            graph.add("Flatten", name, {}, axis=1)
        case nn.Reshape():
            shape = (0, *layer.shape)  # 0 is for the batch's size, whatever it is
            graph.add("Reshape", name, {"shape": np.array(shape, np.int64)})
        case nn.Dropout():
            pass  # in evaluation mode, which is what is exported, dropout is the identity
        case _:
            raise UserError(
                f"layer {name}, {layer.describe()}: there is no ONNX operator for it here: layers of "
                "minigrad.nn can be exported"
            )


def _conv(layer: nn.Conv2d, size: Shape) -> dict[str, Any]:
    """The attributes of a Conv on an image of `size`."""
    image, kernel = pair(size, "image", 1), pair(layer.weight.shape[2:], "kernel", 1)
    return _attributes(ConvGeometry.of_conv(image, kernel, layer.stride, layer.padding, layer.dilation))


def _conv_transpose(layer: nn.ConvTranspose2d, size: Shape) -> dict[str, Any]:
    """The attributes of a ConvTranspose on an image of `size`.

    Its padding is cropped before and after. "same" may make more than the kernel reaches, where that is
    smaller than the stride; so output_padding is what is made beyond the rest of the formula.
    """
    image, kernel = pair(size, "image", 1), pair(layer.weight.shape[2:], "kernel", 1)
    geometry = ConvGeometry.of_conv_transpose(
        image, kernel, layer.stride, layer.padding, layer.output_padding, layer.dilation
    )
    reached = [
        conv_transpose_output_size(n, taps, stride, padding, 0, dilation)
        for n, taps, stride, padding, dilation in zip(
            image, kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True
        )
    ]
    extra = [made - n for made, n in zip(geometry.input_size, reached, strict=True)]
    return {**_attributes(geometry), "output_padding": extra}


def _attributes(geometry: ConvGeometry) -> dict[str, Any]:
    """Return the attributes of both kinds of convolution; ONNX pads as (top, left, bottom, right)."""
    (top, bottom), (left, right) = geometry.padding
    return {
        "kernel_shape": geometry.kernel_size,
        "strides": geometry.stride,
        "dilations": geometry.dilation,
        "pads": (top, left, bottom, right),
    }
