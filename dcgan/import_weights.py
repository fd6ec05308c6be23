"""`dcgan import-weights --preset NAME --generator FILE --out RUN`: weights from PyTorch.

A file is a `state_dict` saved as safetensors. Its layers are those of an nn.Sequential, whose keys end
in a number and a tensor's name ("main.0.weight"). The numbers give the order, and the order says which
layer of the recipe each one is: layers without weights count too, and may stand elsewhere. What becomes
of each key is printed.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn, tables

from . import models
from .arguments import add_max_memory, add_recipe, chosen_preset
from .console import run_command, tell
from .errors import UserError
from .files.destination import writing
from .parser import Parser
from .recipe import memory, sizes
from .recipe.preset import Preset
from .run import checkpoint

State = Mapping[str, NDArray[Any]]

PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin")
HOW_TO_SAVE = "in PyTorch, safetensors.torch.save_file(model.float().state_dict(), path) saves one"
COPIES = 4  # of both networks: themselves, their weights as float32, the checkpoint's content
MAX_DIGITS = 18  # digits of a number in a key
COUNT = "num_batches_tracked"
MAX_LINES, SHOWN = 200, 20  # keys in a table of what does not fit; in a sentence
COLUMNS = ("in the file", "in the recipe", "shape", "what is done")
SAME = {
    ("Dense", "weight"): "(out, in) in both",
    ("Conv2d", "weight"): "(out, in, kh, kw) in both",
    ("ConvTranspose2d", "weight"): "(in, out, kh, kw) in both",
    ("BatchNorm", "weight"): "the scale, gamma, in both",
    ("BatchNorm", "bias"): "the shift, beta, in both",
    ("BatchNorm", "running_mean"): "momentum is the share of the new in both",
    ("BatchNorm", "running_var"): "unbiased in both",
}


@dataclass(frozen=True)
class Line:
    """A key of the file, or one of the recipe, or both, and what becomes of it.

    Attributes:
        given, ours: the keys; "" where there is none.
        shape: of what the file holds, or else of what the recipe has.
        note: what is done, or what is wrong.
        array: what the recipe takes, float32; None where it takes nothing.
        fits: whether nothing is wrong.
    """

    given: str
    ours: str
    shape: tuple[int, ...]
    note: str
    array: NDArray[Any] | None = None
    fits: bool = True


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer, by the last part of their keys; `path` is the rest of the keys."""

    path: str
    tensors: State

    def key(self, name: str) -> str:
        """The key of one of the tensors."""
        return f"{self.path}.{name}" if self.path else name

    @property
    def axes(self) -> int:
        """The number of axes of its weight, which tells its kind: 1 BatchNorm, 2 Dense, 4 a convolution."""
        return max(array.ndim for array in self.tensors.values())


def parser() -> Parser:
    """Return the command line."""
    parser = Parser(
        "import-weights",
        description="Make a checkpoint of a recipe with the weights of a PyTorch model.",
    )
    add_recipe(parser, required=True)
    parser.add_argument(
        "--generator", type=Path, required=True, metavar="FILE", help="its state_dict, in safetensors"
    )
    parser.add_argument(
        "--discriminator", type=Path, metavar="FILE", help="likewise (default: fresh weights)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the run's directory, or the .safetensors file, to make"
    )
    add_max_memory(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    preset = chosen_preset(arguments)
    path = _destination(arguments.out)
    _check_memory(arguments, preset)
    mg.manual_seed(preset.seed)
    networks = dict(zip(("generator", "discriminator"), models.build(preset), strict=True))
    files = {name: getattr(arguments, name) for name in networks if getattr(arguments, name) is not None}
    compared = {name: compare(networks[name], read(file)) for name, file in files.items()}
    _refuse_misfits(preset, files, compared)
    for name, lines in compared.items():
        networks[name].load_state_dict({line.ours: line.array for line in lines if line.ours})
        tell(f"{files[name]}, the {name} of {preset.name}:\n{table(lines)}")
        tell(_without_weights(networks[name]))
    if "discriminator" not in files:
        tell(f"No --discriminator is given: its weights are fresh, of the recipe's seed {preset.seed}.")
    _save(path, preset, networks)
    tell(f"{path}: {preset.name}, step 0; model.eval() of PyTorch is --statistics running here")
    tell(f"images     dcgan sample {arguments.out} --out images.png --statistics running")
    return 0


def _check_memory(arguments: argparse.Namespace, preset: Preset) -> None:
    """Raise UserError if the files, both networks and the checkpoint of them take too much memory."""
    files = [path for path in (arguments.generator, arguments.discriminator) if path is not None]
    read = sum(memory.of_file(path) for path in files)
    memory.check(f"reading {' and '.join(map(str, files))}", read, arguments.max_memory)
    made = sum(map(memory.of_network, (sizes.of_generator(preset), sizes.of_discriminator(preset))))
    what = f"importing weights for the recipe {preset.name!r}"
    memory.check(what, read + COPIES * made, arguments.max_memory)


def _destination(out: Path) -> Path:
    """The checkpoint file to write; UserError where it exists."""
    path = out if out.suffix == ".safetensors" else out / checkpoint.FILE_NAME
    if path.exists():
        raise UserError(f"--out {out}: {path} exists already; name a new one")
    return path


def _save(path: Path, preset: Preset, networks: Mapping[str, nn.Module]) -> None:
    parts = {name: network.state_dict() for name, network in networks.items()}
    if preset.ema_decay:  # samples are drawn with the average, which is that of one state so far
        parts["generator_ema"] = parts["generator"]
    with writing("--out", path):
        checkpoint.save(path, preset, {"step": 0, "epoch": 0}, parts)


# -- a file ----------------------------------------------------------------------------------------


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, by key. Nothing is ever unpickled.

    Raises UserError where there is none, where it can't be read, or where it is a pickle.
    """
    if path.suffix.lower() in PICKLES:
        raise UserError(
            f"{path}: a {path.suffix} file is a pickle, which can run any program when it is read; "
            f"expected a safetensors file: {HOW_TO_SAVE}"
        )
    try:
        return mg.load(path)
    except FileNotFoundError:
        raise UserError(f"no file {path}: expected a state_dict in safetensors") from None
    except ValueError as error:
        raise UserError(f"{error}; expected a state_dict of float32: {HOW_TO_SAVE}") from None


def in_order(state: State) -> list[Layer]:
    """The layers of a state dict, by the numbers in their keys: a safetensors file keeps no order.

    Raises UserError where their names differ in more than numbers, which says nothing of their order.
    """
    layers: dict[str, dict[str, NDArray[Any]]] = {}
    for key, array in state.items():
        path, _, name = key.rpartition(".")
        layers.setdefault(path, {})[name] = array
    for path in layers:
        if any(part.isdecimal() and len(part) > MAX_DIGITS for part in path.split(".")):
            raise UserError(
                f"the key {path:.60}... has a number of more than {MAX_DIGITS} digits: expected the places "
                "of layers, such as main.0.weight"
            )
    names = {".".join(part for part in path.split(".") if not part.isdecimal()) for path in layers}
    if len(names) > 1:
        raise UserError(
            f"the keys {_some(sorted(state))} do not say in which order the layers stand: expected "
            "those of one nn.Sequential, such as main.0.weight; rename them so before they are saved"
        )
    return [Layer(path, layers[path]) for path in sorted(layers, key=_numbers)]


def _numbers(path: str) -> tuple[int, ...]:
    """The numbers among the parts of a path: (10,) of "main.10"."""
    return tuple(int(part) for part in path.split(".") if part.isdecimal())


# -- the file beside the recipe --------------------------------------------------------------------


def compare(network: nn.Module, given: State) -> list[Line]:
    """Match the keys of a file with the keys of a network, and return a line for each.

    Layers are matched in order. Where one is missing, those before and after it are still matched by
    their kinds, so that the message is about what is missing.

    Raises UserError where the file's keys give no order.
    """
    ours = in_order({key: value.numpy() for key, value in network.state_dict().items()})
    theirs = in_order(given)
    kinds = {name: type(module).__name__ for name, module in network.named_modules()}
    matcher = SequenceMatcher(None, [a.axes for a in ours], [b.axes for b in theirs], autojunk=False)
    lines: list[Line] = []
    for _, a, a_end, b, b_end in matcher.get_opcodes():
        for own, other in zip_longest(ours[a:a_end], theirs[b:b_end], fillvalue=Layer("", {})):
            lines += _lines(kinds[own.path], own, other)
    return lines


def _lines(kind: str, ours: Layer, given: Layer) -> Iterator[Line]:
    """A line for every tensor of a layer of the recipe and of the file; either may have none at all."""
    for name in dict.fromkeys((*ours.tensors, *given.tensors)):
        wanted, found = ours.tensors.get(name), given.tensors.get(name)
        key, own_key = given.key(name), ours.key(name)
        if found is None:
            assert wanted is not None
            yield Line("", own_key, wanted.shape, f"missing: expected {_text(wanted.shape)}", fits=False)
        elif name == COUNT:
            note = "left out: PyTorch counts batches; momentum is fixed here and needs no count"
            yield Line(key, "", found.shape, note)
        elif wanted is None:
            yield Line(key, "", found.shape, "not in the recipe", fits=False)
        else:
            yield _line(key, own_key, wanted, found, SAME.get((kind, name), ""))


def _line(key: str, own_key: str, wanted: NDArray[Any], found: NDArray[Any], same: str) -> Line:
    """Return the line of a tensor that has a place in the recipe; `same` is the part on which both agree."""
    if found.shape != wanted.shape:
        note = f"expected {_text(wanted.shape)}, got {_text(found.shape)}"
        return Line(key, own_key, found.shape, note, fits=False)
    if found.dtype.kind != "f":
        return Line(key, own_key, found.shape, f"expected floats, got {found.dtype}", fits=False)
    with np.errstate(over="ignore"):  # reported as infinity
        array = found.astype(np.float32)
    if not np.isfinite(array).all():
        return Line(key, own_key, found.shape, "holds NaN or infinity, as float32", fits=False)
    done = "taken as it is" if found.dtype == np.float32 else f"{found.dtype} becomes float32"
    notes = [f"{done}: {same}" if same else done]
    theirs, ours = _numbers(key), _numbers(own_key)
    if theirs != ours:
        counted = ".".join(map(str, theirs)) or "none"
        notes.append(f"number {counted}, here {'.'.join(map(str, ours))}: other layers without weights")
    return Line(key, own_key, found.shape, "; ".join(notes), array)


def _refuse_misfits(
    preset: Preset, files: Mapping[str, Path], compared: Mapping[str, Sequence[Line]]
) -> None:
    """UserError with every key of every file in which something does not fit."""
    bad = {name: lines for name, lines in compared.items() if not all(line.fits for line in lines)}
    if not bad:
        return
    raise UserError(
        "\n".join(
            f"{files[name]} does not fit the {name} of {preset.name}; nothing is written\n{_first(lines)}"
            for name, lines in bad.items()
        )
    )


def _first(lines: Sequence[Line]) -> str:
    """The table of a file's keys, of those alone that do not fit if there are many."""
    if len(lines) <= MAX_LINES:
        return table(lines)
    bad = [line for line in lines if not line.fits]
    return f"{table(bad[:MAX_LINES])}\n{len(bad):,} of {len(lines):,} keys do not fit"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(name[:100] for name in names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


# -- for people ------------------------------------------------------------------------------------


def table(lines: Sequence[Line]) -> str:
    """The lines in columns, what is wrong marked with "!"."""
    rows = [COLUMNS]
    for line in lines:
        note = line.note if line.fits else f"! {line.note}"
        rows.append((line.given or "-", line.ours or "-", _text(line.shape), note))
    return tables.table(rows, "<")


def _without_weights(network: nn.Module) -> str:
    """A line on what no file of weights tells, so that a person can compare it with theirs."""
    layers = [f"{name} {layer!r}" for name, layer in network.children() if not layer.state_dict()]
    eps = {str(layer.eps) for _, layer in network.children() if isinstance(layer, nn.BatchNorm)}
    norms = f", BatchNorm's eps of {' and '.join(sorted(eps))}" if eps else ""
    return f"The recipe's own, to be compared by eye: {', '.join(layers)}; strides and paddings{norms}"


def _text(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


if __name__ == "__main__":
    run_command(main, "dcgan import-weights")
