"""A figure, drawn in processes of their own under settings of matplotlib that a user may have.

`python tests/drawing.py DIRECTORY` makes a folder in the directory for each of SETTINGS, by its name. In it
are `figure.png`, and in `settings` all settings of matplotlib that the process has after drawing.
"""

import os
import sys
from pathlib import Path

import numpy as np

from minigrad.figures import saved_figure

# Settings with which a figure looks different, and can't be drawn without LaTeX.
DARK = {
    "text.usetex": True, "font.family": "No Such Font", "font.size": 30, "axes.facecolor": "black",
    "figure.facecolor": "black", "savefig.dpi": 30, "savefig.transparent": True, "image.cmap": "gray",
    "lines.linewidth": 9, "axes.grid": True,
}  # fmt: skip
# By name: environment variables, and the content of a matplotlibrc.
SETTINGS = {
    "default": ({}, b""),
    "notebook": ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, b"text.usetex: True\n"),
    "windows": ({"MPLBACKEND": "TkAgg"}, b"lines.linewidth: thick\nno.such: 1\nlines.color\n"),
    "nonsense": ({"MPLBACKEND": "nonsense"}, b"\xff\xfe\x00"),
    "dark": ({"MPLBACKEND": "svg"}, "".join(f"{name}: {value}\n" for name, value in DARK.items()).encode()),
    "read-only": ({"MPLCONFIGDIR": "/dev/null/none"}, b"text.usetex: True\n"),
}
IMPORTED = "imported"  # by the user, with the dark settings; nothing is drawn


def draw(path):
    """Draw much that settings change."""
    with saved_figure(path, (4, 3)) as figure:
        left, right = figure.subplots(1, 2)
        left.semilogy([1, 2, 3], [1e-3, 1, 1e3], label="a curve")
        left.legend()
        right.imshow(np.arange(12).reshape(3, 4))
        right.set_title("a title")


def main(directory):
    """Do all at once; False if every process ended well."""
    settings = {**SETTINGS, IMPORTED: SETTINGS["dark"]}
    children = [_in_child(directory / name, *settings[name]) for name in settings]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return any(statuses)


def _in_child(folder, variables, matplotlibrc):
    """The number of a process that draws."""
    folder.mkdir()
    if child := os.fork():
        return child
    (folder / "rc").write_bytes(matplotlibrc)
    os.environ.pop("DISPLAY", None)
    variables = {**variables, "MATPLOTLIBRC": str(folder / "rc"), "TMPDIR": str(folder)}
    os.environ |= variables
    if folder.name != IMPORTED:
        draw(folder / "figure.png")
    import matplotlib

    changed = {"MPLCONFIGDIR"}  # by matplotlib itself, to a place that can be written to
    assert all(os.environ[name] == variables[name] for name in variables.keys() - changed)
    values = sorted(dict.items(matplotlib.rcParams))  # without looking for a backend, if none is chosen
    (folder / "settings").write_text("".join(f"{name}: {value}\n" for name, value in values))
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
