"""Trace the centrelines of a vessel mask: segments between branch points and ends, with length, calibre, curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from resegnet.results.calibres import cast_rays, find_radii, measure_calibres
from resegnet.results.thinning import thin_padded

# Standard deviation of a Gaussian over the coordinates, as a share of the field's diameter and at least in px. Pixel
# steps make a line up to 8 % too long; smoothed by 2 px it is 0.3 % too long, and an arc of 20 px radius loses 0.5 %.
# The share makes lengths independent of the size to which a reference was scaled.
SMOOTHING, MIN_SMOOTHING_PX = 0.003, 2.0

# The same for the curvature, on which pixel steps have more effect. A straight line then has at most 0.006 rad/px, and
# an arc of 50 px radius has its 0.02 to within 5 %.
CURVATURE_SMOOTHING, MIN_CURVATURE_SMOOTHING_PX = 0.01, 5.0

END_FAN_DEGREES = (0, -30, 30, -60, 60)  # rays from a tip, about its direction


@dataclass(frozen=True, eq=False)
class Tree:
    """The N points of the centrelines of a mask on S segments. Coordinates are (row, column) in its frame, px.

    A segment runs from a branch point or end to the next. Points lie about 1 px apart, segment after segment.
    """

    points: np.ndarray  # (N, 2) float64, smoothed to fractions of a pixel
    segments: np.ndarray  # (N,) int, number of each point's segment, ascending from 0
    steps_px: np.ndarray  # (N,) float64, the length that each point stands for
    clear: np.ndarray  # (N,) bool, farther from each branch point than the calibre there
    lengths_px: np.ndarray  # (S,) float64
    nodes: np.ndarray  # (S, 2) int, number of the node where each segment begins and ends; -1 for a free end
    node_points: np.ndarray  # (K, 2) float64, branch points and joints of two segments
    node_calibres_px: np.ndarray  # (K,) float64


@dataclass(frozen=True, eq=False)
class Centrelines(Tree):
    """The centrelines of a mask, and what is measured on them."""

    calibres_px: np.ndarray  # (N,) float64; nan where it is not measured, see `find_centrelines`
    curvatures_per_px: np.ndarray  # (N,) float64, without sign; nan near the ends of segments
    chords_px: np.ndarray  # (S,) float64, distance between both ends; 0 if they are the same point
    middles: np.ndarray  # (S, 2) float64, the point half-way along each segment
    branch_points: np.ndarray  # (B, 2) float64
    end_points: np.ndarray  # (E, 2) float64, without those of vessels that leave the field


@dataclass(frozen=True, eq=False)
class Trace:
    """A tree and what `measure_trace` needs beside it. The points here are in the frame of the padded mask."""

    tree: Tree
    vessel: np.ndarray  # the padded mask, (H + 2, W + 2) bool, without holes
    points: np.ndarray  # (N, 2) float64, smoothed
    traced: np.ndarray  # (N, 2) float64, not smoothed
    sizes: np.ndarray  # (S,) int, points of each segment
    free: np.ndarray  # (2, S) bool, whether the segment just ends at its first and last point
    to_end_px: np.ndarray  # (N,) float64, length to the nearer end of the segment
    diameter_px: float  # of the field


def find_centrelines(mask: np.ndarray, fov: np.ndarray) -> Centrelines:
    """Thin the vessels to their centrelines, trace them and measure them.

    The calibre is the chord of the mask at right angles to the centreline. It is not measured within one calibre of a
    branch point, since the chord would run into the other vessel, nor where it reaches the rim of the field, nor where
    it is longer than twice the median of its segment plus 3 px: there it runs along another vessel.

    Parameters
    ----------
    mask, fov : (H, W) bool
        Vessels and field of view. Pixels outside the field do not count.
    """
    return measure_trace(trace_vessels(mask, fov), fov)


def trace_vessels(mask: np.ndarray, fov: np.ndarray) -> Trace:
    """Thin the vessels to their centrelines and trace them.

    A part that is shorter than the vessel is wide there is no vessel of its own: spurs are cut off, specks are left
    out, and branch points so near to one another count as one, for example where two vessels cross. A hole of few
    pixels, which smoothing would hide, does not part a vessel in two.

    Parameters
    ----------
    mask, fov : (H, W) bool
        Vessels and field of view. Pixels outside the field do not count.
    """
    diameter_px = field_diameter_px(fov)
    sigma = max(MIN_SMOOTHING_PX, SMOOTHING * diameter_px)
    vessel = _fill_holes(np.pad(mask & fov, 1), sigma**2) & np.pad(fov, 1)  # padded, so that every ray ends
    graph = _prune(thin_padded(vessel), vessel)
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
    # Calibre of each branch point, by part. The last element stands for the number -1: no branch point.
    widths = np.zeros(len(graph.lengths) + 1)
    np.maximum.at(widths, graph.part[graph.links[1]], graph.link_calibres)
    joined = np.unique(nodes[nodes >= 0])
    tree = Tree(
        points=points - 1,
        segments=segments,
        steps_px=steps,
        clear=(from_first >= widths[nodes[0]][segments]) & (to_last >= widths[nodes[1]][segments]),
        lengths_px=np.bincount(segments, weights=steps, minlength=len(sizes)),
        nodes=np.where(nodes < 0, -1, np.searchsorted(joined, nodes)).T,
        node_points=_find_centres(graph)[joined] - 1,
        node_calibres_px=widths[joined],
    )
    return Trace(tree, vessel, points, traced, sizes, free, np.minimum(from_first, to_last), diameter_px)


def _fill_holes(vessel: np.ndarray, largest_px: float) -> np.ndarray:
    """Fill holes of at most `largest_px` pixels in a mask, (H, W) bool, whose first row and column are False."""
    parts, _ = ndimage.label(~vessel)
    small = np.bincount(parts.ravel()) <= largest_px
    small[[0, parts[0, 0]]] = False  # the vessels, and what lies around them
    return vessel | small[parts]


def field_diameter_px(fov: np.ndarray) -> float:
    """Return the diameter of a disc that has the area of the field of view, (H, W) bool."""
    return math.sqrt(4 / math.pi * np.count_nonzero(fov))


@dataclass(frozen=True)
class _Graph:
    """P skeleton pixels as a graph, in Q parts: paths of pixels with up to two neighbours, and branch points."""

    positions: np.ndarray  # (P, 2) float64
    degrees: np.ndarray  # (P,) int, number of neighbours
    branching: np.ndarray  # (P,) bool, pixels of branch points
    part: np.ndarray  # (P,) int, number of each pixel's part
    lengths: np.ndarray  # (Q,) float64, from pixel to pixel, with the links
    calibres: np.ndarray  # (Q,) float64, the greatest calibre at the ends of each path
    edges: tuple[np.ndarray, np.ndarray]  # pairs of neighbours within a part
    links: tuple[np.ndarray, np.ndarray]  # pairs of neighbours: a pixel of a path, a pixel of a branch point
    link_calibres: np.ndarray  # calibre at each link

    def count_links(self) -> np.ndarray:
        """Return the number of links of each part, (Q,) int."""
        return np.bincount(self.part[self.links[0]], minlength=len(self.lengths))


@dataclass(frozen=True)
class _Skeleton:
    """P skeleton pixels and their pairs of neighbours."""

    positions: np.ndarray  # (P, 2) float64
    degrees: np.ndarray  # (P,) int, number of neighbours
    edges: tuple[np.ndarray, np.ndarray]
    edge_lengths: np.ndarray
    radii: np.ndarray  # (P,) float64, see `find_radii`; nan where it was not needed yet


def _prune(pixels: np.ndarray, vessel: np.ndarray) -> _Graph:
    """Remove spurs and specks until there are none, then merge branch points that are near to each other."""
    index = np.zeros(vessel.size, np.int32)
    radii = np.full(len(pixels), np.nan)
    while True:
        edges, lengths = _find_neighbours(pixels, vessel.shape[1], index)
        degrees = np.bincount(np.concatenate(edges), minlength=len(pixels))
        positions = np.stack(np.divmod(pixels, vessel.shape[1]), axis=1).astype(float)
        skeleton = _Skeleton(positions, degrees, edges, lengths, radii)
        graph = _find_parts(skeleton, degrees > 2, vessel)
        short = graph.lengths < graph.calibres
        kept = graph.branching | ~(short & (graph.count_links() < 2))[graph.part]
        if kept.all():
            break
        pixels, radii = pixels[kept], radii[kept]
    return _find_parts(skeleton, graph.branching | short[graph.part], vessel)


def _find_neighbours(
    pixels: np.ndarray, width: int, index: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return pairs of neighbouring pixels and their distances; diagonal pairs only if no third pixel is beside both.

    `index`, an int for each pixel of the mask, holds 0 before and after.
    """
    index[pixels] = np.arange(1, len(pixels) + 1)
    right, below, left = (index[pixels + offset] for offset in (1, width, -1))
    below_right = np.where((right == 0) & (below == 0), index[pixels + width + 1], 0)
    below_left = np.where((left == 0) & (below == 0), index[pixels + width - 1], 0)
    index[pixels] = 0
    neighbours = np.stack([right, below, below_right, below_left])
    direction, first = np.nonzero(neighbours)
    return (first, neighbours[direction, first] - 1), np.where(direction < 2, 1.0, math.sqrt(2))


def _find_parts(skeleton: _Skeleton, branching: np.ndarray, vessel: np.ndarray) -> _Graph:
    """Divide the skeleton into paths and branch points, and measure both."""
    (one, other), degrees = skeleton.edges, skeleton.degrees
    within = branching[one] == branching[other]
    inner = one[within], other[within]
    matrix = sparse.coo_array((np.ones(len(inner[0]), np.int8), inner), shape=(len(degrees), len(degrees)))
    count, part = csgraph.connected_components(matrix, directed=False)
    one, other = one[~within], other[~within]
    links = np.where(branching[one], other, one), np.where(branching[one], one, other)
    paths = np.concatenate([part[inner[0]], part[links[0]]])
    edge_lengths = np.concatenate([skeleton.edge_lengths[within], skeleton.edge_lengths[~within]])
    lengths = np.bincount(paths, weights=edge_lengths, minlength=count)
    ends = np.flatnonzero((degrees < 2) & ~branching)
    where = np.concatenate([links[1], ends])
    unknown = np.unique(where)
    unknown = unknown[np.isnan(skeleton.radii[unknown])]
    skeleton.radii[unknown] = find_radii(skeleton.positions[unknown], vessel)
    widths = 2 * skeleton.radii[where]
    calibres = np.zeros(count)
    np.maximum.at(calibres, part[np.concatenate([links[0], ends])], widths)
    link_calibres = widths[: len(links[0])]
    return _Graph(skeleton.positions, degrees, branching, part, lengths, calibres, inner, links, link_calibres)


def measure_trace(trace: Trace, fov: np.ndarray) -> Centrelines:
    """Measure the centrelines that `trace_vessels` made with the same field of view."""
    field = np.pad(fov, 1)
    tree, vessel, points, sizes = trace.tree, trace.vessel, trace.points, trace.sizes
    lasts = np.cumsum(sizes) - 1
    firsts = lasts - sizes + 1
    slopes = _smooth(trace.traced, sizes, max(MIN_SMOOTHING_PX, SMOOTHING * trace.diameter_px), order=1)
    directions = slopes / np.maximum(np.hypot(*slopes.T), 1e-9)[:, None]
    tips = np.concatenate([firsts[trace.free[0]], lasts[trace.free[1]]])
    outward = np.concatenate([-directions[firsts[trace.free[0]]], directions[lasts[trace.free[1]]]])
    ends_inside = tips[_end_inside(points[tips], outward, vessel, field)]
    branches = np.bincount(tree.nodes[tree.nodes >= 0], minlength=len(tree.node_points)) > 2
    sigma = max(MIN_CURVATURE_SMOOTHING_PX, CURVATURE_SMOOTHING * trace.diameter_px)
    away = trace.to_end_px >= 2 * sigma
    return Centrelines(
        **vars(tree),
        calibres_px=measure_calibres(
            points, trace.traced, directions, tree.segments, np.flatnonzero(tree.clear), vessel, field
        ),
        curvatures_per_px=_measure_curvatures(trace.traced, sizes, tree.segments, tree.steps_px, away, sigma),
        chords_px=np.hypot(*(points[lasts] - points[firsts]).T),
        middles=points[(firsts + lasts) // 2] - 1,
        branch_points=tree.node_points[branches],
        end_points=points[ends_inside] - 1,
    )


def _measure_curvatures(
    traced: np.ndarray,
    sizes: np.ndarray,
    segments: np.ndarray,
    steps: np.ndarray,
    away: np.ndarray,
    sigma: float,
) -> np.ndarray:
    """Return the angle by which the line turns per length at the points `away` from the ends, (N,); nan elsewhere.

    Unlike a quotient of derivatives, the angle stays bounded at a kink.
    """
    # Only segments with such points are smoothed: a poor mask has thousands of short ones.
    long = np.bincount(segments[away], minlength=len(sizes)) > 0
    on_long = np.flatnonzero(long[segments])
    ahead = np.diff(_smooth(traced[on_long], sizes[long], sigma), axis=0, append=0)
    (dy, dx), (next_dy, next_dx) = np.roll(ahead, 1, axis=0).T, ahead.T
    curvatures = np.full(len(traced), np.nan)
    curvatures[on_long] = np.abs(np.arctan2(dx * next_dy - dy * next_dx, dx * next_dx + dy * next_dy))
    curvatures[~away] = np.nan
    curvatures[away] /= np.maximum(steps[away], 1e-9)
    return curvatures


def _end_inside(tips: np.ndarray, outward: np.ndarray, vessel: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Return which tips, (T, 2), are ends of vessels and not places where a vessel leaves the field, (T,) bool."""
    # Thinning bends the tip of a vessel that leaves the field into a corner of the cut, where a single ray could end at
    # the vessel's side. A fan of rays does not miss the rim.
    inside = np.ones(len(tips), bool)
    for angle in np.radians(END_FAN_DEGREES):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        inside &= field.reshape(-1)[cast_rays(tips, outward @ turn.T, vessel)[1]]
    return inside


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
    """Return the centre of each part, (Q, 2)."""
    count = np.bincount(graph.part, minlength=len(graph.lengths))
    sums = [np.bincount(graph.part, weights=axis, minlength=len(count)) for axis in graph.positions.T]
    return np.stack(sums, axis=1) / count[:, None]


def _smooth(points: np.ndarray, sizes: np.ndarray, sigma: float, order: int = 0) -> np.ndarray:
    """Smooth each segment by a Gaussian over its points, or take its derivative; the ends keep their places."""
    margin = math.ceil(4 * sigma)
    wide = sizes + 2 * margin
    segment = np.repeat(np.arange(len(sizes)), wide)
    at = np.arange(len(segment)) - (np.cumsum(wide) - wide)[segment] - margin
    last, first = (sizes - 1)[segment], (np.cumsum(sizes) - sizes)[segment]
    inside = np.clip(at, 0, last)
    mirrored = np.clip(2 * inside - at, 0, last)  # point reflection at the end, which keeps its place
    values = 2 * points[first + inside] - points[first + mirrored]
    return ndimage.gaussian_filter1d(values, sigma, axis=0, order=order, mode="nearest")[inside == at]
