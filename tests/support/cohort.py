"""Readers of what a run over a cohort wrote, and the command round a slow network."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


SLOW = """
import sys, time
import numpy as np
from resegnet import Config, Segmenter
from resegnet.__main__ import main

def network(rgb):
    time.sleep(0.05)
    return np.ascontiguousarray(1 - rgb[:, 1])

segmenter = Segmenter(network, Config(input_size=96, threshold=0.7), "slow")
Segmenter.from_pretrained = lambda *_, **__: segmenter
sys.argv.insert(1, "segment")
sys.exit(main())
"""
