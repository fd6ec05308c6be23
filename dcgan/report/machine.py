"""The section on the machine and the versions of a run, and on how to go on with it."""

import shlex
from typing import Any

import numpy as np

from .. import plugins
from ..markup import Markup, paragraph, section, table, tag
from ..run import checkpoint
from .reading import Reading, number


def machine(reading: Reading) -> Markup:
    """The section of the machine and the versions, as config.json has them."""
    config = reading.config
    versions = config.get("versions")
    rows: list[tuple[str, Any]] = [
        (name, config[key])
        for name, key in (
            ("machine", "machine"),
            ("device", "device"),
            ("TensorFloat-32", "tf32"),
            ("CUDA graph", "graph"),
            ("CPU kernels", "kernels"),
            ("data", "data"),
        )
        if isinstance(config.get(key), str | bool)
    ]
    rows += [(f"{name}", f"{v}") for name, v in (versions.items() if isinstance(versions, dict) else ())]
    speeds = [number(line.get("images_per_second")) for line in reading.timing]
    known = [speed for speed in speeds if speed == speed]
    if known:
        rows.append(("images per second, median", f"{np.median(known):,.0f}"))
    if not rows:
        return section(
            "machine", "Machine and versions", paragraph("There is no config.json that would say.")
        )
    shown = [(name, str(value)[:300]) for name, value in rows]
    return section("machine", "Machine and versions", table(("", ""), shown, "machine and versions"))


def _device(reading: Reading) -> str:
    """Return " --device NAME" for the device that config.json names, if it is not the CPU."""
    device = reading.config.get("device")
    known = isinstance(device, str) and device.isidentifier() and len(device) < 60 and device != "cpu"
    return f" --device {device}" if known else ""


def going_on(reading: Reading) -> Markup:
    """The section with the commands that this run can be followed by."""
    run = shlex.quote(str(reading.named))
    weights = f" --weights {reading.weights}" if reading.weights else ""
    weights += plugins.options(reading.preset)
    commands = [
        ("Go on training", f"dcgan train --resume {run}{plugins.options(reading.preset)}{_device(reading)}"),
        ("Draw more", f"dcgan sample {run} --out more.png --grid 8x8 --seed 1{weights}"),
        ("Measure", f"dcgan evaluate {run}{weights}"),
        ("Animate", f"dcgan animate {run}"),
        (
            "Walk between noises",
            f"dcgan interpolate {run} --out way.png --between 0/1 0/5 0/9{weights}",
        ),
        ("Make this page anew", f"dcgan report {run}{weights}"),
    ]
    if (reading.directory / checkpoint.BEST_NAME).is_file() and reading.weights != "best":
        best = f"dcgan sample {run} --out best.png --weights best"
        commands.insert(2, ("Draw by the best checkpoint", best))
    rows = [(name, tag("code", command)) for name, command in commands]
    return section("going-on", "Going on", table(("to", "command"), rows, "commands"))
