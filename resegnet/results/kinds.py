"""Tell arteries from veins: one kind for each stretch of vessel, by the vote of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import ndimage

from resegnet.results.anatomy import ARTERY, VEIN, Anatomy
from resegnet.results.centrelines import Centrelines

STRAIGHT_DEGREES = 40  # by which a vessel may turn where it passes a crossing
DIRECTION_CALIBRES = 3  # length of the stretch that gives the direction of a branch, in calibres of the node
MIN_DIRECTION_PX = 8.0
BRIDGE_CALIBRES = 3  # length of the longest stretch that two crossing vessels share, in calibres of its ends

# Half of the log-odds that two neighbouring segments are of one kind. On eight training photographs of DRIVE and HRF it
# is so for 97 % of those that carry on straight at a fork, 86 % of the other branches of a fork, 86 % of those that
# carry on through a crossing, and 16 % of those that cross. A fork has two links to a branch, so each has less.
LINKS = {"straight": 1.8, "branch": 0.4, "through a crossing": 0.9, "across a crossing": -0.85}
VOTE_LENGTH = 0.1  # of vessel that counts as one look at it, in sides of the square round the field
DOUBT = 0.02  # keeps a probability of 0 or 1 from being certain
PASSES = 60

_SIDES, _CORNERS = ((0, 1), (-1, 0), (0, -1), (1, 0)), ((-1, 1), (-1, -1), (1, -1), (1, 1))


def tell_kinds(mask: np.ndarray, lines: Centrelines, anatomy: Anatomy) -> np.ndarray:
    """Tell the kind of each vessel pixel.

    Each segment of the centrelines has one kind, by the vote of its points: the sum of the log-odds of an artery
    against a vein, by length. Neighbours count as well, as in a Markov random field: segments that carry on straight
    are mostly of one kind, branches of a fork too, and vessels that cross are of two kinds, since arteries cross veins
    only (the tree as a help: Estrada et al. 2015, doi:10.1109/TMI.2015.2443117). `LINKS` says how much.

    Each pixel takes the kind of the centreline that is nearest inside the vessel. Where vessels of both kinds pass a
    crossing, its pixels are of both.

    Parameters
    ----------
    mask
        (H, W) bool, the vessels.
    lines
        Its centrelines.
    anatomy
        Of the same photograph.

    Returns
    -------
    kinds
        (H, W) uint8: 0 no vessel, 1 artery, 2 vein, 3 both.
    """
    crossings = find_crossings(lines)
    kind = np.where(_combine(_sum_votes(lines, anatomy), find_links(lines, crossings)) >= 0, ARTERY, VEIN)
    kind = kind.astype(np.uint8)
    for crossing in crossings:
        if crossing.bridge is not None and crossing.pairs:
            kind[crossing.bridge] = np.bitwise_or.reduce(kind[[one for one, _ in crossing.pairs]])

    kinds = np.zeros(mask.shape, np.uint8)
    rows, columns = np.rint(lines.points).astype(int).T
    kinds[rows, columns] = kind[lines.segments]
    kinds[~mask] = 0
    spread(kinds, mask)
    _fill_specks(kinds, mask, anatomy)
    for crossing in crossings:
        if {ARTERY, VEIN} <= {int(kind[one]) for one, _ in crossing.pairs}:
            _mark_both(kinds, mask, lines, crossing)
    return kinds


@dataclass(frozen=True)
class Crossing:
    """A place where four or more segments meet: one node, or two with a short segment, the bridge, between them.

    `pairs` are the segments that carry on straight into one another. Vessels that cross at an acute angle have a bridge
    in common.
    """

    nodes: tuple[int, ...]
    bridge: int | None
    pairs: list[tuple[int, int]]


def find_crossings(lines: Centrelines) -> list[Crossing]:
    """Find the crossings among the nodes, and pair the segments that carry on there, the straightest pair first."""
    ends = _ends_by_node(lines)
    first = np.searchsorted(lines.segments, np.arange(len(lines.nodes) + 1))
    crossings: list[Crossing] = []
    taken: set[int] = set()
    for bridge in _find_bridges(lines):
        one, other = map(int, lines.nodes[bridge])
        if len(ends[one]) == len(ends[other]) == 3 and one != other and not taken & {one, other}:
            taken |= {one, other}
            outer = [end for node in (one, other) for end in ends[node] if end[0] != bridge]
            crossings.append(Crossing((one, other), int(bridge), _pair(lines, first, outer)))
    for node, around in ends.items():
        if len(around) >= 4:
            crossings.append(Crossing((node,), None, _pair(lines, first, around)))
    return crossings


def _ends_by_node(lines: Centrelines) -> dict[int, list[tuple[int, int]]]:
    """Return the segments that meet at each node, each with the end, 0 or 1, that lies there."""
    ends: dict[int, list[tuple[int, int]]] = {}
    for segment, end in zip(*np.nonzero(lines.nodes >= 0), strict=True):
        ends.setdefault(int(lines.nodes[segment, end]), []).append((int(segment), int(end)))
    return ends


def _find_bridges(lines: Centrelines) -> np.ndarray:
    """Return the numbers of the segments between nodes that may be bridges, the shortest first."""
    between = np.flatnonzero((lines.nodes >= 0).all(axis=1))
    calibres = lines.node_calibres_px[lines.nodes[between]].mean(axis=1)
    short = between[lines.lengths_px[between] < BRIDGE_CALIBRES * calibres]
    return short[np.argsort(lines.lengths_px[short], kind="stable")]


def _pair(lines: Centrelines, first: np.ndarray, around: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pair the segments round a crossing, each given with the end that lies there, that carry on straight."""
    directions = np.array([_direction(lines, first, segment, end) for segment, end in around])
    turns = directions @ directions.T  # -1 is straight on
    pairs, free = [], np.ones(len(around), bool)
    for place in np.argsort(turns, axis=None):
        one, other = divmod(int(place), len(around))
        if turns[one, other] > -math.cos(math.radians(STRAIGHT_DEGREES)):
            break
        if free[one] and free[other]:
            free[[one, other]] = False
            pairs.append((around[one][0], around[other][0]))
    return pairs


def _direction(lines: Centrelines, first: np.ndarray, segment: int, end: int) -> np.ndarray:
    """Return the direction in which a segment leaves the node at its end 0 or 1, a unit vector (2,)."""
    points = lines.points[first[segment] : first[segment + 1]]
    points = points[::-1] if end else points
    node = lines.nodes[segment, end]
    distances = np.hypot(*(points - lines.node_points[node]).T)
    calibre = lines.node_calibres_px[node]
    beyond = distances >= max(DIRECTION_CALIBRES * calibre, MIN_DIRECTION_PX)
    far = int(np.argmax(beyond)) if beyond.any() else len(points) - 1
    near = min(int(np.argmax(distances >= calibre / 2)), max(far - 1, 0))  # beyond the bends inside the crossing
    step = points[far] - points[near]
    return step / max(float(np.hypot(*step)), 1e-9)


def find_links(lines: Centrelines, crossings: list[Crossing]) -> list[tuple[int, int, float]]:
    """List the segments that say something of each other's kind: two numbers, and the strength from `LINKS`."""
    links = []
    for crossing in crossings:
        links += [(*pair, LINKS["through a crossing"]) for pair in crossing.pairs]
        links += [(one, other, LINKS["across a crossing"]) for (one, _), (other, _) in combinations(crossing.pairs, 2)]
    first = np.searchsorted(lines.segments, np.arange(len(lines.nodes) + 1))
    crossed = {node for crossing in crossings for node in crossing.nodes}
    for node, around in _ends_by_node(lines).items():
        if node not in crossed:
            straight = {frozenset(pair) for pair in _pair(lines, first, around)[:1]}
            for (one, _), (other, _) in combinations(around, 2):
                name = "straight" if frozenset((one, other)) in straight else "branch"
                links.append((one, other, LINKS[name]))
    return [link for link in links if link[0] != link[1]]


def _combine(votes: np.ndarray, links: list[tuple[int, int, float]]) -> np.ndarray:
    """Return half of the log-odds of each segment's kind, (S,), from its own votes and those of its neighbours.

    Belief propagation (Pearl 1988), exact where the links form a tree.
    """
    if not links:
        return votes
    one, other = np.array([link[:2] for link in links]).T
    pull = np.tanh(np.tile([link[2] for link in links], 2))
    source, target = np.concatenate([one, other]), np.concatenate([other, one])
    back = np.roll(np.arange(len(pull)), len(links))  # the message in the other direction
    message = np.zeros(len(pull))
    for _ in range(PASSES):
        total = votes + np.bincount(target, weights=message, minlength=len(votes))
        told = np.arctanh(pull * np.tanh(total[source] - message[back]))
        message = (message + told) / 2  # damped, since loops could make it swing
    return votes + np.bincount(target, weights=message, minlength=len(votes))


def _sum_votes(lines: Centrelines, anatomy: Anatomy) -> np.ndarray:
    """Return half of the log-odds of an artery that each segment's own points give, (S,)."""
    probability = anatomy.kinds_at(lines.points)
    artery, vein = np.log(probability + DOUBT) - np.log(1 - probability + DOUBT)
    weights = lines.steps_px * np.where(np.isnan(lines.calibres_px), 0.1, 1)  # near a node another vessel mixes in
    sums = np.bincount(lines.segments, weights=(artery - vein) * weights, minlength=len(lines.nodes))
    return sums / (2 * VOTE_LENGTH * anatomy.geometry.box[2])


def spread(kinds: np.ndarray, mask: np.ndarray) -> None:
    """Give each pixel of the mask that is connected to others the kind of the nearest one that has a kind, in place.

    Near is meant inside the mask, by steps that reach an octagon.

    Parameters
    ----------
    kinds
        (H, W) uint8, 0 where unknown.
    mask
        (H, W) bool.
    """
    unknown, width = np.pad(mask & (kinds == 0), 1).reshape(-1), mask.shape[1] + 2
    padded = np.pad(kinds, 1)
    found = padded.reshape(-1)
    sides, corners = ([row * width + column for row, column in around] for around in (_SIDES, _CORNERS))
    for steps in ((sides, sides + corners), (sides + corners,)):  # the second round reaches what touches by a corner
        frontier, step = np.flatnonzero(found), 0
        while len(frontier):
            reached = []
            for offset in steps[step % len(steps)]:
                there = frontier + offset
                new = unknown[there]
                there = there[new]
                unknown[there] = False
                found[there] = found[frontier[new]]
                reached.append(there)
            frontier, step = np.concatenate(reached), step + 1
    kinds[...] = padded[1:-1, 1:-1]


def _fill_specks(kinds: np.ndarray, mask: np.ndarray, anatomy: Anatomy) -> None:
    """Give each part of the mask that has no centreline the kind that its own pixels vote for, in place."""
    places = np.nonzero(mask & (kinds == 0))
    if not len(places[0]):
        return
    specks = np.zeros(mask.shape, bool)
    specks[places] = True
    part = ndimage.label(specks, np.ones((3, 3)))[0][places]
    artery, vein = anatomy.kinds_at(np.stack(places, axis=1).astype(float))
    kinds[places] = np.where(np.bincount(part, weights=artery - vein)[part] >= 0, ARTERY, VEIN)


def _mark_both(kinds: np.ndarray, mask: np.ndarray, lines: Centrelines, crossing: Crossing) -> None:
    """Mark the pixels round the nodes of a crossing as both kinds, in place."""
    height, width = mask.shape
    for node in crossing.nodes:
        # The greatest disc in a crossing touches its corners. What two vessels of one width share fits inside it.
        (row, column), radius = lines.node_points[node], lines.node_calibres_px[node] / math.sqrt(8)
        rows = slice(max(math.floor(row - radius), 0), min(math.ceil(row + radius) + 1, height))
        columns = slice(max(math.floor(column - radius), 0), min(math.ceil(column + radius) + 1, width))
        down, right = np.ogrid[rows, columns]
        inside = (down - row) ** 2 + (right - column) ** 2 <= radius**2
        kinds[rows, columns][inside & mask[rows, columns]] = ARTERY | VEIN
