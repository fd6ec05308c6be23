"""The section of findings: signs of trouble in a run's vital signs, and losses that are not finite."""

from typing import Any

from ..markup import Markup, paragraph, section, tag
from .reading import Lines, Reading

MAX_CHARACTERS = 500  # characters of a sentence


def findings(reading: Reading) -> Markup:
    """The section of what was found. Its heading fits a run in which nothing was found, too."""
    items = [*_diverged(reading), *_signs(reading.vitals)]
    notes = [paragraph(note, class_="note") for note in reading.notes]
    if items:
        return section("findings", "What went wrong", tag("ul", *items, class_="findings"), *notes)
    if not reading.vitals:
        losses = "finite at every step" if reading.metrics else "not known either: no step is done"
        said = f"Not known: the run's directory has no vital signs (vitals.jsonl). The losses are {losses}."
        return section("findings", "Findings", paragraph(said), *notes)
    last = reading.vitals[-1]["step"]
    said = (
        f"Nothing found: {_times(len(reading.vitals))}, the last at step {last:,}, show no sign of trouble."
    )
    return section("findings", "Findings", paragraph(said, class_="good"), *notes)


def _times(count: int) -> str:
    return "1 measurement" if count == 1 else f"{count:,} measurements"


def _diverged(reading: Reading) -> list[Markup]:
    """The step with a number that is not finite, which ended the run; unless the vital signs tell of it."""
    line = reading.diverged
    if line is None or any(_has_sign(measured, "not-finite") for measured in reading.vitals):
        return []
    wrong = [name for name, value in line.items() if value is None]
    said = f"At step {line['step']:,} {' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not finite."
    remedy = "The run diverged there: start again with smaller lr_generator and lr_discriminator."
    return [_item("not-finite", said, remedy, f"step {line['step']:,}")]


def _has_sign(line: dict[str, Any], sign: str) -> bool:
    listed = line.get("findings")
    return isinstance(listed, list) and any(isinstance(f, dict) and f.get("sign") == sign for f in listed)


def _signs(vitals: Lines) -> list[Markup]:
    """Each sign that was found, once: its last sentence, and when it was there."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for line in vitals:
        listed = line.get("findings")
        for finding in listed if isinstance(listed, list) else ():
            if isinstance(finding, dict) and isinstance(finding.get("sentence"), str):
                found.setdefault(str(finding.get("sign"))[:60], []).append((line["step"], finding))
    return [_seen(sign, times, vitals) for sign, times in found.items()]


def _seen(sign: str, times: list[tuple[int, dict[str, Any]]], vitals: Lines) -> Markup:
    steps = sorted({step for step, _ in times})
    first, last = steps[0], steps[-1]
    when = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
    when += f", at {len(steps):,} of {_times(len(vitals))}"
    still = "and at the last one" if last == vitals[-1]["step"] else "and no more at the last one"
    finding = times[-1][1]
    remedy = finding.get("remedy")
    return _item(sign, finding["sentence"], remedy if isinstance(remedy, str) else "", f"{when}, {still}")


def _item(sign: str, sentence: str, remedy: str, when: str) -> Markup:
    parts = [tag("strong", sentence[:MAX_CHARACTERS]), " ", remedy[:MAX_CHARACTERS]]
    return tag("li", tag("div", *parts), tag("div", f"{sign}: {when}", class_="when"))
