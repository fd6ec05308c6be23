"""Values in notebooks: HTML that stands alone, with the style of its tables, and plain text."""

from typing import Any

from .markup import Markup, tag

# Notebooks have styles of their own, which align cells to the right, by longer selectors than these (so the
# "!important"). No colour of text is set: a notebook may be light or dark.
STYLE = Markup(
    ".dcgan-shown table{border-collapse:collapse;table-layout:auto;margin:.3em 0 .8em;font-size:.9em;"
    "font-variant-numeric:tabular-nums}"
    ".dcgan-shown table th,.dcgan-shown table td{text-align:left!important;vertical-align:top;"
    "padding:.15em .8em .15em 0;border:0;border-bottom:1px solid rgba(128,128,128,.35)}"
    ".dcgan-shown table th{font-weight:600}"
    ".dcgan-shown table thead th{font-weight:400;opacity:.75}"
    ".dcgan-shown table caption{text-align:left;font-weight:600;padding:.3em 0}"
    ".dcgan-shown .wide{overflow-x:auto;max-width:100%}"
    ".dcgan-shown .beside{display:flex;flex-wrap:wrap;gap:0 2.5em;align-items:flex-start}"
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
    return tag("div", *content, class_="beside")
