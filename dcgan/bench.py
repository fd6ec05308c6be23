"""`python -m dcgan.bench`: how fast the steps of recipes run, beside PyTorch's where it is installed.

All run in one process, in turn: on the CPU see minigrad/bench.py, on a GPU minigrad/bench_gpu.py. PyTorch's
networks are made from the same layers as ours (`dcgan.presets`), and its steps follow the same rules
(`dcgan.steps`); see benchmark/theirs.py.
"""

from collections.abc import Sequence
from typing import Any

from minigrad import bench

from . import device, presets
from .benchmark import gpu
from .benchmark.ours import our_step
from .benchmark.theirs import Learner
from .console import run_command, tell
from .recipe.preset import Preset

DEFAULT = ("flux", "quick", "tensorflow", "flowers", "pytorch")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Raises UserError for a device that can't be used.
    """

    def extra(parser: Any) -> None:
        names = list(presets.PRESETS)
        parser.add_argument("--presets", nargs="+", choices=names, default=DEFAULT, help="recipes")
        parser.add_argument("--batch-size", type=int, help="images a step (default: the recipe's)")
        parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="(default: cpu)")
        parser.add_argument(
            "--compile",
            action="store_true",
            help="on a GPU: PyTorch's networks by torch.compile too, which takes up to a minute a recipe",
        )

    given = bench.arguments("Training steps of recipes, ours and PyTorch's in turn.", argv, extra)
    changes = {"batch_size": given.batch_size} if given.batch_size else {}
    recipes = [presets.get(name, **changes) for name in given.presets]
    torch = bench.pytorch(not given.no_pytorch)
    return _on_gpu(given, recipes, torch) if given.device == "gpu" else _on_cpu(given, recipes, torch)


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
