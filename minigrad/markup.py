"""HTML from text, and for notebooks: tables and bars that are readable on light and on dark pages.

Whatever is given is text, and only what is made here is HTML. Styles are inline, since pages that show
notebooks remove style sheets. They set no colour of text, and shades are translucent.
"""

import html
from collections.abc import Iterable, Sequence

from .tables import printable

VOID = {"br", "img", "input", "link", "meta"}  # elements without content
SHADE = "70, 130, 180"  # red, green and blue of what is shaded


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as HTML that shows it: escaped, and with escapes for what would not be shown."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value))))


def tag(element: str, /, *content: object, **attributes: object) -> Markup:
    """Return an element. Content and attributes are escaped, unless they are Markup.

    Of an attribute's name a trailing underscore is left out, and others become hyphens: class_, aria_label.
    None and False leave the attribute out, True gives it no value.
    """
    shown = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    if element in VOID:
        return Markup(f"<{element}{shown}>")
    return Markup(f"<{element}{shown}>{''.join(map(text, content))}</{element}>")


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{text(value)}"'


def html_table(rows: Sequence[Sequence[object]], align: str, foot: int = 0) -> Markup:
    """Return rows of cells as a table. One that is too wide for the page scrolls.

    Args:
        rows: the cells; the first row has the heads. A row of one cell is a heading across the table.
        align: the columns' alignment, as in `minigrad.tables.table`.
        foot: the number of last rows that are sums.
    """
    heads, *lines = rows
    sides = align.ljust(len(heads), align[-1])
    body, end = lines[: len(lines) - foot], lines[len(lines) - foot :]
    parts = [tag("thead", _row(heads, sides, "th")), tag("tbody", *(_row(row, sides, "td") for row in body))]
    if foot:
        parts.append(tag("tfoot", *(_row(row, sides, "th") for row in end)))
    return tag("div", tag("table", *parts), style="overflow-x: auto")


def _row(cells: Sequence[object], sides: str, element: str) -> Markup:
    if len(cells) == 1 < len(sides):
        return tag("tr", tag("th", *cells, colspan=len(sides), style="text-align: left"))
    return tag(
        "tr",
        *(
            tag(element, cell, style=f"text-align: {'left' if side == '<' else 'right'}; white-space: nowrap")
            for cell, side in zip(cells, sides, strict=True)
        ),
    )


def bar(share: float, label: str) -> Markup:
    """Return a label on a bar that is `share` of the cell's width; below 0 and above 1 are cut off."""
    part = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    shade = f"linear-gradient(to right, rgba({SHADE}, 0.4) {part}, transparent {part})"
    return tag("div", label, style=f"min-width: 7em; padding: 0 4px; background: {shade}")


def paragraph(*content: object, class_: str | None = None) -> Markup:
    """Return a paragraph of text."""
    return tag("p", *content, class_=class_)


def preformatted(content: Iterable[str]) -> Markup:
    """Return lines as they are, in letters of one width."""
    style = "margin: 4px 0 4px 1em; line-height: 1.3; overflow-x: auto; font-family: monospace"
    return tag("pre", "\n".join(content), style=style)


def details(summary: object, *content: object, open: bool = False) -> Markup:
    """Return content that a click on its summary shows and hides."""
    return tag("details", tag("summary", summary, style="cursor: pointer"), *content, open=open)
