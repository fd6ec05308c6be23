"""Values in notebooks: HTML that stands alone, with the style of its tables, and plain text."""

from collections.abc import Iterable
from typing import Any

from . import markup
from .markup import Markup, tag

# Notebooks align cells to the right. One that is not trusted yet, such as another person's, loses its style
# sheets, but not the styles of its elements: what a table must have to be readable is there.
CELL = "text-align: left"
BESIDE = "display: flex; flex-wrap: wrap; gap: 0 2.5em; align-items: flex-start"
# No colour of text is set: a notebook may be light or dark.
STYLE = Markup(
    ".dcgan-shown table{border-collapse:collapse;table-layout:auto;margin:.3em 0 .8em;font-size:.9em;"
    "font-variant-numeric:tabular-nums}"
    ".dcgan-shown table th,.dcgan-shown table td{vertical-align:top;"
    "padding:.15em .8em .15em 0;border:0;border-bottom:1px solid rgba(128,128,128,.35)}"
    ".dcgan-shown table th{font-weight:600}"
    ".dcgan-shown table thead th{font-weight:400;opacity:.75}"
    ".dcgan-shown table caption{font-weight:600;padding:.3em 0}"
    ".dcgan-shown .wide{overflow-x:auto;max-width:100%}"
    ".dcgan-shown img{max-width:100%}"
)


class PlainText:
    """A value whose `str()` is for people: IPython shows it where it shows no picture and no HTML."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


def standalone(*content: object) -> Markup:
    """Return content as HTML that a notebook shows by itself."""
    return tag("div", tag("style", STYLE), *content, class_="dcgan-shown")


def beside(*content: object) -> Markup:
    """Return parts that stand beside each other, as far as there is room."""
    return tag("div", *content, style=BESIDE)


def table(heads: Iterable[object], rows: Iterable[Iterable[object]], name: str, caption: str = "") -> Markup:
    """Return a table, as `markup.table` does, that stays readable without the style sheet."""
    return markup.table(heads, rows, name, caption, CELL)
