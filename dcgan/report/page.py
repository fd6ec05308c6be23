"""The whole page: its head, its sections, and what its script draws."""

from importlib import resources
from typing import Any

from ..data import scale
from ..markup import Markup, joined, tag
from . import charts, evaluations, findings, machine, networks, recipe, samples
from .charts import nice
from .drawing import Data
from .embedded import policy_hash
from .reading import Reading, number

SECTIONS = (
    ("findings", "Findings"),
    ("samples", "Samples"),
    ("curves", "Curves"),
    ("real-and-generated", "Real"),
    ("evaluation", "Evaluation"),
    ("layers", "Layers"),
    ("recipe", "Recipe"),
    ("ledger", "One step"),
    ("machine", "Machine"),
    ("going-on", "Going on"),
)


def page(reading: Reading) -> str:
    """The report of a run as HTML. Equal runs at equal places make equal pages."""
    data = Data()
    parts = [
        findings.findings(reading),
        samples.samples(reading, data),
        charts.curves(reading, data),
        samples.real_and_generated(reading),
        evaluations.evaluation(reading, data),
        networks.networks(reading),
        recipe.recipe(reading),
        recipe.ledger(reading),
        machine.machine(reading),
        machine.going_on(reading),
    ]
    style, script = (
        resources.files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js")
    )
    title = f"{reading.preset.name}, step {reading.step:,}: {reading.directory.resolve().name}"
    links = (tag("a", name, href=f"#{place}") for place, name in SECTIONS)
    body = tag(
        "body",
        tag("header", tag("h1", reading.preset.name), *_facts(reading)),
        tag("nav", *links, aria_label="sections"),
        tag("main", joined(parts)),
        tag("noscript", "Curves and the slider need JavaScript, which is in this page."),
        tag("script", Markup(data.to_json()), type="application/json", id="data"),
        tag("script", Markup(script)),
    )
    html = tag("html", _head(title, style, script), body, lang="en")
    return f"<!doctype html>\n{html}\n"


def _head(title: str, style: str, script: str) -> Markup:
    """The policy comes first: with it the browser fetches nothing, and runs only the script of this page."""
    policy = (
        f"default-src 'none'; img-src data:; style-src {policy_hash(style)}; "
        f"script-src {policy_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style)),
    )


def _facts(reading: Reading) -> list[Markup]:
    """Return the facts at the top of the page."""
    total, last = reading.total, reading.metrics[-1] if reading.metrics else {}
    done = f"{reading.step:,}" + (f" of {total:,}" if total else "")
    if reading.diverged is not None:
        done += f", diverged at step {reading.diverged['step']:,}"
    elif total and reading.step < total:
        done += ", not at its end yet"
    facts = [("run", str(reading.named)), ("steps", done)]
    if isinstance(reading.config.get("data"), str):
        facts.append(("data", reading.config["data"][:200] + _range(reading.config.get("range"))))
    if type(last.get("epoch")) is int:
        all_epochs = f" of {reading.preset.epochs:,}" if reading.preset.epochs else ""
        facts.append(("epoch", f"{last['epoch']:,}{all_epochs}"))
    pairs: list[tuple[str, Any]] = [
        ("loss of D, of G", ("loss_d", "loss_g")),
        ("D(x), D(G(z))", ("d_x", "d_g_z1")),
    ]
    facts += [(name, ", ".join(nice(number(last.get(k))) for k in keys)) for name, keys in pairs if last]
    return [tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts))]


def _range(value: Any) -> str:
    """Return ", 0 to 1 as black and white" for [0, 1], and "" for what is no range."""
    try:
        low, high = scale.checked(value)
    except ValueError:
        return ""
    return f", {low:.15g} to {high:.15g} as black and white"
