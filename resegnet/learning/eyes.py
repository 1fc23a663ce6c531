"""Finding photographs of one eye by their vessel masks, although turned, mirrored, rescaled or squeezed.

The fingerprint of a vessel mask is its density on a polar grid about the centroid of its pixels, in units of their
spread, so that neither scale nor aspect matters. Two fingerprints are compared at every angle, and mirrored.

Measured on the 365 photographs of DRIVE, CHASE_DB1, HRF, DR-HAGIS, ARIA, ORVS and LES-AV: the fingerprints of different
eyes have a similarity of at most 0.78 (DR-HAGIS 12 and 28). DRIVE's eyes mirrored, or turned by up to 45 degrees, and
squeezed to 512 x 512 px, have 0.96 or more among each other. Two visits of one eye may lie on either side of the
limit: three pairs of ORVS have 0.82, 0.86 and 0.90. A mask takes 3 ms at 512 x 512 px and 8 ms at 15 megapixels.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from datasets import Dataset
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.sparse.csgraph import connected_components

EYE_COLUMN = "eye"  # of the data sets that `load_vessels` returns: the bytes of the fingerprint
SAME_EYE = 0.85  # similarity from which two photographs count as one eye

_RINGS, _ANGLES = 16, 64
_RADIUS = 2.0  # of the grid, in standard deviations; that of an evenly filled disc
_BLUR = 0.1  # in the same unit
_WORKING_PX = 128  # the longer side is reduced to between this and twice this
_SMALLEST_PX = 64  # a smaller picture shows too little of an eye to know it by
_LEVELS = 16  # of the density: four bits
_MIN_ASPECT = 0.2  # of the spread of the pixels: a few short vessels say nothing about the eye
_PAIRS_AT_ONCE = 2000  # keeps their spectra below 50 MB


def fingerprint(vessels: np.ndarray) -> np.ndarray:
    """Return the fingerprint of an eye.

    Parameters
    ----------
    vessels
        (H, W) bool, True on a vessel.

    Returns
    -------
    fingerprint
        (16, 64) uint8 from 0 to 15, one row for each ring of the polar grid. All 0 where the mask holds too little.
    """
    nothing = np.zeros((_RINGS, _ANGLES), np.uint8)
    if max(vessels.shape) < _SMALLEST_PX:
        return nothing
    picture = Image.fromarray(vessels.view(np.uint8) * np.uint8(255))
    density = np.asarray(picture.reduce(max(1, max(vessels.shape) // (2 * _WORKING_PX))), np.float32)
    total = density.sum()
    if not total:
        return nothing
    y, x = (np.arange(side, dtype=np.float32) for side in density.shape)
    rows, columns = density.sum(axis=1) / total, density.sum(axis=0) / total
    y, x = y - rows @ y, x - columns @ x
    covariance = y @ density @ x / total
    variances, axes = np.linalg.eigh([[rows @ y**2, covariance], [covariance, columns @ x**2]])
    if variances[0] < max(1.0, _MIN_ASPECT**2 * variances[1]):
        return nothing
    spread = (axes * np.sqrt(variances)) @ axes.T
    blurred = gaussian_filter(density, _BLUR * variances.prod() ** 0.25)
    # Rings of equal area: each counts alike.
    radius = _RADIUS * np.sqrt((np.arange(_RINGS) + 0.5) / _RINGS)
    angle = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    grid = np.tensordot(spread, [np.outer(radius, np.sin(angle)), np.outer(radius, np.cos(angle))], axes=1)
    polar = map_coordinates(blurred, [grid[0] - y[0], grid[1] - x[0]], order=1)
    return np.round(polar * ((_LEVELS - 1) / max(float(polar.max()), 1e-6))).astype(np.uint8)


def similarity(ones: np.ndarray, others: np.ndarray, at_least: float = 0.0) -> np.ndarray:
    """Compare fingerprints, each of the first with each of the second.

    Parameters
    ----------
    ones, others
        (N, 16, 64) and (M, 16, 64) uint8, from `fingerprint`.
    at_least
        Similarities below this are not needed: most become 0, which takes a tenth of the time.

    Returns
    -------
    similarity
        (N, M) float32 up to 1: the highest correlation over all angles, as they are and mirrored. 0 with a fingerprint
        that is all 0.
    """
    spectra, other_spectra = _spectra(ones), _spectra(others)
    # The amplitudes do not change when an eye is turned or mirrored; their product bounds the correlation.
    amplitudes, other_amplitudes = (
        np.abs(part).reshape(len(part), _RINGS * (_ANGLES // 2 + 1)) for part in (spectra, other_spectra)
    )
    result = np.zeros((len(ones), len(others)), np.float32)
    pairs = np.argwhere(2 * amplitudes @ other_amplitudes.T >= at_least)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        row, column = pairs[start : start + _PAIRS_AT_ONCE].T
        one, other = spectra[row].conj(), other_spectra[column]
        for turned in (other, other.conj()):  # the conjugate belongs to the mirrored eye
            correlation = np.fft.irfft((one * turned).sum(axis=1), n=2 * _ANGLES).max(axis=1) * (2 * _ANGLES)
            result[row, column] = np.maximum(result[row, column], correlation)
    return result


def _spectra(fingerprints: np.ndarray) -> np.ndarray:
    """Return the spectra over the angle, (N, 16, 33) complex64, without the means of the rings, of unit power."""
    spectra = np.fft.rfft(fingerprints.astype(np.float32), axis=2)
    spectra[:, :, [0, -1]] = 0
    power = np.sqrt(2 * (np.abs(spectra) ** 2).sum(axis=(1, 2), keepdims=True))
    return (spectra / np.maximum(power, 1e-6)).astype(np.complex64)


def same_eye(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether fingerprints, (N, 16, 64) and (M, 16, 64) uint8, belong to one eye, as (N, M) bool."""
    return similarity(ones, others, at_least=SAME_EYE) >= SAME_EYE


def eye_numbers(fingerprints: np.ndarray) -> np.ndarray:
    """Number the eyes of photographs.

    Parameters
    ----------
    fingerprints
        (N, 16, 64) uint8.

    Returns
    -------
    numbers
        (N,) int, equal for photographs of one eye, also if only a third photograph links them.
    """
    return connected_components(same_eye(fingerprints, fingerprints), directed=False)[1]


def fingerprints_of(rows: Dataset) -> np.ndarray:
    """Return the fingerprints, (N, 16, 64) uint8, of rows of `load_vessels`."""
    return np.frombuffer(b"".join(rows[EYE_COLUMN]), np.uint8).reshape(-1, _RINGS, _ANGLES)


def to_text(fingerprint: np.ndarray) -> str:
    """Return a fingerprint as text for JSON: two values in a byte, in base64."""
    values = fingerprint.reshape(-1, 2)
    return base64.b64encode(((values[:, 0] << 4) | values[:, 1]).tobytes()).decode()


def from_texts(texts: list[object]) -> np.ndarray:
    """Return the fingerprints, (N, 16, 64) uint8, of what `to_text` returned. Anything else is left out."""
    found = []
    for text in texts:
        try:
            packed = np.frombuffer(base64.b64decode(str(text), validate=True), np.uint8)
        except (binascii.Error, ValueError):
            continue
        if len(packed) == _RINGS * _ANGLES // 2:
            found.append(np.stack([packed >> 4, packed & 15], axis=1).reshape(_RINGS, _ANGLES))
    return np.array(found, np.uint8).reshape(-1, _RINGS, _ANGLES)
