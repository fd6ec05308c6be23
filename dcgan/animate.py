"""`dcgan animate RUN`: the fixed grid of a run over time, as a GIF or MP4 file."""

from collections.abc import Sequence
from pathlib import Path

from . import pictures
from .arguments import add_max_memory, add_run
from .console import run_command, tell
from .errors import UserError, os_errors_as
from .files import plainfile
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
        "--seconds", type=float, default=8.0, help="about how long it lasts (default: %(default)s)"
    )
    add_max_memory(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    directory = checkpoint.directory_of(arguments.run)
    if not arguments.run.exists():
        raise UserError(f"{arguments.run}: expected a run's directory or its checkpoint file")
    if not 0 < arguments.seconds <= 3600:
        raise UserError(f"--seconds {arguments.seconds}: expected more than 0 and at most 3600")
    out = arguments.out or directory / "output.gif"
    if out.suffix.lower() not in (".gif", ".mp4"):
        raise UserError(f"--out {out}: expected a name that ends in .gif or .mp4")
    with os_errors_as(f"--out {out}"):
        if arguments.out is None:
            plainfile.to_write(out)
        count = pictures.animate(directory / "frames", out, arguments.seconds, arguments.max_memory)
    tell(f"{out}: {count} frames")
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan animate")
