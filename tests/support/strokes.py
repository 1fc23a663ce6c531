"""Drawn vessels whose length, width and course are known."""

import math

import numpy as np
from scipy.spatial import cKDTree

SIDE = 320


def stroke(points, width, side=SIDE):
    """A round pen along (N, 2) points (row, column): the pixels that it covers by half or more, of 5 x 5 parts."""
    pen = cKDTree(points)
    pixels = np.argwhere(np.ones((side, side), bool))
    distances = pen.query(pixels, distance_upper_bound=width / 2 + 1)[0]
    mask = distances < width / 2 - 1
    edge = np.flatnonzero(np.isfinite(distances) & ~mask)
    parts = np.stack(np.meshgrid(*2 * [np.arange(5) / 5 - 2 / 5], indexing="ij"), axis=-1).reshape(-1, 2)
    covered = pen.query((pixels[edge][:, None] + parts).reshape(-1, 2))[0].reshape(len(edge), -1) <= width / 2
    mask[edge] = covered.mean(axis=1) >= 0.5
    return mask.reshape(side, side)


def line(angle, length=240, middle=(SIDE / 2 + 0.3, SIDE / 2 + 0.1)):
    direction = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    return middle + np.linspace(-length / 2, length / 2, 1000)[:, None] * direction


def arc(radius, angle, turned=20):
    at = np.radians(np.linspace(turned, turned + angle, 1500))
    return SIDE / 2 + 0.2 + radius * np.stack([np.sin(at), np.cos(at)], axis=1)


def wave(amplitude, period, length=260, turned=0):
    along = np.linspace(-length / 2, length / 2, 1500)
    points = np.stack([amplitude * np.sin(2 * np.pi * along / period), along], axis=1)
    sine, cosine = math.sin(math.radians(turned)), math.cos(math.radians(turned))
    return SIDE / 2 + 0.2 + points @ np.array([[cosine, -sine], [sine, cosine]])


def arc_and_chord(points):
    return np.hypot(*np.diff(points, axis=0).T).sum(), np.hypot(*(points[-1] - points[0]))
