"""The measures of a run's samples, and the files that hold them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from minigrad.serialize import make_folder_of, write_whole

from .. import device
from ..console import tell
from ..data import mnist, names
from ..data.fit import fit_array
from ..data.scale import Range
from ..errors import UserError, os_errors_as, reason
from ..evaluation import classifier, comparison, measures, show
from ..evaluation.comparison import (
    CHUNK,
    LOOKED_AT,
    LOOKED_UP,
    MAX_SET_IMAGES,
    RealImages,
    compare,
    describe,
    in_chunks,
)
from ..evaluation.judges import DIGIT_SIZE, DigitJudge, Judge
from ..evaluation.show import Evaluation
from ..files import plainfile
from ..run.directory import RunDirectory
from ..run.trained import default_weights
from ..sampling import choose_statistics
from .generator import TrainedGenerator

SHOWN = 10  # samples beside their nearest training image
GRID = 8  # rows and columns of samples in the picture
MIN_SAMPLES = 100  # samples
FILES = ("evaluation.json", "evaluation.png")


def evaluate(
    run: TrainedGenerator,
    count: int | None = None,
    seed: int = 0,
    data: str | None = None,
    value_range: Range | None = None,
    statistics: str | None = None,
) -> Evaluation:
    """Return the evaluation of a run's samples. The arguments are those of `Run.evaluate`."""
    check(count, seed)
    preset, loaded, batch = run.preset, run.checkpoint, run.preset.batch_size
    run.check_memory(f"drawing {batch} images", batch, statistics)
    generator = run.generator()  # weights that can't be used are reported before images are read
    named = data
    if not run.is_alone:
        named, value_range = RunDirectory(run.path).images(data, value_range)
    data = named or names.DIGITS  # of a run without a config.json
    real = comparison.real_images(data, preset, value_range=value_range)
    for note in real.notes:
        tell(note)
    device.tell_kernels()  # the judge uses them, if the generator does not
    judge = comparison.judge_of(data)
    count = count or (MAX_SET_IMAGES if judge.classes else len(real.reference))
    run.check_memory(f"evaluating {count} images", batch, statistics, needed(count, real))
    mode = choose_statistics(generator, preset, statistics, count)
    samples = np.concatenate(list(comparison.sample(generator, preset, mode, count, seed)))
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
        weights=run.weights or default_weights(loaded),
        statistics=statistics or preset.statistics,
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


def check(count: int | None, seed: int) -> None:
    """Raise UserError for a number of samples, or a seed, that is not allowed."""
    if count is not None and not MIN_SAMPLES <= count <= 10 * MAX_SET_IMAGES:
        raise UserError(f"--count {count}: expected {MIN_SAMPLES} to {10 * MAX_SET_IMAGES}")
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: expected an integer of at least 0, below 2^63")


def prepare(out: Path, make: bool) -> None:
    """Make the directory of the files, if it is to be made. Raises UserError where they can't be written."""
    if make:
        with os_errors_as(f"--out {out}"):
            make_folder_of(out / FILES[0])
    try:
        for name in FILES:
            plainfile.to_write(out / name)
    except OSError as error:
        raise UserError(f"--out {error.filename or out}: {reason(error)}") from error


def write(evaluation: Evaluation, out: Path) -> tuple[Path, Path]:
    """Write evaluation.json and evaluation.png into a directory; their paths.

    Raises UserError if they can't be written.
    """
    with os_errors_as(f"--out {out}"):
        text = json.dumps(evaluation.to_json(), indent=2) + "\n"
        result, picture = (plainfile.to_write(out / name) for name in FILES)
        write_whole(result, text.encode())
        show.draw(evaluation, picture)
    return result, picture


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
