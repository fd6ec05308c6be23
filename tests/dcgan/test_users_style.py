"""Every figure is drawn with our style, whatever the user's style is, and whatever its texts are."""

import matplotlib
import numpy as np
import pytest
from drawing import DARK
from PIL import Image
from reported import vital_signs

from dcgan import pictures
from dcgan.evaluation import show
from dcgan.evaluation.comparison import EvaluationResult
from dcgan.steps import StepLine
from dcgan.vitals import picture
from dcgan.vitals.line import VitalsLine

IMAGES = np.full((64, 4, 4, 1), 200, np.uint8)
RESULT = EvaluationResult(1.0, 0.1, 0.5, 0.25, 9.0, [0.1] * 10, 2.0)
LOSSES = StepLine(1, loss_d=1.0, loss_g=0.5, d_x=0.7, d_g_z1=0.2, d_g_z2=0.1)


def draw_evaluation(path, about="a set"):
    evaluation = show.Evaluation(
        "recipe", 5, 1, "last", "running", 100, about, "features", 0.99, RESULT, RESULT, IMAGES,
        IMAGES[:10], IMAGES[:10],
    )  # fmt: skip
    show.draw(evaluation, path)


DRAWN = {
    "losses": lambda path: pictures.save_losses([LOSSES] * 3, path),
    "side by side": lambda path: pictures.save_side_by_side({"real": IMAGES[0], "fake": IMAGES[0]}, path),
    "rows": lambda path: pictures.save_rows({"result": IMAGES[:3]}, path),
    "vital signs": lambda path: picture.save(
        [VitalsLine.from_json(vital_signs(step)) for step in (1, 2)], path
    ),
    "an evaluation": draw_evaluation,
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_is_drawn_with_our_style(tmp_path, name):
    with matplotlib.rc_context(DARK):
        DRAWN[name](tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as png:
        assert png.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("about", [r"a $\foo$ of a_{", "not text: \udcff"])
def test_the_name_of_the_data_may_be_any(tmp_path, about):
    draw_evaluation(tmp_path / "a.png", about)
    assert (tmp_path / "a.png").stat().st_size > 10_000
