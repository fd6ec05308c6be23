"""`dcgan evaluate RUN`: how good a run's samples are, in a table, a JSON file and a picture."""

from collections.abc import Sequence
from pathlib import Path

from .api import evaluating
from .api.run import Run
from .arguments import add_generator, add_range
from .console import output, run_command, tell
from .errors import UserError
from .evaluation import show
from .evaluation.comparison import MAX_SET_IMAGES
from .parser import Parser
from .run import checkpoint


def parser() -> Parser:
    """Return the command line."""
    parser = Parser("evaluate", description="Measure how good a run's samples are.")
    add_generator(parser)
    parser.add_argument("--data", help="the real images, named as for training (default: those of the run)")
    add_range(parser)
    parser.add_argument(
        "--count",
        type=int,
        help=f"samples (default: {MAX_SET_IMAGES}, or as many as there are real images to compare)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, help="the directory of evaluation.json and evaluation.png (default: the run's)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    count, seed = arguments.count, arguments.seed
    evaluating.check(count, seed)
    run = Run(arguments.run, weights=arguments.weights, max_memory=arguments.max_memory)
    if run.is_alone and arguments.out is None:
        raise UserError(
            f"{arguments.run}: expected --out DIR: where to write {' and '.join(evaluating.FILES)}"
        )
    out = arguments.out or checkpoint.directory_of(arguments.run)
    evaluating.prepare(out, make=arguments.out is not None)  # before the work: an error is reported at once
    found = evaluating.evaluate(run, count, seed, arguments.data, arguments.range, arguments.statistics)
    result, picture = evaluating.write(found, out)
    output(show.table(found))
    tell(f"{result}, {picture}")
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan evaluate")
