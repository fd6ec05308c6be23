"""`dcgan report RUN`: everything that a run has left, in one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from ..arguments import add_max_memory, add_plugin, add_run, add_weights
from ..console import run_command, tell
from ..parser import Parser
from .writing import FILE_NAME, write


def parser() -> Parser:
    """Return the command line."""
    parser = Parser(
        "report",
        description="Put a run into one HTML file: findings, samples over time, curves, every layer at work, "
        "evaluation, recipe. It needs no network, and the run may still be training.",
    )
    add_run(parser)
    add_plugin(parser)
    parser.add_argument(
        "--out", type=Path, help=f"the file to write (default: {FILE_NAME} in the run's directory)"
    )
    add_weights(parser, "of the generator whose layers are shown: ")
    add_max_memory(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    written = write(arguments.run, arguments.weights, arguments.out, arguments.max_memory)
    size, reading = f"{written.size / 1e6:.1f} MB", written.reading
    tell(f"{written.path}: {reading.preset.name} after step {reading.step}, {size}; open it in a browser")
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan report")
