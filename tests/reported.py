"""A small run to make a report of: two tiny networks, three steps, and vital signs written by hand."""

import json

import numpy as np
import pytest

from dcgan import train
from dcgan.data import mnist

STEPS = 3
GENERATOR = (
    "[Dense(98, bias=False), BatchNorm(), LeakyReLU(0.2), Reshape(2, 7, 7), ConvTranspose(3, 4, 2, 1), "
    "ReLU(), ConvTranspose(1, 4, 2, 1), Tanh()]"
)
DISCRIMINATOR = (
    "[Conv(4, 4, 2, 1), LeakyReLU(0.2), Conv(3, 4, 2, 1, bias=False), BatchNorm(), LeakyReLU(0.2), "
    "Flatten(), Dense(1)]"
)
LAYERS = (
    ("generator", "0", "Dense", 0.5, None), ("generator", "2", "LeakyReLU", None, 0.25),
    ("discriminator", "0", "Conv2d", 0.125, None), ("discriminator", "1", "LeakyReLU", None, 0.75),
)  # fmt: skip


def layer(network, name, kind, norm, dead, step):
    """Norms that fall with the steps: exact in float32, so that the page's numbers are equal to these."""
    norm = None if norm is None else norm / step
    return {"network": network, "name": name, "kind": kind, "gradient_norm": norm, "update_ratio": norm,
            "dead": dead, "saturated": None}  # fmt: skip


def vital_signs(step, findings=()):
    """A line of vitals.jsonl."""
    return {
        "step": step, "epoch": 1, "d_x": 0.5, "d_g_z1": 0.5, "d_g_z2": 0.5,
        "layers": [layer(*one, step) for one in LAYERS], "spread": 0.25 * step,
        "real_saturated": 0.125,
        "batch_norm_gap": [{"name": "3", "gap": 0.5}], "findings": list(findings),
    }  # fmt: skip


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def train_small(directory):
    """The run, without vital signs, trained on 200 made-up images of digits."""
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    sizes = ("z_shape=(5,)", "frame_every=1", "sample_every=2", "grid_rows=2", "grid_columns=3")
    settings = (f"generator={GENERATOR}", f"discriminator={DISCRIMINATOR}", *sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "images", lambda split="train": images)
        arguments = ["--preset", "quick", "--steps", str(STEPS), "--batch-size", "8", "--out", str(directory)]
        for setting in settings:
            arguments += ["--set", setting]
        assert train.main(arguments) == 0
    return images
