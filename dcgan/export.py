"""`dcgan export RUN --out FILE.onnx`: a trained generator as ONNX, for other programs.

The file is the generator in use: BatchNorm has fixed statistics, Dropout is left out. Each layer becomes
one operator of opset 17, whose weights keep their keys; `z` (batch, *z_shape) goes in, `images`
(batch, C, H, W) from -1 to 1 come out, and the batch may have any size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn
from minigrad.backend.geometry import ConvGeometry, conv_transpose_output_size, pair
from minigrad.serialize import write_whole

from . import latent
from .arguments import add_max_memory, add_plugin, add_run, add_weights
from .console import run_command, tell
from .errors import UserError
from .files.destination import check_ending, writing
from .parser import Parser
from .recipe import memory, sizes
from .recipe.preset import Preset
from .run.checkpoint import Checkpoint
from .run.trained import check_memory, load_generator, load_run
from .sampling import choose_statistics, generate

Shape = tuple[int, ...]
OPSET = 17
COPIES = 8  # of the weights: in the model, in its file, while both are checked
CHECKED = 4  # images that are made with both
TOLERANCE = 1e-5  # the most by which a number of an image may differ
INPUT, OUTPUT, BATCH = "z", "images", "batch"


def parser() -> Parser:
    """Return the command line."""
    parser = Parser("export", description="Write a trained generator as ONNX, and check it.")
    add_run(parser)
    add_plugin(parser)
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file to write")
    add_weights(parser)
    parser.add_argument(
        "--statistics",
        choices=("running", "recalibrated"),
        help="what BatchNorm uses: the running ones of training, or ones measured anew on 10,000 z "
        "(default: running where the recipe's samples use them, else recalibrated)",
    )
    add_max_memory(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 where onnxruntime makes other images, and then nothing is written."""
    arguments = parser().parse_args(argv)
    out: Path = arguments.out
    check_ending("--out", out, [".onnx"])
    onnx = _onnx()
    loaded = load_run(arguments.run, arguments.weights, arguments.max_memory)
    preset = loaded.preset
    running = preset.statistics == "running"
    wanted = arguments.statistics or ("running" if running else "recalibrated")
    copies = COPIES * memory.of_network(sizes.of_generator(preset))
    check_memory("exporting the generator of images", loaded, wanted, CHECKED, arguments.max_memory, copies)
    generator = load_generator(loaded, arguments.weights)
    choose_statistics(generator, preset, wanted, CHECKED)
    onnxruntime, why_not = _onnxruntime()
    content = to_onnx(onnx, generator, loaded).SerializeToString()
    difference = None if onnxruntime is None else largest_difference(onnxruntime, content, generator, preset)
    if difference is not None and not difference <= TOLERANCE:  # NaN too
        tell(
            f"onnxruntime's images differ from ours by {difference:.2g}, more than {TOLERANCE}: "
            "nothing is written"
        )
        return 1
    with writing("--out", out):
        write_whole(out, content)
    checked = (
        f"not checked, since {why_not}"
        if difference is None
        else f"onnxruntime's images differ from ours by {difference:.2g} at most"
    )
    tell(f"{out}: {preset.name} after step {loaded.position['step']}, statistics {wanted}; {checked}")
    return 0


def _onnx() -> Any:
    """Return the package. Raises UserError if it is not installed, or can't be imported."""
    try:
        import onnx
    except Exception as error:  # a build for another NumPy may raise anything
        if _is_missing(error, "onnx"):
            raise UserError("ONNX files need the package onnx: pip install onnx onnxruntime") from None
        raise UserError(f"ONNX files need the package onnx, which {_broken(error)}") from error
    return onnx


def _onnxruntime() -> tuple[Any, str]:
    """Return the package and "", or None and why there is none."""
    try:
        import onnxruntime
    except Exception as error:
        if _is_missing(error, "onnxruntime"):
            return None, "onnxruntime is not installed: pip install onnxruntime"
        return None, f"onnxruntime {_broken(error)}"
    return onnxruntime, ""


def _is_missing(error: Exception, package: str) -> bool:
    """Return whether an import failed for there being no such package, not for what is in it."""
    return isinstance(error, ModuleNotFoundError) and error.name == package


def _broken(error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
    return f"can't be imported ({reason}); install a version that fits the other packages"


def largest_difference(onnxruntime: Any, content: bytes, generator: nn.Module, preset: Preset) -> float:
    """By how much onnxruntime's images differ from ours, at most, on the same 4 z.

    Args:
        onnxruntime: the package.
        content: the ONNX file of the generator.
    """
    z = latent.draw(preset, CHECKED, mg.Generator(0))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (theirs,) = session.run([OUTPUT], {INPUT: z.numpy()})
    return float(np.abs(theirs - generate(generator, z, "running")).max())


def to_onnx(onnx: Any, generator: nn.Module, loaded: Checkpoint) -> Any:
    """The generator as an ONNX model, checked by the package's own rules.

    Args:
        onnx: the package.
        loaded: the checkpoint it is from, whose recipe and step are written into the file.

    Raises TypeError for a layer that has no operator here.
    """
    preset, helper = loaded.preset, onnx.helper
    graph = _Graph(onnx)
    x = mg.tensor(np.zeros((1, *preset.z_shape), np.float32))
    generator.eval()
    with mg.no_grad():
        for name, layer in generator.children():
            _add(graph, name, layer, x.shape)
            x = layer(x)
    graph.nodes[-1].output[0] = OUTPUT
    floats = onnx.TensorProto.FLOAT
    made = helper.make_graph(
        graph.nodes,
        preset.name,
        [helper.make_tensor_value_info(INPUT, floats, [BATCH, *preset.z_shape])],
        [helper.make_tensor_value_info(OUTPUT, floats, [BATCH, *x.shape[1:]])],
        graph.weights,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(
        made,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),  # the oldest, which every onnxruntime reads
        producer_name="minigrad-dcgan",
        producer_version=mg.__version__,
    )
    helper.set_model_props(model, {"preset": preset.name, "step": str(loaded.position["step"])})
    onnx.checker.check_model(model, full_check=True)
    return model


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
            pass  # does nothing in use
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


if __name__ == "__main__":
    run_command(main, "dcgan export")
