"""What a search over input boxes states: contexts are split at inputs, and refuted by bounds computed anew in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from toolkit.certificates.leaf_rows import ProofNode, array
from toolkit.certificates.recorded_problem import RecordedProblem
from toolkit.certificates.writer import references
from toolkit.proof.stream import LinearRows
from toolkit.run.events import LeafClosed
from toolkit.search.box_frontier import BoxFrontier
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
        self.base = np.zeros(count) if origin is None else array(origin.base)
        self.nodes: dict[Key, ProofNode] = {}

    def begun(self, bounded: Sequence[InputBoxes]) -> None:
        """Begin with the boxes of cases."""
        for boxes in bounded:
            for key in node_keys(boxes):
                self.nodes[key] = self.problem.case_node(key[0])
            self.refute(boxes)

    def bounded(self, parents: InputBoxes, children: InputBoxes, clipping: None = None) -> None:
        """Cut boxes as the search did, and refute the parts that are refuted."""
        nodes = [self.nodes.pop(key) for key in node_keys(parents)]
        boxes, most = parents, min(self.frontier.fill, self.frontier.batch)
        while boxes is parents or 0 < 2 * len(boxes) <= most:
            dimension = boxes.gain.argmax(1)
            halves = bisect(boxes, dimension)
            middle = halves.upper[: len(boxes)].gather(1, dimension.unsqueeze(1)).squeeze(1)
            nodes = self.cut(nodes, dimension.cpu().numpy(), middle)
            boxes = halves
        keys = node_keys(boxes)
        if keys != node_keys(children):
            self.problem.gaps["boxes were cut in another way"] += len(parents)
            nodes = [ProofNode(-1, node.case) for node in nodes]
        self.nodes.update(zip(node_keys(children), nodes, strict=False))
        self.refute(children)

    def cut(self, nodes: Sequence[ProofNode], dimension: np.ndarray, middle: torch.Tensor) -> list[ProofNode]:
        """Split nodes at inputs: all lower halves, then all upper ones."""
        points = array(middle) + self.base[dimension]
        halves = self.problem.split(nodes, np.zeros(len(nodes), np.int64), self.inputs[dimension], points)
        return [
            ProofNode(int(context), node.case) for side in halves.T for node, context in zip(nodes, side, strict=True)
        ]

    def refute(self, boxes: InputBoxes) -> None:
        """Refute the boxes whose bounds are proofs, by the best of their atoms each."""
        done = boxes.select(proved(boxes.bound))
        if not len(done):
            return
        nodes = [self.nodes.pop(key) for key in node_keys(done)]
        rows, lower, upper = (array(part) for part in (done.rows, done.lower, done.upper))
        least = (np.maximum(rows, 0) @ lower[:, :, None] + np.minimum(rows, 0) @ upper[:, :, None])[..., 0]
        best = np.eye(rows.shape[1])[(least + array(done.offset)).argmax(1)].tolist()
        stated = [(node, weights) for node, weights in zip(nodes, best, strict=True) if node.context >= 0]
        if len(stated) < len(nodes):
            self.problem.gaps["domains are split at what is no element of a tensor of the network"] += len(nodes) - len(
                stated
            )
        if stated:
            atoms = [self.problem.atoms(node, weights) for node, weights in stated]
            none, contexts = references([{}] * len(stated)), np.array([node.context for node, _ in stated])
            row = LinearRows(True, contexts, np.zeros(len(stated)), references(atoms), none, none)
            self.problem.file.add(self.problem.file.writer.refute(row))

    def closed(self, event: LeafClosed) -> None:
        """No box is closed by itself."""
