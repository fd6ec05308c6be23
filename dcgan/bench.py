"""`python -m dcgan.bench`: how fast the steps of recipes run, beside PyTorch's where it is installed.

All run in one process, in turn: on the CPU see minigrad/bench.py, on a GPU minigrad/bench_gpu.py. PyTorch's
networks are made from the same layers as ours (`dcgan.presets`), and its steps follow the same rules
(`dcgan.steps`); see benchmark/theirs.py. Two differences are in PyTorch's favour: our step also computes the
scalars that training logs (the means of what D says), and draws z on the host, where PyTorch's draws it on
the device.
"""

from collections.abc import Sequence
from typing import Any

from minigrad import bench

from . import device, presets
from .arguments import positive
from .benchmark import gpu
from .benchmark.ours import our_step
from .benchmark.theirs import Learner
from .console import run_command, tell
from .errors import UserError
from .recipe.plan import check_batches
from .recipe.preset import Preset

DEFAULT = ("flux", "quick", "tensorflow", "flowers", "pytorch")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Raises UserError for a device that can't be used, a batch of one that a BatchNorm can't take, and for
    --compile where PyTorch is not timed on a GPU.
    """

    def extra(parser: Any) -> None:
        names = list(presets.PRESETS)
        parser.add_argument(
            "--presets",
            nargs="+",
            choices=names,
            default=DEFAULT,
            help=f"recipes (default: {' '.join(DEFAULT)})",
        )
        parser.add_argument("--batch-size", type=positive, help="images a step (default: the recipe's)")
        parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="(default: cpu)")
        parser.add_argument(
            "--compile",
            action="store_true",
            help="on a GPU: PyTorch's networks by torch.compile too; off by default, since each recipe's "
            "are compiled first",
        )

    given = bench.arguments("Training steps of recipes, ours and PyTorch's in turn.", argv, extra)
    changes = {"batch_size": given.batch_size} if given.batch_size else {}
    recipes = [presets.get(name, **changes) for name in given.presets]
    for preset in recipes:
        check_batches(preset, preset.batch_size)
    torch = bench.pytorch(not given.no_pytorch)
    if given.compile and (reason := _not_compiled(given, torch)):
        raise UserError(f"--compile: it compiles PyTorch's networks on a GPU, but {reason}")
    return _on_gpu(given, recipes, torch) if given.device == "gpu" else _on_cpu(given, recipes, torch)


def _not_compiled(given: Any, torch: Any) -> str:
    """Return why no network of PyTorch's is timed on a GPU; "" where they are."""
    if given.device != "gpu":
        return f"--device is {given.device}"
    if given.no_pytorch:
        return "--no-pytorch leaves them out"
    return "" if torch else "PyTorch is not installed"


def _on_cpu(given: Any, recipes: Sequence[Preset], torch: Any) -> int:
    limit = bench.product_limit()
    rows = []
    for preset in recipes:
        theirs = Learner(torch, preset).step if torch else None
        rows.append(bench.measure(gpu.title(preset), our_step(preset), theirs, given.rounds, limit))
    tell(bench.table(rows, limit))
    tell(f"peak memory of this process: {bench.peak_memory():.0f} MiB")
    if given.json:
        bench.write(given.json, rows, limit, torch)
    return 0


def _on_gpu(given: Any, recipes: Sequence[Preset], torch: Any) -> int:
    return gpu.Bench(device.require("gpu"), torch, given.compile).run(recipes, given.rounds, given.json)


if __name__ == "__main__":
    run_command(main, "dcgan.bench")
