"""`dcgan export RUN --out FILE`: a trained generator by itself, as ONNX or as a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from .arguments import add_max_memory, add_plugin, add_trained, add_weights
from .console import run_command, tell
from .exporting import ENDINGS, Exported, ImagesDiffer, export
from .files.destination import check_ending
from .parser import Parser
from .run.trained import load_run


def parser() -> Parser:
    """Return the command line."""
    parser = Parser(
        "export",
        description="Write a trained generator by itself: as ONNX for other programs, and check it, or as a "
        "small checkpoint, which sample, interpolate, export and evaluate take in place of the run.",
    )
    add_trained(parser)
    add_plugin(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help="the file to write, .onnx or .safetensors (a checkpoint)"
    )
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
    check_ending("--out", arguments.out, ENDINGS)
    loaded = load_run(arguments.run, arguments.weights, arguments.max_memory)
    try:
        written = export(loaded, arguments.out, arguments.weights, arguments.statistics, arguments.max_memory)
    except ImagesDiffer as differ:
        tell(str(differ))
        return 1
    made = f"{loaded.preset.name} after step {loaded.position['step']}, statistics {written.statistics}"
    tell(f"{written.path}: {made}; {_how_it_is(written)}")
    return 0


def _how_it_is(written: Exported) -> str:
    if written.unchecked:
        return f"not checked, since {written.unchecked}"
    if written.difference is not None:
        return f"onnxruntime's images differ from ours by {written.difference:.2g} at most"
    return f"the generator alone, {written.size / 1e6:.1f} MB"


if __name__ == "__main__":
    run_command(main, "dcgan export")
