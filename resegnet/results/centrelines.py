"""The centrelines of a vessel mask: segments between branch points and ends, with length, calibre and curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

# Pixel steps make a line up to 8 % too long. A Gaussian over the coordinates takes them away: with 2 px what is left is
# 0.3 %, and an arc of 20 px radius loses 0.5 %. On large photographs, 0.3 % of the field's diameter, so that a reference
# gives the same lengths whatever size it was scaled to.
SMOOTHING, LEAST_SMOOTHING_PX = 0.003, 2.0

# The steps show more in the curvature. A straight line now has 0.006 rad/px at worst, an arc of 50 px radius its 0.02
# to within 5 %.
CURVATURE_SMOOTHING, LEAST_CURVATURE_SMOOTHING_PX = 0.01, 5.0

END_FAN_DEGREES = (0, -30, 30, -60, 60)  # from the tip's direction

# Of rays and growing discs.
_STEP_PX = 0.25
_CIRCLE = np.stack([np.sin(np.arange(16) * math.pi / 8), np.cos(np.arange(16) * math.pi / 8)], axis=1)

# Neighbours counter-clockwise from the right, (row, column); bit k of a code stands for the k-th.
_AROUND = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Centrelines:
    """The centrelines of a mask with N points on S segments; coordinates are (row, column) in its frame, px.

    A segment runs from a branch point or end to the next. Points lie about 1 px apart, segment after segment.
    """

    points: np.ndarray  # (N, 2) float64, smoothed to parts of a pixel
    segments: np.ndarray  # (N,) int, number of each point's segment, ascending from 0
    steps_px: np.ndarray  # (N,) float64, the length that each point stands for
    calibres_px: np.ndarray  # (N,) float64; nan near branch points and where the vessel reaches the rim of the field
    curvatures_per_px: np.ndarray  # (N,) float64, without sign; nan near the ends of segments
    lengths_px: np.ndarray  # (S,) float64
    chords_px: np.ndarray  # (S,) float64, straight from one end to the other; 0 if they are the same
    middles: np.ndarray  # (S, 2) float64, the point half-way
    branch_points: np.ndarray  # (B, 2) float64
    end_points: np.ndarray  # (E, 2) float64, without those of vessels that leave the field


def find_centrelines(mask: np.ndarray, fov: np.ndarray) -> Centrelines:
    """Thin the vessels to their centrelines and trace them.

    What is shorter than the vessel is wide there is no vessel of its own: spurs are cut off, specks left out, and
    branch points that lie so near to one another count as one, as where two vessels cross.

    The calibre is the chord of the mask at right angles to the centreline. It is not measured nearer to a branch point
    than the calibre there, since the chord would run into the other vessel, nor where it reaches the rim of the field.

    Parameters
    ----------
    mask, fov : (H, W) bool
        Vessels and field of view; what is outside the field does not count.
    """
    vessel = np.pad(mask & fov, 1)  # so that every ray ends
    graph = _prune(np.flatnonzero(thin(vessel)), vessel)
    return _measure(graph, vessel, np.pad(fov, 1))


def field_diameter_px(fov: np.ndarray) -> float:
    """Diameter of a disc of the field's area."""
    return math.sqrt(4 / math.pi * np.count_nonzero(fov))


def thin(mask: np.ndarray) -> np.ndarray:
    """Thin a mask to lines of one pixel that hang together as it does, (H, W) bool.

    Parallel thinning in two alternating steps (Lam, Lee and Suen 1992, 10.1109/34.161346), bit for bit as
    `skimage.morphology.thin`, but only where the mask still changes: 0.2 s in place of 8 s for 8 megapixels.
    `skimage.morphology.skeletonize` takes 0.4 s, but deletes diagonal lines of 2 and 3 px width.
    """
    padded = np.pad(mask, 1)
    width = padded.shape[1]
    alive = padded.reshape(-1)
    offsets = [row * width + column for row, column in _AROUND]
    codes = np.zeros(alive.size, np.uint8)  # which neighbours are alive
    inner = np.s_[width + 1 : alive.size - width - 1]
    for k, offset in enumerate(offsets):
        codes[inner] |= alive[inner.start + offset : inner.stop + offset].view(np.uint8) << k
    pixels = np.flatnonzero(alive)
    border = pixels[codes[pixels] & 0b01010101 != 0b01010101]
    deep = alive.copy()
    deep[border] = False
    step = quiet = 0
    while quiet < 2:
        deletable = _DELETABLE[step % 2][codes[border]]
        deleted = border[deletable]
        alive[deleted] = False
        for k, offset in enumerate(offsets):
            codes[deleted - offset] &= ~np.uint8(1 << k)
        uncovered = []
        for offset in offsets[::2]:
            beside = deleted + offset
            beside = beside[deep[beside]]
            deep[beside] = False
            uncovered.append(beside)
        border = np.concatenate([border[~deletable], *uncovered])
        quiet = 0 if len(deleted) else quiet + 1
        step += 1
    return padded[1:-1, 1:-1]


def _find_deletable() -> tuple[np.ndarray, np.ndarray]:
    """For each code of neighbours, whether the first and the second step of `thin` delete the pixel."""
    x = [np.arange(256) >> k & 1 == 1 for k in range(8)]
    crossings = sum((~x[k] & (x[k + 1] | x[(k + 2) % 8])).astype(int) for k in (0, 2, 4, 6))
    one_way = sum((x[k] | x[k - 1]).astype(int) for k in (0, 2, 4, 6))
    other_way = sum((x[k] | x[k + 1]).astype(int) for k in (0, 2, 4, 6))
    fewest = np.minimum(one_way, other_way)
    simple = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    return simple & ~((x[1] | x[2] | ~x[7]) & x[0]), simple & ~((x[5] | x[6] | ~x[3]) & x[4])


_DELETABLE = _find_deletable()


@dataclass(frozen=True)
class _Graph:
    """Skeleton pixels as a graph, in parts: paths of pixels with up to two neighbours, and branch points."""

    positions: np.ndarray  # (P, 2) float64
    degrees: np.ndarray  # (P,) number of neighbours
    branching: np.ndarray  # (P,) bool, pixels of branch points
    part: np.ndarray  # (P,) int, number of each pixel's part
    lengths: np.ndarray  # of each part, from pixel to pixel, with its links
    calibres: np.ndarray  # of each path, the widest of where it branches off and ends
    edges: tuple[np.ndarray, np.ndarray]  # neighbours within a part
    links: tuple[np.ndarray, np.ndarray]  # pixels of paths and of branch points that are neighbours
    link_calibres: np.ndarray

    def count_links(self) -> np.ndarray:
        return np.bincount(self.part[self.links[0]], minlength=len(self.lengths))


def _prune(pixels: np.ndarray, vessel: np.ndarray) -> _Graph:
    """Cut spurs off and specks out until there are none, then merge branch points that are near to each other."""
    index = np.full(vessel.size, -1, np.int32)
    while True:
        edges, lengths = _find_neighbours(pixels, vessel.shape[1], index)
        degrees = np.bincount(np.concatenate(edges), minlength=len(pixels))
        positions = np.stack(np.divmod(pixels, vessel.shape[1]), axis=1).astype(float)
        graph = _find_parts(positions, degrees, degrees > 2, edges, lengths, vessel)
        short = graph.lengths < graph.calibres
        kept = graph.branching | ~(short & (graph.count_links() < 2))[graph.part]
        if kept.all():
            break
        pixels = pixels[kept]
    branching = graph.branching | short[graph.part]
    return _find_parts(positions, degrees, branching, edges, lengths, vessel)


def _find_neighbours(pixels: np.ndarray, width: int, index: np.ndarray) -> tuple[tuple, np.ndarray]:
    """Pairs of neighbouring pixels and their distance; diagonal ones only where no third pixel is beside both."""
    index[pixels] = np.arange(len(pixels))
    right, below, left = (index[pixels + offset] for offset in (1, width, -1))
    below_right = np.where((right < 0) & (below < 0), index[pixels + width + 1], -1)
    below_left = np.where((left < 0) & (below < 0), index[pixels + width - 1], -1)
    index[pixels] = -1
    neighbours = np.stack([right, below, below_right, below_left])
    direction, first = np.nonzero(neighbours >= 0)
    return (first, neighbours[direction, first]), np.where(direction < 2, 1.0, math.sqrt(2))


def _find_parts(
    positions: np.ndarray,
    degrees: np.ndarray,
    branching: np.ndarray,
    edges: tuple[np.ndarray, np.ndarray],
    edge_lengths: np.ndarray,
    vessel: np.ndarray,
) -> _Graph:
    one, other = edges
    within = branching[one] == branching[other]
    inner = one[within], other[within]
    pixel_count = len(positions)
    matrix = sparse.coo_array((np.ones(len(inner[0]), np.int8), inner), shape=(pixel_count, pixel_count))
    count, part = csgraph.connected_components(matrix, directed=False)
    one, other = one[~within], other[~within]
    links = np.where(branching[one], other, one), np.where(branching[one], one, other)
    paths = np.concatenate([part[inner[0]], part[links[0]]])
    lengths = np.bincount(paths, weights=np.concatenate([edge_lengths[within], edge_lengths[~within]]), minlength=count)
    ends = np.flatnonzero((degrees < 2) & ~branching)
    where = np.concatenate([links[1], ends])
    widths = 2 * _find_radii(positions[where], vessel)
    calibres = np.zeros(count)
    np.maximum.at(calibres, part[np.concatenate([links[0], ends])], widths)
    return _Graph(positions, degrees, branching, part, lengths, calibres, inner, links, widths[: len(links[0])])


def _find_radii(points: np.ndarray, vessel: np.ndarray) -> np.ndarray:
    """Radius of the greatest disc round each point that lies inside the vessel, px."""
    radii = np.zeros(len(points))
    growing, step = np.arange(len(points)), 0
    while len(growing):
        circles = points[growing, None] + (step + 0.5) * _STEP_PX * _CIRCLE
        rows, columns = np.moveaxis(np.rint(circles).astype(np.intp), -1, 0)
        out = ~vessel[rows, columns].all(axis=1)
        radii[growing[out]] = step * _STEP_PX
        growing, step = growing[~out], step + 1
    return radii


def _cast_rays(points: np.ndarray, directions: np.ndarray, vessel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each ray stays inside the vessel, px, and the flat number of the pixel that ends it."""
    inside, width = vessel.reshape(-1), vessel.shape[1]
    reach, ended = np.zeros(len(points)), np.zeros(len(points), np.intp)
    running, step = np.arange(len(points)), 0
    while len(running):
        rows, columns = np.rint(points[running] + (step + 0.5) * _STEP_PX * directions[running]).astype(np.intp).T
        at = rows * width + columns
        out = ~inside[at]
        reach[running[out]] = step * _STEP_PX
        ended[running[out]] = at[out]
        running, step = running[~out], step + 1
    return reach, ended


def _measure(graph: _Graph, vessel: np.ndarray, field: np.ndarray) -> Centrelines:
    diameter_px = field_diameter_px(field)
    sigma = max(LEAST_SMOOTHING_PX, SMOOTHING * diameter_px)
    curvature_sigma = max(LEAST_CURVATURE_SMOOTHING_PX, CURVATURE_SMOOTHING * diameter_px)

    traced, sizes, nodes, free = _trace(graph)
    lasts = np.cumsum(sizes) - 1
    firsts = lasts - sizes + 1
    segments = np.repeat(np.arange(len(sizes)), sizes)
    points = _smooth(traced, sizes, sigma)
    gaps = np.hypot(*np.diff(points, axis=0).T)
    gaps[lasts[:-1]] = 0  # from one segment to the next
    steps = (np.append(gaps, 0) + np.append(0, gaps))[: len(points)] / 2
    along = np.append(0, np.cumsum(gaps))[: len(points)]
    from_first, to_last = along - along[firsts][segments], along[lasts][segments] - along

    slopes = _smooth(traced, sizes, sigma, order=1)
    directions = slopes / np.maximum(np.hypot(*slopes.T), 1e-9)[:, None]
    normals = np.stack([-directions[:, 1], directions[:, 0]], axis=1)
    widths = np.zeros(len(graph.lengths) + 1)  # of branch points, by part; the last, which is number -1, of none
    np.maximum.at(widths, graph.part[graph.links[1]], graph.link_calibres)
    clear = np.flatnonzero((from_first >= widths[nodes[0]][segments]) & (to_last >= widths[nodes[1]][segments]))
    # Every second chord half-way to the next point: along a diagonal all points lie alike on the pixels' staircase.
    origins = points.copy()
    origins[1:-1:2] = (points[1:-1:2] + points[2::2]) / 2
    origins[lasts] = points[lasts]
    calibres = np.full(len(points), np.nan)
    calibres[clear] = 0
    for side in (1, -1):
        reach, ended = _cast_rays(origins[clear], side * normals[clear], vessel)
        calibres[clear] += np.where(field.reshape(-1)[ended], reach, np.nan)

    # The angle by which the line turns per length: unlike a quotient of derivatives it stays bounded at a kink. Ends do
    # not count, so that short segments need not be smoothed, of which a poor mask has thousands.
    away = np.minimum(from_first, to_last) >= 2 * curvature_sigma
    long = np.bincount(segments[away], minlength=len(sizes)) > 0
    on_long = np.flatnonzero(long[segments])
    ahead = np.diff(_smooth(traced[on_long], sizes[long], curvature_sigma), axis=0, append=0)
    (dy, dx), (next_dy, next_dx) = np.roll(ahead, 1, axis=0).T, ahead.T
    curvatures = np.full(len(points), np.nan)
    curvatures[on_long] = np.abs(np.arctan2(dx * next_dy - dy * next_dx, dx * next_dx + dy * next_dy))
    curvatures[~away] = np.nan
    curvatures[away] /= np.maximum(steps[away], 1e-9)

    tips = np.concatenate([firsts[free[0]], lasts[free[1]]])
    outward = np.concatenate([-directions[firsts[free[0]]], directions[lasts[free[1]]]])
    # A vessel that leaves the field does not end there. Thinning bends its tip into a corner of the cut, where one ray
    # could end at the vessel's side: a fan of them does not miss the rim.
    inside = np.ones(len(tips), bool)
    for angle in np.radians(END_FAN_DEGREES):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        inside &= field.reshape(-1)[_cast_rays(points[tips], outward @ turn.T, vessel)[1]]
    branches = np.bincount(nodes[nodes >= 0], minlength=len(graph.lengths)) > 2
    return Centrelines(
        points=points - 1,
        segments=segments,
        steps_px=steps,
        calibres_px=calibres,
        curvatures_per_px=curvatures,
        lengths_px=np.bincount(segments, weights=steps, minlength=len(sizes)),
        chords_px=np.hypot(*(points[lasts] - points[firsts]).T),
        middles=points[(firsts + lasts) // 2] - 1,
        branch_points=_find_centres(graph)[branches] - 1,
        end_points=points[tips[inside]] - 1,
    )


def _trace(graph: _Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Put the pixels of each path in order, between the branch points at its ends.

    Returns
    -------
    points, sizes, nodes, free
        (N, 2) path after path; (S,) points of each; (2, S) the branch points' parts at its first and last point, -1
        for none; (2, S) bool, whether the path just ends there.
    """
    count, part, (paths, branches) = len(graph.part), graph.part, graph.links
    starts = np.full(len(graph.lengths), -1)
    on_path = np.flatnonzero(~graph.branching)
    ends = on_path[graph.degrees[on_path] < 2]
    for pixels in (on_path, ends, paths):  # a ring starts anywhere, others at an end, best at a branch point
        starts[part[pixels]] = pixels
    starts = starts[starts >= 0]
    one, other = (side[~graph.branching[graph.edges[0]]] for side in graph.edges)
    root = np.full(len(starts), count)
    pairs = np.concatenate([one, other, root]), np.concatenate([other, one, starts])
    matrix = sparse.coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(count + 1, count + 1)).tocsr()
    # From a root before all starts, depth first runs each path to its end before it takes the next.
    order = csgraph.depth_first_order(matrix, count, return_predecessors=False)[1:]

    first = np.flatnonzero(np.diff(part[order], prepend=-1))
    sizes = np.diff(first, append=len(order))
    segment, place = np.zeros(len(graph.lengths), int), np.zeros(count, int)
    segment[part[order[first]]] = np.arange(len(first))
    place[order] = np.arange(len(order))

    nodes = np.full((2, len(first)), -1)
    by_place = np.argsort(place[paths], kind="stable")
    linked, at = segment[part[paths[by_place]]], part[branches[by_place]]
    is_first = np.diff(linked, prepend=-1) > 0
    nodes[0, linked[is_first]] = at[is_first]
    nodes[1, linked[~is_first]] = at[~is_first]
    free = (nodes < 0) & (graph.degrees[order[np.stack([first, first + sizes - 1])]] < 2)

    whole = sizes + (nodes >= 0).sum(axis=0)
    begin = np.cumsum(whole) - whole
    points = np.empty((whole.sum(), 2))
    points[np.arange(len(order)) + np.repeat(begin + (nodes[0] >= 0) - first, sizes)] = graph.positions[order]
    centres = _find_centres(graph)
    for side, at in ((0, begin), (1, begin + whole - 1)):
        there = nodes[side] >= 0
        points[at[there]] = centres[nodes[side, there]]
    return points, whole, nodes, free


def _find_centres(graph: _Graph) -> np.ndarray:
    """The middle of each part, (parts, 2)."""
    count = np.bincount(graph.part, minlength=len(graph.lengths))
    sums = [np.bincount(graph.part, weights=axis, minlength=len(count)) for axis in graph.positions.T]
    return np.stack(sums, axis=1) / count[:, None]


def _smooth(points: np.ndarray, sizes: np.ndarray, sigma: float, order: int = 0) -> np.ndarray:
    """Smooth each segment by a Gaussian over its points, or differentiate it so; its ends stay where they are."""
    margin = math.ceil(4 * sigma)
    wide = sizes + 2 * margin
    segment = np.repeat(np.arange(len(sizes)), wide)
    at = np.arange(len(segment)) - (np.cumsum(wide) - wide)[segment] - margin
    last, first = (sizes - 1)[segment], (np.cumsum(sizes) - sizes)[segment]
    inside = np.clip(at, 0, last)
    mirrored = np.clip(2 * inside - at, 0, last)  # through the end point, which so has as much on either side
    values = 2 * points[first + inside] - points[first + mirrored]
    return ndimage.gaussian_filter1d(values, sigma, axis=0, order=order, mode="nearest")[inside == at]
