"""`dcgan animate RUN`: the fixed grid of a run over time, as a GIF or MP4 file."""

from collections.abc import Sequence
from pathlib import Path

from . import animations, pace
from .arguments import add_max_memory, add_run
from .console import run_command, tell
from .errors import UserError
from .files import plainfile
from .files.destination import check_ending, writing
from .parser import Parser
from .run import checkpoint


def parser() -> Parser:
    """Return the command line."""
    parser = Parser("animate", description="Animate what a run's fixed grid showed over time.")
    add_run(parser)
    parser.add_argument(
        "--out", type=Path, help="a .gif or .mp4 file (default: output.gif in the run's directory)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help="how long it lasts; frames that are too many for that are left out (default: about 8, with 0.04 "
        "to 0.5 for each frame)",
    )
    add_max_memory(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    directory = checkpoint.directory_of(arguments.run)
    if not arguments.run.exists():
        raise UserError(f"{arguments.run}: expected a run's directory or its checkpoint file")
    seconds: float | None = arguments.seconds
    if seconds is not None and not pace.MIN_SECONDS <= seconds <= pace.MAX_SECONDS:
        raise UserError(f"--seconds {seconds:g}: expected {pace.MIN_SECONDS:g} to {pace.MAX_SECONDS:g}")
    out = arguments.out or directory / "output.gif"
    check_ending("--out", out, animations.ENDINGS)
    with writing("--out", out):
        if arguments.out is None:
            plainfile.to_write(out)
        animated = animations.animate(directory / "frames", out, seconds, arguments.max_memory)
    tell(f"{out}: {animated}")
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan animate")
