"""HTML from text: whatever a file says is text, and only what is made here is HTML."""

import base64
import html
from collections.abc import Iterable

from .errors import printable

VOID = {"br", "img", "input", "link", "meta"}  # elements without content


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as HTML that shows it: escaped, and with escapes for what would not be shown."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value))))


def tag(element: str, /, *content: object, **attributes: object) -> Markup:
    """An element. Content that is no Markup is escaped, and so are attributes.

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


def joined(parts: Iterable[object], between: str = "\n") -> Markup:
    """Parts one after another."""
    return Markup(text(between).join(map(text, parts)))


def section(name: str, title: str, *content: object) -> Markup:
    """A part of the page, with its title, that `#name` leads to."""
    return tag("section", tag("h2", title), *content, id=name)


def table(heads: Iterable[object], rows: Iterable[Iterable[object]], name: str, caption: str = "") -> Markup:
    """A table; the first cell of each row names it. Wide ones scroll by themselves.

    Args:
        name: of the table, for those who hear the page; `caption` is seen.
    """
    top = tag("tr", *(tag("th", head, scope="col") for head in heads))
    body = (
        tag("tr", *(tag("td", cell) if i else tag("th", cell, scope="row") for i, cell in enumerate(row)))
        for row in rows
    )
    said = [tag("caption", caption)] if caption else []
    return tag(
        "div",
        tag("table", *said, tag("thead", top), tag("tbody", *body)),
        class_="wide",
        tabindex=0,
        role="region",
        aria_label=name,
    )


def paragraph(*content: object, class_: str | None = None) -> Markup:
    """A paragraph of text."""
    return tag("p", *content, class_=class_)


def png_url(content: bytes) -> str:
    """Return the content of a PNG file as the address of a picture."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
