"""What a search over input boxes states: contexts are split at inputs, and refuted by bounds computed anew in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.certificates.leaf_rows import ProofNode
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.certificates.writer import no_references
from toolkit.problem.affine import in_numpy
from toolkit.proof.stream import LinearRows
from toolkit.run.events import LeafClosed
from toolkit.search.box_frontier import BoxFrontier, best_atom, joint_minima
from toolkit.search.input_domains import InputBoxes, bisect
from toolkit.search.phase_domains import proved

Key = tuple[int, bytes, bytes]


def node_keys(boxes: InputBoxes) -> list[Key]:
    """What tells each box of a search from all others: its case and its corners."""
    lower, upper = boxes.lower.cpu().numpy(), boxes.upper.cpu().numpy()
    return [(c, low.tobytes(), high.tobytes()) for c, low, high in zip(boxes.case.tolist(), lower, upper, strict=True)]


class BoxRecord:
    """The tree of one search over boxes that does not clip them, as far as it is open."""

    def __init__(self, problem: RecordedProblem, frontier: BoxFrontier) -> None:
        self.problem, self.frontier = problem, frontier
        origin = frontier.problem.program.origin
        count = frontier.problem.program.num_inputs
        self.inputs = np.arange(count) if origin is None else origin.inputs.cpu().numpy()
        self.base = np.zeros(count) if origin is None else in_numpy(origin.base)
        self.nodes: dict[Key, ProofNode] = {}

    def keys(self, frontier: BoxFrontier) -> list[Key]:
        """The case and the corners of each open box of a frontier."""
        return [key for part in frontier.open.parts for key in node_keys(part)]

    def begun(self, bounded: Sequence[InputBoxes]) -> None:
        """Begin with the boxes of cases."""
        for boxes in bounded:
            for key in node_keys(boxes):
                self.nodes[key] = self.problem.case_node(key[0])
            self.refute(boxes, HalfSpaces.none(boxes.box))

    def bounded(self, parents: InputBoxes, children: InputBoxes, clipping: None = None) -> None:
        """Cut boxes as the search did, and refute the parts that are refuted."""
        nodes = [self.nodes.pop(key) for key in node_keys(parents)]
        if self.frontier.cut:
            self.state_spaces(nodes, parents)
        boxes, spaces = parents, self.frontier.with_stated_space(parents).spaces
        while len(boxes) < len(children):
            dimension = boxes.gain.argmax(1)
            halves = bisect(boxes, dimension)
            middle = halves.upper[: len(boxes)].gather(1, dimension.unsqueeze(1)).squeeze(1)
            nodes = self.cut(nodes, dimension.cpu().numpy(), middle)
            boxes, spaces = halves, HalfSpaces(*(torch.cat([part, part]) for part in vars(spaces).values()))
        keys = node_keys(boxes)
        if keys != node_keys(children):
            self.problem.gaps["boxes were cut in another way"] += len(parents)
            nodes = [ProofNode(-1, node.case) for node in nodes]
        self.nodes.update(zip(node_keys(children), nodes, strict=False))
        self.refute(children, spaces)

    def state_spaces(self, nodes: Sequence[ProofNode], boxes: InputBoxes) -> None:
        """State the half-spaces in which the parts of boxes are bounded, case by case."""
        chosen = best_atom(boxes).tolist()
        for at in self.problem.of_each_case(nodes):
            rows = self.fresh_rows([(nodes[place], chosen[place]) for place in at.tolist()], boxes.offset.shape[1])
            self.problem.file.add(self.problem.file.writer.half_space(rows)[1])

    def fresh_rows(self, chosen: Sequence[tuple[ProofNode, int]], count: int) -> LinearRows:
        """A row for each node, of one of the ``count`` atoms of its case, by bounds that are computed anew."""
        atoms = self.problem.atoms([node for node, _ in chosen], np.eye(count)[[atom for _, atom in chosen]])
        none, contexts = no_references(len(chosen)), np.array([node.context for node, _ in chosen])
        return LinearRows(True, contexts, np.zeros(len(chosen)), atoms, none, none)

    def cut(self, nodes: Sequence[ProofNode], dimension: np.ndarray, middle: torch.Tensor) -> list[ProofNode]:
        """Split nodes at inputs: all lower halves, then all upper ones."""
        points = in_numpy(middle) + self.base[dimension]
        halves = self.problem.split(nodes, np.zeros(len(nodes), np.int64), self.inputs[dimension], points)
        return [
            ProofNode(int(context), node.case) for side in halves.T for node, context in zip(nodes, side, strict=True)
        ]

    def refute(self, boxes: InputBoxes, spaces: HalfSpaces) -> None:
        """Refute the boxes whose bounds are proofs, by the atom of each that is highest in its half-space."""
        at = proved(boxes.bound).nonzero().squeeze(1)
        if not len(at):
            return
        done = boxes.select(at)
        nodes = [self.nodes.pop(key) for key in node_keys(done)]
        best = joint_minima(done.box, done.spaces, spaces.select(at)).argmax(1).tolist()
        if stated := [(nodes[number], best[number]) for number in self.problem.with_context(nodes)]:
            self.problem.file.add(self.problem.file.writer.refute(self.fresh_rows(stated, boxes.offset.shape[1])))

    def closed(self, event: LeafClosed) -> None:
        """Write nothing: a search over boxes refutes them by their bounds alone."""
