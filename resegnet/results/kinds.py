"""Tell arteries from veins: the kind of each stretch of vessel by the vote of its pixels, and of the pixels with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from resegnet.results.anatomy import ARTERY, VEIN, Anatomy
from resegnet.results.centrelines import Tree

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

# Where an artery and a vein touch, they share a centreline, and a vote gives both the kind of one. So where a vessel is
# wide enough for the network to tell its sides, each pixel decides with its segment. On training photographs of DRIVE
# and HRF that raises the share of pixels whose kind is right from 0.94 to 0.96.
WIDE_PX = 3  # side of a square that fits inside a wide vessel, px of the photograph and of the square of two looks
# Half of the log-odds of the kind: of a segment against its pixels at most, and of a pixel that differs at least.
LARGEST_VOTE, LEAST_VOTE = 2.0, 0.5
SMALLEST_PART = 20  # px of the square of two looks; fewer pixels that differ from their segment are no vessel
# Least probability of the less likely kind of a pixel of both kinds: at a crossing of centrelines, and elsewhere.
CROSSING_PROBABILITY, BOTH_PROBABILITY = 0.3, 0.6

_SIDES, _CORNERS = ((0, 1), (-1, 0), (0, -1), (1, 0)), ((-1, 1), (-1, -1), (1, -1), (1, 1))


def tell_kinds(mask: np.ndarray, lines: Tree, anatomy: Anatomy) -> np.ndarray:
    """Tell the kind of each vessel pixel.

    Each segment of the centrelines has one kind, by the vote of its points: the sum of the log-odds of an artery
    against a vein, by length. Neighbours count as well, as in a Markov random field: segments that carry on straight
    are mostly of one kind, branches of a fork too, and vessels that cross are of two kinds, since arteries cross veins
    only (the tree as a help: Estrada et al. 2015, doi:10.1109/TMI.2015.2443117). `LINKS` says how much.

    Each pixel takes the kind of the centreline that is nearest inside the vessel. In a wide vessel it may decide
    otherwise, with its neighbours: an artery and a vein that touch have one centreline. Where vessels of both kinds
    pass a crossing, its pixels are of both unless one kind is unlikely; elsewhere, if both kinds are likely.

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
    joints = find_joints(lines)
    crossings = find_crossings(lines, joints)
    odds = _combine(_sum_votes(lines, anatomy), _find_links(joints, crossings))
    kind = np.where(odds >= 0, ARTERY, VEIN).astype(np.uint8)
    for crossing in crossings:
        if crossing.bridge is not None and crossing.pairs:
            kind[crossing.bridge] = np.bitwise_or.reduce(kind[[one for one, _ in crossing.pairs]])

    segments, unknown = _nearest_segments(mask, lines)
    kinds = np.insert(kind, 0, 0)[segments]
    _decide_pixels(kinds, anatomy, segments, odds)
    _fill_specks(kinds, unknown, anatomy)
    for crossing in crossings:
        if {ARTERY, VEIN} <= {int(kind[one]) for one, _ in crossing.pairs}:
            _mark_both(kinds, mask, lines, crossing, anatomy)
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


@dataclass(frozen=True)
class Joints:
    """How segments meet. An end is the number of a segment, and 0 or 1 for its first or last point."""

    ends: dict[int, list[tuple[int, int]]]  # that lie at each node
    directions: np.ndarray  # (S, 2, 2) float64, unit vector in which each segment leaves the node at its end 0 and 1


def find_joints(lines: Tree) -> Joints:
    """Find which ends of segments meet at each node, and in which directions they leave it."""
    ends: dict[int, list[tuple[int, int]]] = {}
    for segment, end in zip(*np.nonzero(lines.nodes >= 0), strict=True):
        ends.setdefault(int(lines.nodes[segment, end]), []).append((int(segment), int(end)))
    return Joints(ends, _find_directions(lines))


def _find_directions(lines: Tree) -> np.ndarray:
    """Return the directions of `Joints`; nonsense where a segment ends at no node."""
    directions = np.zeros((len(lines.nodes), 2, 2))
    if not len(directions):
        return directions
    bounds = np.searchsorted(lines.segments, np.arange(len(directions) + 1))
    firsts, lasts = bounds[:-1], bounds[1:] - 1
    sizes = lasts - firsts + 1
    along = np.arange(len(lines.points)) - firsts[lines.segments]
    # The last element stands for the number -1: no node.
    nodes, calibres = np.append(lines.node_points, [[np.nan] * 2], axis=0), np.append(lines.node_calibres_px, np.nan)

    def find_first(beyond: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return the fewest steps from its end at which each segment is beyond, its size if it never is."""
        return np.minimum.reduceat(np.where(beyond, steps, sizes[lines.segments]), firsts)

    for end, steps in ((0, along), (1, sizes[lines.segments] - 1 - along)):
        node = lines.nodes[:, end]
        distances = np.hypot(*(lines.points - nodes[node][lines.segments]).T)
        reach = np.maximum(DIRECTION_CALIBRES * calibres[node], MIN_DIRECTION_PX)
        far = np.minimum(find_first(distances >= reach[lines.segments], steps), sizes - 1)
        beyond_bends = distances >= calibres[node][lines.segments] / 2  # those inside the crossing
        near = find_first(beyond_bends, steps)
        near = np.minimum(np.where(near == sizes, 0, near), np.maximum(far - 1, 0))
        places = (lasts - far, lasts - near) if end else (firsts + far, firsts + near)
        step = lines.points[places[0]] - lines.points[places[1]]
        directions[:, end] = step / np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    return directions


def find_crossings(lines: Tree, joints: Joints) -> list[Crossing]:
    """Find the crossings among the nodes, and pair the segments that carry on there, the straightest pair first."""
    ends = joints.ends
    crossings: list[Crossing] = []
    taken: set[int] = set()
    for bridge in _find_bridges(lines):
        one, other = map(int, lines.nodes[bridge])
        if len(ends[one]) == len(ends[other]) == 3 and one != other and not taken & {one, other}:
            taken |= {one, other}
            outer = [end for node in (one, other) for end in ends[node] if end[0] != bridge]
            crossings.append(Crossing((one, other), int(bridge), _pair(joints, outer)))
    for node, around in ends.items():
        if len(around) >= 4:
            crossings.append(Crossing((node,), None, _pair(joints, around)))
    return crossings


def _find_bridges(lines: Tree) -> np.ndarray:
    """Return the numbers of the segments between nodes that may be bridges, the shortest first."""
    between = np.flatnonzero((lines.nodes >= 0).all(axis=1))
    calibres = lines.node_calibres_px[lines.nodes[between]].mean(axis=1)
    short = between[lines.lengths_px[between] < BRIDGE_CALIBRES * calibres]
    return short[np.argsort(lines.lengths_px[short], kind="stable")]


def _pair(joints: Joints, around: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pair the segments round a crossing, each given with the end that lies there, that carry on straight."""
    directions = joints.directions[tuple(np.transpose(around))]
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


def _find_links(joints: Joints, crossings: list[Crossing]) -> list[tuple[int, int, float]]:
    """List the segments that say something of each other's kind: two numbers, and the strength from `LINKS`."""
    links = []
    for crossing in crossings:
        links += [(*pair, LINKS["through a crossing"]) for pair in crossing.pairs]
        links += [(one, other, LINKS["across a crossing"]) for (one, _), (other, _) in combinations(crossing.pairs, 2)]
    crossed = {node for crossing in crossings for node in crossing.nodes}
    for node, around in joints.ends.items():
        if node not in crossed:
            straight = {frozenset(pair) for pair in _pair(joints, around)[:1]}
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


def _sum_votes(lines: Tree, anatomy: Anatomy) -> np.ndarray:
    """Return half of the log-odds of an artery that each segment's own points give, (S,)."""
    probability = anatomy.kinds_at(lines.points)
    weights = lines.steps_px * np.where(lines.clear, 1, 0.1)  # near a node another vessel mixes in
    sums = np.bincount(lines.segments, weights=_half_log_odds(*probability) * weights, minlength=len(lines.nodes))
    return sums / (VOTE_LENGTH * anatomy.geometry.box[2])


def _nearest_segments(mask: np.ndarray, lines: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 + the number of the segment that is nearest inside the vessel, (H, W) int32, and where none is.

    It is 0 outside the vessels, and in parts of the mask without a centreline, which are the second array, (H, W) bool.
    """
    unknown = np.pad(mask, 1)
    found = np.zeros(unknown.shape, np.int32)
    pixels = np.ravel_multi_index(tuple(np.rint(lines.points).astype(int).T + 1), unknown.shape)
    inside = unknown.reshape(-1)[pixels]
    pixels = pixels[inside]
    found.reshape(-1)[pixels] = lines.segments[inside] + 1
    unknown.reshape(-1)[pixels] = False
    _spread(found, unknown, np.unique(pixels))
    return found[1:-1, 1:-1], unknown[1:-1, 1:-1]


def _spread(numbers: np.ndarray, unknown: np.ndarray, seeds: np.ndarray) -> None:
    """Give each unknown pixel that is connected to others the number of the nearest one that has a number, in place.

    Near is meant inside the vessels, by steps that reach an octagon. Both arrays, (H, W), have a margin of one pixel;
    `unknown`, bool, keeps what is not reached. `seeds` are the pixels with a number, (N,) int, places in the flattened
    array.
    """
    width = numbers.shape[1]
    sides, corners = ([row * width + column for row, column in around] for around in (_SIDES, _CORNERS))
    _grow(numbers, unknown, seeds, (sides, sides + corners))
    # The second round reaches what touches by a corner.
    left = np.ravel_multi_index(_find_true(unknown), unknown.shape)
    beside = np.unique(np.concatenate([left + offset for offset in sides + corners]))
    _grow(numbers, unknown, beside[numbers.reshape(-1)[beside] != 0], (sides + corners,))


def _grow(numbers: np.ndarray, unknown: np.ndarray, frontier: np.ndarray, steps: tuple[list[int], ...]) -> None:
    """Carry the numbers from the frontier on by the offsets of each step in turn, in place, to unknown pixels."""
    found, free, step = numbers.reshape(-1), unknown.reshape(-1), 0
    while len(frontier):
        values, reached = found[frontier], []
        for offset in steps[step % len(steps)]:
            there = frontier + offset
            new = np.flatnonzero(free[there])
            there = there[new]
            free[there] = False
            found[there] = values[new]
            reached.append(there)
        frontier, step = np.concatenate(reached), step + 1


def _find_true(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the few pixels that are True, (N,) int each: `np.nonzero`, many times as fast."""
    rows = np.flatnonzero(mask.any(axis=1))
    row, column = np.nonzero(mask[rows])
    return rows[row], column


def _fill_specks(kinds: np.ndarray, unknown: np.ndarray, anatomy: Anatomy) -> None:
    """Give each part of the mask that has no centreline the kind that its own pixels vote for, in place.

    Both arrays are (H, W), `unknown` bool.
    """
    places = _find_true(unknown)
    if not len(places[0]):
        return
    count, width = len(places[0]), unknown.shape[1] + 1  # the last pixel of a row is not beside the first of the next
    pixels = places[0] * width + places[1]
    beside = pixels + np.array([[1], [width - 1], [width], [width + 1]])
    other = np.minimum(np.searchsorted(pixels, beside), count - 1)
    pairs = np.nonzero(pixels[other] == beside)
    edges = np.ones(len(pairs[1]), np.int8), (pairs[1], other[pairs])
    matrix = sparse.coo_array(edges, shape=(count, count))
    part = csgraph.connected_components(matrix, directed=False)[1]
    artery, vein = anatomy.kinds_at(np.stack(places, axis=1).astype(float))
    kinds[places] = np.where(np.bincount(part, weights=artery - vein)[part] >= 0, ARTERY, VEIN)


def _decide_pixels(kinds: np.ndarray, anatomy: Anatomy, segments: np.ndarray, odds: np.ndarray) -> None:
    """Let the pixels of wide vessels decide with their segment which kind they are, in place.

    The few places where they differ from it are looked for in the square, and only these are decided pixel by pixel.

    `segments` is (H, W) int, 1 + the segment of each pixel, or 0, and `odds` (S,), half of the log-odds of its kind.
    """
    from scipy import ndimage

    geometry, around = anatomy.geometry, np.ones((3, 3), bool)
    small, before = geometry.to_input_nearest(segments), geometry.to_input_nearest(kinds)
    scale = geometry.input_size / geometry.box[2]
    # Opening by a square, then one pixel more; these filters work by rows and columns, binary_opening does not.
    width = math.ceil(WIDE_PX * max(scale, 1))
    wide = ndimage.minimum_filter((small > 0).astype(np.uint8), width, mode="constant")
    wide = ndimage.maximum_filter(wide, width, mode="constant", origin=width % 2 - 1)
    wide = (ndimage.maximum_filter(wide, 3, mode="constant") > 0) & (small > 0)
    told = np.zeros_like(before)
    artery, vein = anatomy.kinds_of_square()
    told[wide] = _tell_pixels(artery[wide], vein[wide], odds[small[wide] - 1], before[wide])
    told[told == before] = 0
    for kind in (ARTERY, VEIN, ARTERY | VEIN):
        parts, count = ndimage.label(told == kind, around)
        large = np.flatnonzero(np.bincount(parts.ravel(), minlength=count + 1) >= SMALLEST_PART)
        boxes = ndimage.find_objects(parts)
        for part in large[large > 0]:
            box = tuple(slice(max(edge.start - 1, 0), edge.stop + 1) for edge in boxes[part - 1])
            near = ndimage.binary_dilation(parts[box] == part, around)
            rows, columns, at = geometry.pixels_of(box)
            inside = near[at] & (segments[rows, columns] > 0)
            view, voted = kinds[rows, columns], odds[segments[rows, columns][inside] - 1]
            points = np.argwhere(inside) + np.array([rows.start, columns.start], float)
            artery, vein = anatomy.kinds_at(points)
            own = _tell_pixels(artery, vein, voted, view[inside])
            view[inside] = np.where(own == kind, kind, view[inside])


def _tell_pixels(artery: np.ndarray, vein: np.ndarray, odds: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the kind that each pixel of a wide vessel and its segment decide on, (N,) uint8.

    `artery` and `vein` are the pixel's probabilities, `odds` half of the log-odds of the segment's kind, and `before`
    is that kind, of both at a crossing.
    """
    vote = _half_log_odds(artery, vein)
    total = np.clip(odds, -LARGEST_VOTE, LARGEST_VOTE) + vote
    least = np.where(before == ARTERY | VEIN, CROSSING_PROBABILITY, BOTH_PROBABILITY)
    told = np.where(np.abs(vote) < LEAST_VOTE, before, np.where(total >= 0, ARTERY, VEIN))
    return np.where(np.minimum(artery, vein) >= least, ARTERY | VEIN, told).astype(np.uint8)


def _half_log_odds(artery: np.ndarray, vein: np.ndarray) -> np.ndarray:
    """Return half of the log-odds of an artery against a vein, of their probabilities."""
    sides = (np.log(probability + DOUBT) - np.log(1 - probability + DOUBT) for probability in (artery, vein))
    return np.subtract(*sides) / 2


def _mark_both(kinds: np.ndarray, mask: np.ndarray, lines: Tree, crossing: Crossing, anatomy: Anatomy) -> None:
    """Mark the pixels round the nodes of a crossing that are likely of both kinds, in place."""
    height, width = mask.shape
    for node in crossing.nodes:
        # The greatest disc in a crossing touches its corners. What two vessels of one width share fits inside it.
        (row, column), radius = lines.node_points[node], lines.node_calibres_px[node] / math.sqrt(8)
        rows = slice(max(math.floor(row - radius), 0), min(math.ceil(row + radius) + 1, height))
        columns = slice(max(math.floor(column - radius), 0), min(math.ceil(column + radius) + 1, width))
        down, right = np.ogrid[rows, columns]
        inside = (down - row) ** 2 + (right - column) ** 2 <= radius**2
        places = np.argwhere(inside & mask[rows, columns]) + np.array([rows.start, columns.start])
        likely = anatomy.kinds_at(places.astype(float)).min(axis=0) >= CROSSING_PROBABILITY
        kinds[tuple(places[likely].T)] = ARTERY | VEIN
