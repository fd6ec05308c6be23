"""`dcgan evaluate RUN`: how good a run's samples are, in a table, a JSON file and a picture."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from minigrad.serialize import make_folder_of, write_whole

from . import device
from .arguments import add_generator, add_range
from .console import output, run_command, tell
from .data import mnist
from .data.fit import fit_array
from .errors import UserError, os_errors_as, reason
from .evaluation import classifier, comparison, measures, show
from .evaluation.comparison import (
    CHUNK,
    LOOKED_AT,
    LOOKED_UP,
    MAX_SET_IMAGES,
    RealImages,
    compare,
    describe,
    in_chunks,
)
from .evaluation.judges import DIGIT_SIZE, DigitJudge, Judge
from .evaluation.show import Evaluation
from .files import plainfile
from .parser import Parser
from .run import checkpoint, packaged
from .run.directory import RunDirectory
from .run.trained import check_memory, default_weights, load_generator, load_run
from .sampling import choose_statistics

SHOWN = 10  # samples beside their nearest training image
GRID = 8  # rows and columns of samples in the picture
MIN_SAMPLES = 100  # samples
FILES = ("evaluation.json", "evaluation.png")


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
    if arguments.count is not None and not MIN_SAMPLES <= arguments.count <= 10 * MAX_SET_IMAGES:
        raise UserError(f"--count {arguments.count}: expected {MIN_SAMPLES} to {10 * MAX_SET_IMAGES}")
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: expected an integer of at least 0, below 2^63")
    if packaged.is_named(arguments.run) and arguments.out is None:
        raise UserError(f"{arguments.run}: expected --out DIR: where to write {' and '.join(FILES)}")
    directory = checkpoint.directory_of(packaged.file_of(arguments.run))
    out = arguments.out or directory
    _prepare(out, make=arguments.out is not None)  # before the work: an error is reported at once
    evaluation = evaluate(arguments, directory)
    with os_errors_as(f"--out {out}"):
        text = json.dumps(evaluation.to_json(), indent=2) + "\n"
        result, picture = (plainfile.to_write(out / name) for name in FILES)
        write_whole(result, text.encode())
        show.draw(evaluation, picture)
    output(show.table(evaluation))
    tell(f"{result}, {picture}")
    return 0


def _prepare(out: Path, make: bool) -> None:
    """Make the directory of the files, if it is to be made. Raises UserError where they can't be written."""
    if make:
        with os_errors_as(f"--out {out}"):
            make_folder_of(out / FILES[0])
    try:
        for name in FILES:
            plainfile.to_write(out / name)
    except OSError as error:
        raise UserError(f"--out {error.filename or out}: {reason(error)}") from error


def evaluate(arguments: argparse.Namespace, directory: Path) -> Evaluation:
    """Return the evaluation of the run that the command line names."""
    loaded = load_run(arguments.run, arguments.weights, arguments.max_memory)
    batch = loaded.preset.batch_size
    check_memory(f"drawing {batch} images", loaded, arguments.statistics, batch, arguments.max_memory)
    generator, preset = load_generator(loaded, arguments.weights), loaded.preset
    named, value_range = RunDirectory(directory).images(arguments.data, arguments.range)
    data = named or "mnist"  # of a run without a config.json
    real = comparison.real_images(data, preset, value_range=value_range)
    for note in real.notes:
        tell(note)
    device.tell_kernels()  # the judge uses them, if the generator does not
    judge = comparison.judge_of(data)
    count = arguments.count or (MAX_SET_IMAGES if judge.classes else len(real.reference))
    further = needed(count, real)
    check_memory(
        f"evaluating {count} images", loaded, arguments.statistics, batch, arguments.max_memory, further
    )
    statistics = choose_statistics(generator, preset, arguments.statistics, count)
    samples = np.concatenate(list(comparison.sample(generator, preset, statistics, count, arguments.seed)))
    reference = describe(judge, in_chunks(real.reference))
    result = compare(describe(judge, in_chunks(samples)), reference)
    floor = compare(describe(judge, in_chunks(real.floor[:count])), reference)  # as many: fewer look farther
    known = (
        fit_array(samples[: max(LOOKED_UP, SHOWN)], DIGIT_SIZE, 1) if judge.classes else samples[:LOOKED_UP]
    )
    indices, distances = comparison.nearest_training(known, real.training)
    return Evaluation(
        recipe=preset.name,
        step=loaded.position["step"],
        epoch=loaded.position["epoch"],
        weights=arguments.weights or default_weights(loaded),
        statistics=arguments.statistics or preset.statistics,
        count=count,
        about=real.about,
        features=judge.name,
        accuracy=_accuracy(judge),
        samples=replace(result, nearest=float(np.median(distances))),
        floor=replace(floor, nearest=_floor_of_nearest(real, judge)),
        grid=samples[: GRID * GRID],
        looked_up=known[:SHOWN],
        found=real.training[indices[:SHOWN]],
    )


def needed(count: int, real: RealImages) -> int:
    """Return the bytes that comparing `count` samples with real images takes."""
    numbers = real.reference[0].size  # of an image
    images = (2 * count + len(real.training)) * numbers
    most = max(count, len(real.reference))
    features = 40 * 224 * (count + len(real.reference))  # in float32 and float64, with copies for statistics
    matrices = 3 * 8 * measures.ROWS * most
    looked_up = 12 * numbers * (LOOKED_UP + min(LOOKED_AT, len(real.training)))
    judged = 36 * numbers * CHUNK * 3 // real.reference.shape[3]  # in RGB
    return images + max(features + matrices, looked_up, judged)


def _accuracy(judge: Judge) -> float | None:
    if not isinstance(judge, DigitJudge):
        return None
    return classifier.accuracy(judge.classifier, mnist.images("test"), mnist.labels("test"))


def _floor_of_nearest(real: RealImages, judge: Judge) -> float:
    """The median of test images; where all were trained on, of one half to the other."""
    others = real.training if judge.classes else real.floor
    _, distances = comparison.nearest_training(real.reference[:LOOKED_UP], others)
    return float(np.median(distances))


if __name__ == "__main__":
    run_command(main, "dcgan evaluate")
