"""Figures drawn by matplotlib, the same whatever the user's settings, which stay as they are.

MPLBACKEND, a matplotlibrc and styles are meant for the user's own figures. Some of them, such as a backend
that is not installed or a request for LaTeX, would keep ours from being drawn; others would change their
look. So ours are drawn with matplotlib's default style and without a GUI backend.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .backend.forks import Lock
from .serialize import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_drawing = Lock(fork_order=0)  # held while matplotlib's settings, which are the whole process's, are ours


@contextmanager
def saved_figure(
    path: str | os.PathLike[str], size: tuple[float, float], dpi: int = 110
) -> Iterator["Figure"]:
    """Give a figure with a constrained layout to draw in, and write it to a PNG file at the end.

    It is as of `drawn_figure`. The file is written whole or not at all, and not if an exception ends the
    drawing.

    Args:
        path: of the PNG file.
        size: width and height in inches.
        dpi: pixels per inch.

    Raises ValueError if the path does not end in .png.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"a figure: expected a path that ends in .png, got {str(path)!r}")
    with drawn_figure(size, dpi) as (figure, content):
        yield figure
    write_whole(path, content.getvalue())


@contextmanager
def drawn_figure(size: tuple[float, float], dpi: int = 110) -> Iterator[tuple["Figure", io.BytesIO]]:
    """Give a figure with a constrained layout to draw in, and a stream that is a PNG file of it at the end.

    The file has no date or version in it: equal figures make equal files. One thread at a time draws, others
    wait. matplotlib is imported here, since that takes a second.

    Args:
        size: width and height in inches.
        dpi: pixels per inch.
    """
    content = io.BytesIO()
    with _drawing, _default_settings():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layout = ConstrainedLayoutEngine()
        figure = Figure(size, dpi=dpi, layout=layout)
        FigureCanvasAgg(figure)
        yield figure, content
        # `savefig` would do the layout too, but would go through the whole drawing a second time for it.
        if figure.axes:  # else there is nothing to lay out, and matplotlib warns
            layout.execute(figure)
        figure.set_layout_engine("none")
        figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})


@contextmanager
def _default_settings() -> Iterator[None]:
    """Give matplotlib its default settings, and at the end those that it had. The backend stays."""
    _import()
    import matplotlib

    defaults: Any = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    with matplotlib.rc_context(defaults):
        yield


def _import() -> None:
    """Import matplotlib, though the user's settings may be such that its import would fail."""
    if "matplotlib" in sys.modules:
        return
    with _environment(MPLBACKEND=None, MATPLOTLIBRC=os.devnull):
        import matplotlib
    # The user's own figures follow the user's settings, as after an import by the user.
    with suppress(Exception):  # a matplotlibrc that can't be read
        matplotlib.rcParams.update(matplotlib.rc_params())
    if backend := os.environ.get("MPLBACKEND"):
        with suppress(ValueError):  # there is no such backend
            matplotlib.rcParams["backend"] = backend


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Set environment variables, or remove those that are None; at the end put back what there was."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
