"""`dcgan bench`: how fast the steps of recipes run, beside PyTorch's where it is installed.

All run in one process, in turn: on the CPU see benchmark/cpu.py, on a GPU benchmark/gpu.py. PyTorch's
networks are made from the same layers as ours (`dcgan.presets`), and its steps follow the same rules
(`dcgan.steps`); see benchmark/theirs.py. Two differences are in PyTorch's favour: our step also computes the
scalars that training logs (the means of what D says), and draws z on the host, where PyTorch's draws it on
the device.
"""

import argparse
from collections.abc import Sequence

from minigrad import bench

from . import device, presets, recipe_files
from .arguments import add_device, add_plugin, positive
from .benchmark import cpu, gpu, theirs
from .console import run_command
from .errors import UserError
from .parser import Parser
from .recipe.plan import check_batches


def parser() -> Parser:
    """Return the command line."""
    parser = Parser("bench", "Time training steps of recipes, ours and PyTorch's in turn.")
    bench.add_options(parser)
    parser.add_argument(
        "--presets",
        nargs="+",
        metavar="RECIPE",
        default=list(presets.PRESETS),
        help="recipes, as dcgan train takes them (default: all presets)",
    )
    add_plugin(parser)
    parser.add_argument("--batch-size", type=positive, help="images a step (default: the recipe's)")
    add_device(parser)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="PyTorch's networks by torch.compile too, which compiles each recipe's first, in some 20 "
        "seconds on two cores (default: on the CPU, not on a GPU)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Raises UserError for a device that can't be used, a batch of one that a BatchNorm can't take, a recipe
    with parts that PyTorch's side lacks, and for --compile where PyTorch is not timed.
    """
    command = parser()
    given = command.parse_args(argv)
    device.tell_kernels()
    bench.check_options(command, given)
    if given.device not in ("cpu", "gpu"):
        raise UserError(f"--device {given.device}: steps are timed on the cpu or the gpu")
    changes = {"batch_size": given.batch_size} if given.batch_size else {}
    recipes = [recipe_files.find(name).replaced(changes) for name in given.presets]
    for preset in recipes:
        check_batches(preset, preset.batch_size)
    torch = bench.pytorch(not given.no_pytorch)
    if torch is not None:
        for preset in recipes:
            theirs.check(preset)
    if given.compile and torch is None:
        reason = "--no-pytorch leaves them out" if given.no_pytorch else "PyTorch is not installed"
        raise UserError(f"--compile: it compiles PyTorch's networks, but {reason}")
    if given.device == "gpu":
        return gpu.Bench(device.require("gpu"), torch, bool(given.compile)).run(
            recipes, given.rounds, given.json
        )
    return cpu.Bench(torch, given.compile is not False).run(recipes, given.rounds, given.json)


if __name__ == "__main__":
    run_command(main, "dcgan bench")
