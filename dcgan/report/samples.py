"""The pictures of a run: its grid over time, and real beside generated."""

import math

import numpy as np

from ..animations import frame_files
from ..markup import Markup, paragraph, png_url, section, tag
from .drawing import Data
from .embedded import picture, png_of
from .reading import Reading

MAX_FRAME_BYTES = 24_000_000  # of all frames in a page, before base64 adds a third
SHOWN = 560  # pixels of a frame's width on the page, about


def samples(reading: Reading, data: Data) -> Markup:
    """The section with the frames, a slider over them, and a button that plays them."""
    files = frame_files(reading.directory / "frames")
    chosen = evenly([path.lstat().st_size for path in files], MAX_FRAME_BYTES)
    notes, shown = [], b""
    for place in chosen:
        try:
            shown = png_of(files[place], reading.directory)
        except ValueError as error:
            notes.append(f"{error}.")
            continue
        data.frames.append({"step": int(files[place].stem), "src": png_url(shown)})
    if not data.frames:
        linked = (reading.directory / "frames").is_symlink()
        why = "frames is a symbolic link, which is not followed" if linked else _NONE_YET
        notes.append(f"There are no frames: {why}.")
        return section("samples", "Samples over time", *map(paragraph, notes))
    if len(chosen) < len(files):
        notes.append(
            f"{len(files) - len(chosen):,} of {len(files):,} frames are left out, evenly: a page has "
            f"{MAX_FRAME_BYTES / 1e6:.0f} MB of them at most."
        )
    last = data.frames[-1]["step"]
    preset = reading.preset
    about = (
        f"The same {preset.grid_rows * preset.grid_columns} noises, drawn every {preset.frame_every:,} steps"
        + (f" with the averaged weights (decay {preset.ema_decay:g})." if preset.ema_decay else ".")
    )
    slider = tag(
        "input",
        type="range",
        id="frame",
        min=0,
        max=len(data.frames) - 1,
        value=len(data.frames) - 1,
        aria_label="frame",
        autocomplete="off",
    )
    play = tag("button", "Play", type="button", id="play")
    label = tag("output", f"step {last:,}", id="frame-label", for_="frame")
    image = picture(shown, f"generated images after step {last}", SHOWN, "frame-picture")
    return section(
        "samples",
        "Samples over time",
        paragraph(about),
        image,
        tag("div", play, slider, label, class_="player"),
        *map(paragraph, notes),
    )


_NONE_YET = "a run writes the first before its first step"


def evenly(sizes: list[int], most: int) -> list[int]:
    """Choose from files evenly, the first and the last among them, so that all fit in `most`.

    The last one is always taken.
    """
    count = len(sizes)
    while count > 1:
        places = np.linspace(0, len(sizes) - 1, count).round().astype(int).tolist()
        total = sum(sizes[place] for place in places)
        if total <= most:
            return places
        count = min(count - 1, math.floor(count * most / total))
    return [len(sizes) - 1] if sizes else []


def real_and_generated(reading: Reading) -> Markup:
    """The section with real images beside generated ones: both grids, or the picture of the run's end."""
    title = ("real-and-generated", "Real beside generated")
    frames = frame_files(reading.directory / "frames")
    sides = [("real", reading.directory / reading.preset.real_name)]
    sides += [(f"generated, after step {int(path.stem):,}", path) for path in frames[-1:]]
    figures, notes = [], []
    for name, path in sides:
        try:
            shown = picture(png_of(path, reading.directory), name, SHOWN)
            figures.append(tag("figure", shown, tag("figcaption", name)))
        except ValueError as error:
            notes.append(paragraph(f"{error}."))
    if len(figures) < 2:
        try:
            content = png_of(reading.directory / "real_and_fake.png", reading.directory)
            figures = [picture(content, "real images, and generated ones beside them", SHOWN)]
        except ValueError as error:
            notes.append(paragraph(f"{error}; it is written at the end of a run."))
    return section(*title, *notes, tag("div", *figures, class_="pair"))
