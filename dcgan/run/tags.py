"""The lines of a run's log files as TensorBoard shows them: numbers and sentences, by their tags.

TensorBoard shows what is the same before "/" as one group, in alphabetical order.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..evaluation.line import EvaluationLine
from ..steps import StepLine
from ..vitals.line import VitalsLine

FINDINGS = "vitals/findings"
PICTURES = {True: "pictures/samples", False: "pictures/real images"}  # by whether they are generated

LARGEST = 3.4e38  # of a float32, which TensorBoard keeps numbers in
Tagged = Iterator[tuple[str, float | None]]


def numbers(name: str, line: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a line of the file `name`, by tag.

    Raises KeyError, TypeError or ValueError if the line is damaged.
    """
    tagged = READERS[name](line)
    return {tag: float(value) for tag, value in tagged if value is not None and abs(value) <= LARGEST}


def findings(name: str, line: Mapping[str, Any]) -> str:
    """Return a list, in Markdown, of what vital signs have found; "" for none. Raises as `numbers` does."""
    if name != "vitals.jsonl":
        return ""
    found = VitalsLine.from_json(line).findings
    return "\n".join(f"- {each.sentence} {each.remedy}" for each in found)


def _of_step(value: Mapping[str, Any]) -> Tagged:
    line = StepLine.from_json(value)
    yield "loss/D", line.loss_d
    yield "loss/G", line.loss_g
    yield "probability/D(x)", line.d_x
    yield "probability/D(G(z)) in the first half of a step", line.d_g_z1
    yield "probability/D(G(z)) in the second half of a step", line.d_g_z2


def _of_speed(value: Mapping[str, Any]) -> Tagged:
    yield "speed/images per second", value["images_per_second"]


def _of_vitals(value: Mapping[str, Any]) -> Tagged:
    line = VitalsLine.from_json(value)
    yield "vitals/spread of the samples", line.spread
    yield "vitals/saturated share of the real pixels", line.real_saturated
    for layer in line.layers:
        place = f"{layer.network} {layer.name} {layer.kind}"
        yield f"vitals: gradient norm/{place}", layer.gradient_norm
        yield f"vitals: update-to-weight ratio/{place}", layer.update_ratio
        yield f"vitals: dead units/{place}", layer.dead
        yield f"vitals: saturated outputs/{place}", layer.saturated
    for norm in line.batch_norm_gap:
        yield f"vitals: distance of real from generated/discriminator {norm.name} BatchNorm", norm.gap


def _of_evaluation(value: Mapping[str, Any]) -> Tagged:
    line = EvaluationLine.from_json(value)
    for group, result in (("evaluation", line.samples), ("evaluation: real images", line.floor)):
        yield f"{group}/Fréchet distance", result.frechet
        yield f"{group}/kernel distance", result.kernel
        yield f"{group}/precision", result.precision
        yield f"{group}/recall", result.recall
        yield f"{group}/score", result.score
        yield f"{group}/rarest class", result.rarest
        yield f"{group}/nearest training image", result.nearest


READERS: dict[str, Callable[[Mapping[str, Any]], Tagged]] = {
    "metrics.jsonl": _of_step,
    "timing.jsonl": _of_speed,
    "vitals.jsonl": _of_vitals,
    "evaluations.jsonl": _of_evaluation,
}
