"""The result of `explain`: the steps of a layer, the checks of them, and both as text and as HTML."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...markup import Markup, details, html_table, paragraph, preformatted, tag
from ...tables import table
from .look import Host, look, summary_of

WIDTH = 100  # characters of a line of words
INDENT = 5  # of steps, for their numbers
OPEN = 4  # lines of numbers that HTML shows without a click
ALIGN = "<<<>>><"  # of the table of checks


@dataclass(frozen=True, eq=False)
class Step:
    """One thing that is computed.

    Attributes:
        name: of what is done, such as "im2col".
        symbol: of what comes out, such as "columns", "y" or "dweight": sentences call it so.
        sentence: what happens, with this layer's numbers.
        values: what came out, on the host.
    """

    name: str
    symbol: str
    sentence: str
    values: Host

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __str__(self) -> str:
        lines = textwrap.wrap(f"{self.name}: {self.sentence}", WIDTH - INDENT)
        lines.append(f"  {self.symbol} {summary_of(self.values)}")
        return "\n".join(lines + [f"    {line}" for line in look(self.values)])

    def _repr_html_(self) -> str:
        numbers, summary = look(self.values), tag("code", f"{self.symbol} {summary_of(self.values)}")
        shown = details(summary, preformatted(numbers), open=len(numbers) <= OPEN)
        return tag("strong", f"{self.name}: ") + tag("span", self.sentence) + (shown if numbers else summary)


@dataclass(frozen=True)
class Check:
    """Two ways to the same numbers.

    Attributes:
        what: the symbol of the numbers.
        got, expected: the two ways, in words.
        count: how many numbers were compared.
        error: |got - expected| / |expected| by norms. Where the numbers are what little is left of large
            terms, it is relative to those.
        tolerance: the largest error that is still rounding.
    """

    what: str
    got: str
    expected: str
    count: int
    error: float
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether they are the same but for rounding."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        what, got, expected, count, error, tolerance, verdict = self._cells()
        return (
            f"{what}: {got} against {expected}, {count} numbers: "
            f"{error} apart, {tolerance} allowed: {verdict}"
        )

    def _repr_html_(self) -> str:
        return paragraph(_mark(self.equal), self)

    def _cells(self) -> tuple[str, ...]:
        """The check as a row of a table."""
        verdict = "equal" if self.equal else "NOT EQUAL"
        numbers = f"{self.count:,}", f"{self.error:.1e}", f"{self.tolerance:.0e}"
        return self.what, self.got, self.expected, *numbers, verdict


@dataclass(frozen=True, eq=False)
class Explanation:
    """One layer, opened up on real numbers. `str()` is the whole of it as text; notebooks show it in HTML.

    Attributes:
        layer: with its arguments.
        heading: sizes, dtype, device and mode.
        x: what came in.
        forward: the steps from x to the result, the last of which gives it.
        result: of the steps.
        grad: dy, the gradient of the result that the backward began with.
        backward: the steps from dy to the gradients.
        gradients: of the steps, by name: "x", "weight", ...
        notes: what else is to be known: how the engine itself goes about it.
        loop: the same forward and backward in plain loops over single numbers. It is Python, over arrays
            of these names; what is added to begins as 0.
        checks: what the steps were compared with.
        sizes: how large a gradient is where its terms do not cancel, by name, if they may: what an error
            is relative to, if it is larger than the gradient.
        parts: of a `Sequential`, each layer's own explanation by its name.
    """

    layer: str
    heading: str
    x: Host
    forward: tuple[Step, ...]
    result: Host
    grad: Host
    backward: tuple[Step, ...]
    gradients: Mapping[str, Host]
    notes: tuple[str, ...]
    loop: str
    checks: tuple[Check, ...]
    sizes: Mapping[str, Host] = field(default_factory=dict)
    parts: "Mapping[str, Explanation]" = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether all checks, those of the parts too, found the same numbers."""
        return not self.wrong()

    def wrong(self, name: str = "") -> list[str]:
        """The checks that failed, as text; those of a part begin with its name."""
        found = [f"{name}{check}" for check in self.checks if not check.equal]
        for place, part in self.parts.items():
            found += part.wrong(f"{name}{place}.")
        return found

    def __str__(self) -> str:
        verdict = self._verdict()
        begin = [] if self.right else [*verdict, ""]
        return "\n".join([*begin, self._text(""), "", *verdict])

    def _repr_html_(self) -> str:
        verdict, *wrong = self._verdict()
        failed = [tag("ul", *(tag("li", check) for check in wrong))] if wrong else []
        heading = paragraph(_mark(self.right), tag("strong", verdict))
        return "".join([heading, *failed, tag("h4", self.layer), *self._sections()])

    def _verdict(self) -> list[str]:
        """The result of all checks in one line, and the checks that failed."""
        if wrong := self.wrong():
            return [f"WRONG: {len(wrong)} checks failed", *wrong]
        return [f"right: all {self._count()} checks found the same numbers"]

    def _count(self) -> int:
        """The checks, with those of the parts."""
        return len(self.checks) + sum(part._count() for part in self.parts.values())

    def _text(self, name: str) -> str:
        title = f"{name} {self.layer}".strip()
        lines = [title, "=" * len(title), *textwrap.wrap(self.heading, WIDTH)]
        for heading, steps in (("forward", self.forward), ("backward, from dy", self.backward)):
            lines += ["", heading]
            for i, step in enumerate(steps, 1):
                text = textwrap.indent(str(step), " " * INDENT)
                lines += f"{i:3}. {text[INDENT:]}".splitlines()
        lines += [""] if self.notes else []
        for note in self.notes:
            lines += textwrap.wrap(note, WIDTH)
        if self.loop:
            lines += ["", "the naive loop that it equals", *textwrap.indent(self.loop, "  ").splitlines()]
        lines += ["", "checked on the spot", *textwrap.indent(self._table(), "  ").splitlines()]
        for place, part in self.parts.items():
            lines += ["", part._text(f"{name}.{place}" if name else place)]
        return "\n".join(lines)

    def _sections(self, name: str = "") -> list[Markup]:
        """The same as HTML: headings, and what is long behind a click."""
        found = [paragraph(self.heading)]
        for heading, steps in (("forward", self.forward), ("backward, from dy", self.backward)):
            shown = (tag("li", Markup(step._repr_html_())) for step in steps)
            found += [tag("h5", heading), tag("ol", *shown)]
        found += map(paragraph, self.notes)
        if self.loop:
            found.append(details("the naive loop that it equals", preformatted(self.loop.splitlines())))
        heads, *rows = self._checked()
        marked = [
            (*row[:-1], Markup(_mark(check.equal) + row[-1]))
            for row, check in zip(rows, self.checks, strict=True)
        ]
        found += [tag("h5", "checked on the spot"), html_table([heads, *marked], ALIGN)]
        for place, part in self.parts.items():
            full = f"{name}.{place}" if name else place
            title = Markup(_mark(part.right) + tag("strong", f"{full} {part.layer}"))
            found.append(details(title, *part._sections(full), open=not part.right))
        return found

    def _table(self) -> str:
        return table(self._checked(), ALIGN)

    def _checked(self) -> list[tuple[str, ...]]:
        """The cells of the table of checks."""
        heads = ("what", "computed", "against", "numbers", "apart", "allowed", "")
        return [heads, *(check._cells() for check in self.checks)]


def _mark(right: bool) -> Markup:
    """A tick or a cross."""
    return Markup("\N{CHECK MARK} " if right else "\N{BALLOT X} ")
