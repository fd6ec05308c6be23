"""The walk back through the graph that operations recorded: `Tensor.backward` and `grad`.

It visits the nodes in the reverse of the order they were made in, so that each is reached once all that
depends on it is done. That is reverse-mode automatic differentiation; source: Baydin et al., "Automatic
differentiation in machine learning: a survey" (2018), section 3.2.

A gradient that was itself recorded (`create_graph`) is a function of every tensor that the outputs were
computed from, even of those that it does not change with: the gradient of a ReLU is 1 or 0, and its
derivative 0. So each such gradient is the result of a node, `Gradient`, which lists these tensors.
"""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from . import observer
from .backend.ieee import throughout
from .tensor import Node, Tensor, next_number, recording

Reached = dict[int, "weakref.ref[Node | Tensor]"]  # nodes and leaves, by their ids


class Gradient:
    """The node of a gradient that was recorded: y = x, where x may have a node of its own or none.

    Attributes:
        reached: weak references to the nodes and leaves with respect to which the gradient has a derivative;
            where no path of recorded operations leads to one, the derivative is 0.
    """

    name: ClassVar[str] = "gradient"
    has_fused_backward: ClassVar[bool] = False
    released = False

    def __init__(self, gradient: Tensor, reached: Reached) -> None:
        self.number = next_number()
        edge = gradient if gradient.requires_grad else None
        self.edges: tuple[Node | Tensor | None, ...] = (edge if edge is None else edge.node or edge,)
        self.shapes: tuple[tuple[int, ...], ...] = (gradient.shape,)
        self.needs: tuple[bool, ...] = (False,)
        self.reached: Mapping[int, weakref.ref[Node | Tensor]] = reached

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy,)

    fused_backward = backward

    def check_alive(self) -> None:
        """Do nothing: no array is kept that could be freed or changed."""

    def release(self) -> None:
        """Do nothing: no array is kept."""

    def has_reached(self, target: Node | Tensor) -> bool:
        """Whether the gradient has a derivative with respect to a leaf, or to a node's result."""
        found = self.reached.get(id(target))
        return found is not None and found() is target

    def leaves(self) -> list[Tensor]:
        """Return the leaves if the derivative is 0 with respect to all: nothing was recorded."""
        if self.edges[0] is not None:
            return []
        return [leaf for found in self.reached.values() if isinstance(leaf := found(), Tensor)]


def backward(
    self: Tensor,
    grad: Tensor | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of this tensor to the `.grad` of what it was computed from.

    Args:
        grad: the gradient of the final result with respect to this tensor; 1 by default,
            which only a tensor of one element allows.
        create_graph: record the gradients' own computation, to differentiate it again; see `grad`.
            `.grad` then holds the graph that holds the tensor, a cycle: prefer `grad(...)`.
        retain_graph: keep what the graph saved, for another backward; by default it is kept
            where `create_graph` is. Otherwise it is freed on the way.
        inputs: the tensors whose `.grad` is wanted, by default every leaf that requires one.
            Nothing else is computed. The `.grad` of a tensor that this one does not depend on stays as it
            is.

    Raises RuntimeError if nothing was recorded, if the graph was freed or a value that it needs was changed
    in place, or if one of `inputs` does not require a gradient; and TypeError if one is not a tensor.
    """
    wanted = None if inputs is None else _listed("backward: inputs", inputs)
    if wanted is not None:
        wanted = list({id(t): t for t in wanted}.values())  # one asked for twice gets its gradient once
    given = set() if grad is None else {id(grad.data)}
    found = _backpropagate([self], [grad], wanted, create_graph, retain_graph)
    _add_to_leaves(found, given, create_graph)


@observer.differentiating()
def _add_to_leaves(found: list[tuple[Tensor, Tensor | None]], given: set[int], create_graph: bool) -> None:
    """Add its gradient to the `.grad` of each leaf. `given` holds the ids of arrays of the caller's."""
    with recording(create_graph):
        for leaf, gradient in found:
            if gradient is None:
                continue
            observer.differentiate(leaf)
            if leaf.grad is not None:
                leaf.grad = leaf.grad + gradient
                continue
            # Users write into `.grad`, so no two gradients share memory, with each other or with `grad`.
            array = gradient.data
            if not gradient.backend.owns_memory(array) or id(array) in given:
                gradient = Tensor(gradient.backend.copy(array), node=gradient.node, backend=gradient.backend)
            given.add(id(array))
            leaf.grad = gradient


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, leaving every `.grad` alone.

    Args:
        outputs: a tensor or several, whose gradients are added up.
        inputs: a tensor or several: leaves, or tensors on the way.
        grad_outputs: a tensor for each output, or None for 1 (outputs of one element only).
        create_graph: record the gradients' own computation, to differentiate it again. A gradient
            that does not change with an input of the outputs (as that of a ReLU, or of a sum) has the
            derivative 0.
        retain_graph: keep the graph for another backward; defaults to `create_graph`.
        allow_unused: give None for an input that the outputs do not depend on, not an error.

    Returns a tuple with one gradient for each input. Raises as `backward` does, and RuntimeError for an input
    that the outputs do not depend on.
    """
    outs, wanted = _listed("grad: outputs", outputs), _listed("grad: inputs", inputs)
    starts = [None] * len(outs) if grad_outputs is None else grad_outputs
    starts = [starts] if isinstance(starts, Tensor) else starts
    if not isinstance(starts, list | tuple) or len(starts) != len(outs):
        raise ValueError(f"grad: expected grad_outputs for {len(outs)} outputs, got {grad_outputs!r:.80}")
    found = _backpropagate(outs, list(starts), wanted, create_graph, retain_graph)
    for target, gradient in found:
        if gradient is None and not allow_unused:
            raise RuntimeError(_unused(wanted, target))
    return tuple(gradient for _, gradient in found)


def _listed(what: str, tensors: Any) -> list[Tensor]:
    """Return a tensor or several as a list. Raises TypeError for anything else."""
    if isinstance(tensors, Tensor):
        return [tensors]
    found = list(tensors) if isinstance(tensors, Iterable) else [tensors]
    for one in found:
        if not isinstance(one, Tensor):
            raise TypeError(
                f"{what}: expected tensors, got {type(one).__name__}: a gradient is that of a tensor with "
                "respect to tensors of its graph"
            )
    return found


def _unused(inputs: list[Tensor], target: Tensor) -> str:
    index = next(i for i, t in enumerate(inputs) if t is target)
    return (
        f"the outputs do not depend on inputs[{index}] (shape {target.shape}): leave it out, "
        "or use grad(..., allow_unused=True), which gives None for it"
    )


@throughout
@observer.differentiating()
def _backpropagate(
    outputs: list[Tensor],
    grad_outputs: list[Tensor | None],
    inputs: list[Tensor] | None,
    create_graph: bool,
    retain_graph: bool | None,
) -> list[tuple[Tensor, Tensor | None]]:
    """The walk itself: each wanted tensor with its gradient, or None where there is no path.

    `inputs=None` wants every leaf that requires a gradient.
    """
    retain = create_graph if retain_graph is None else retain_graph
    starts = [_check_start(out, g) for out, g in zip(outputs, grad_outputs, strict=True)]
    order = _nodes_from(outputs)
    if inputs is None:
        leaves = {id(e): e for node in order for e in node.edges if isinstance(e, Tensor)}
        leaves |= {id(out): out for out in outputs if out.node is None}
        leaves |= {id(leaf): leaf for node in order if isinstance(node, Gradient) for leaf in node.leaves()}
        inputs = list(leaves.values())
    for target in inputs:
        if not target.requires_grad:
            raise RuntimeError(
                f"a gradient was asked for with respect to a tensor of shape {target.shape} that does "
                "not require one: set requires_grad=True before it is used"
            )
    # Gradients so far, by what they belong to: a node for what was computed, else the leaf.
    keys = [id(target.node or target) for target in inputs]
    collected: dict[int, Tensor] = {}
    targets = set(keys)
    needs = _needs(targets, order)
    gradients = [node for node in order if isinstance(node, Gradient)]
    reached = _reached(outputs, order, gradients) if create_graph else None
    for node in order:
        if id(node) in needs:
            node.check_alive()
    with recording(create_graph):
        for out, start in zip(outputs, starts, strict=True):
            _accumulate(collected, id(out.node or out), start)
        while order:
            node = order.pop()
            key = id(node)
            dy = collected.get(key) if key in targets else collected.pop(key, None)
            if dy is None or key not in needs:
                continue
            node.needs = needs[key]
            observer.differentiate(node)
            gradients_of_inputs = _gradients(node, dy, create_graph)
            for edge, shape, needed, gradient in zip(
                node.edges, node.shapes, node.needs, gradients_of_inputs, strict=True
            ):
                if needed:
                    assert gradient is not None  # as `_check_gradients` saw
                    _accumulate(collected, id(edge), _unbroadcast(gradient, shape, node.name))
            if not retain:
                node.release()
    found: list[tuple[Tensor, Tensor | None]] = []
    for target, key in zip(inputs, keys, strict=True):
        gradient = collected.get(key)
        if gradient is None and any(node.has_reached(target.node or target) for node in gradients):
            gradient = Tensor(target.backend.xp.zeros_like(target.data), backend=target.backend)
        if gradient is not None and reached is not None:
            made = Gradient(gradient, reached)
            shared = gradient.version_counter
            gradient = Tensor(gradient.data, node=made, backend=gradient.backend, version_counter=shared)
        found.append((target, gradient))
    return found


def _reached(outputs: list[Tensor], order: list[Node], gradients: list[Gradient]) -> Reached:
    """Return all that the outputs were computed from; where that was a gradient, also what it was made of."""
    found: Reached = {}
    for node in gradients:
        found |= node.reached
    found |= {id(node): weakref.ref(node) for node in order}
    found |= {id(e): weakref.ref(e) for node in order for e in node.edges if isinstance(e, Tensor)}
    return found | {id(out): weakref.ref(out) for out in outputs if out.node is None}


def _gradients(node: Node, dy: Tensor, create_graph: bool) -> tuple[Tensor | None, ...]:
    """Return the gradients of the node's inputs, and notify the observers.

    They come from `backward` where they are recorded, else from `fused_backward` if there is one.
    """
    rule = node.fused_backward if node.has_fused_backward and not create_graph else node.backward
    if not observer.current() or isinstance(node, Gradient):  # which computes nothing
        gradients = rule(dy)
        _check_gradients(node, gradients, create_graph)
        return gradients
    with observer.notifying(node, observer.BACKWARD):
        gradients = rule(dy)
        _check_gradients(node, gradients, create_graph)
    observer.notify_end(node, observer.BACKWARD, (dy,), gradients)
    return gradients


def _check_gradients(node: Node, gradients: Any, create_graph: bool) -> None:
    """Raise TypeError unless a backward gave a tensor for each input that needs a gradient, in a tuple."""
    if not isinstance(gradients, tuple | list) or len(gradients) != len(node.needs):
        raise _wrong_rule(node, create_graph, _in_place_of_gradients(gradients))
    for i, gradient in enumerate(gradients):
        if isinstance(gradient, Tensor) or (gradient is None and not node.needs[i]):
            continue
        if gradient is None:
            raise _wrong_rule(node, create_graph, f"None for input {i}, whose gradient is needed")
        remedy = "compute it from dy by operations on tensors, so that it can be differentiated again"
        if _rule_name(node, create_graph) == "fused_backward":
            remedy = "Tensor(array, backend=self.backend) makes a tensor of an array"
        raise _wrong_rule(node, create_graph, f"{type(gradient).__name__} for input {i}: {remedy}")


def _in_place_of_gradients(given: Any) -> str:
    if isinstance(given, Tensor):
        return "Tensor (a comma makes a tuple: `return dx,`)"
    return f"{len(given)} gradients" if isinstance(given, tuple | list) else type(given).__name__


def _wrong_rule(node: Node, create_graph: bool, got: str) -> TypeError:
    return TypeError(
        f"{node.name}: expected its {_rule_name(node, create_graph)} to return a tuple with a tensor for "
        f"each of {len(node.needs)} inputs, got {got}"
    )


def _rule_name(node: Node, create_graph: bool) -> str:
    """Return the name of the method that the gradients came from, for messages."""
    return "fused_backward" if node.has_fused_backward and not create_graph else "backward"


def _check_start(out: Tensor, start: Tensor | None) -> Tensor:
    """The gradient that the walk starts with at `out`: the given one, checked, or 1."""
    if not isinstance(out, Tensor):
        raise TypeError(
            f"backward: expected a tensor to differentiate, got {type(out).__name__}: minigrad.tensor(...) "
            "makes one"
        )
    if not out.requires_grad:
        raise RuntimeError(
            "backward: nothing was recorded for this tensor: no input requires a gradient, "
            "or it was computed under no_grad() or detached"
        )
    if start is None:
        if out.size != 1:
            raise RuntimeError(
                f"backward: the gradient of a tensor of shape {out.shape} needs a starting gradient of "
                "that shape; without one, reduce it to one number first, with .sum() or .mean()"
            )
        observer.differentiate(out.node or out)
        return Tensor(out.backend.ones_like(out.data), backend=out.backend)
    if not isinstance(start, Tensor):
        raise TypeError(f"backward: expected a Tensor as the starting gradient, got {type(start).__name__}")
    if start.shape != out.shape or start.dtype != out.dtype or start.device != out.device:
        raise ValueError(
            f"backward: expected a starting gradient of {out.dtype}, shape {out.shape}, on {out.device!r}; "
            f"got {start.dtype}, {start.shape}, on {start.device!r}"
        )
    return start


def _nodes_from(outputs: list[Tensor]) -> list[Node]:
    """Every node that `outputs` depend on, oldest first (each is younger than its inputs)."""
    found: dict[int, Node] = {}
    waiting = [out.node for out in outputs if out.node is not None]
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting += [e for e in node.edges if e is not None and not isinstance(e, Tensor)]
    return sorted(found.values(), key=lambda node: node.number)


def _needs(targets: set[int], order: list[Node]) -> dict[int, tuple[bool, ...]]:
    """Return the nodes that depend on a target, by id, each with a flag for every input.

    A flag tells whether the input is a target or depends on one, so that its gradient is needed.
    """
    useful, needs = set(targets), {}
    for node in order:
        wanted = tuple([id(edge) in useful for edge in node.edges])
        if any(wanted):
            useful.add(id(node))
            needs[id(node)] = wanted
    return needs


def _accumulate(collected: dict[int, Tensor], key: int, gradient: Tensor) -> None:
    before = collected.get(key)
    collected[key] = gradient if before is None else before + gradient


def _unbroadcast(gradient: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Sum over the axes along which an input of `shape` was stretched: each use adds its share."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, gradient.shape[extra:], strict=True)):
        raise RuntimeError(
            f"{name}: its backward gave a gradient of shape {gradient.shape} for an input of shape {shape}"
        )
    stretched = tuple(extra + i for i, n in enumerate(shape) if n != gradient.shape[extra + i])
    if not stretched:
        return gradient.sum(axis=tuple(range(extra)))
    return gradient.sum(axis=(*range(extra), *stretched), keepdims=True).reshape(shape)
