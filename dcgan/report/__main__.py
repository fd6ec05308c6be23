"""`dcgan report RUN`: everything that a run has left, in one HTML file."""

from collections.abc import Sequence
from pathlib import Path

from minigrad.serialize import write_whole

from ..arguments import add_max_memory, add_plugin, add_run, add_weights
from ..console import run_command, tell
from ..files import plainfile
from ..files.destination import check_ending, writing
from ..parser import Parser
from ..recipe import memory
from .needed import of_page
from .page import page
from .reading import read

FILE_NAME = "report.html"


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
    out = arguments.out
    if out is not None:
        check_ending("--out", out, [".html", ".htm"])
    reading = read(arguments.run, arguments.weights, arguments.max_memory)
    what = f"a page of {arguments.run}, with both networks of the recipe {reading.preset.name!r} at work,"
    memory.check(what, of_page(reading, arguments.max_memory), arguments.max_memory)
    content = page(reading).encode()
    out = out or reading.directory / FILE_NAME
    with writing("--out", out):
        write_whole(out if arguments.out is not None else plainfile.to_write(out), content)
    size = f"{len(content) / 1e6:.1f} MB"
    tell(f"{out}: {reading.preset.name} after step {reading.step}, {size}; open it in a browser")
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan report")
