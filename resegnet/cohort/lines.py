"""The lines that the command line prints while a cohort is segmented, and at its end."""

from __future__ import annotations

import sys
import time

from resegnet.cohort.photograph import Photograph
from resegnet.cohort.run import Counts
from resegnet.cohort.tables import TABLE
from resegnet.cohort.work import CohortOptions, Outcome

MAX_LINES = 20  # for more photographs than this, only failures are printed one by one
PROGRESS_S = 30  # between two lines of progress


class Teller:
    """Prints the outcomes of a cohort: each success if they are few, else lines of progress; each failure.

    `segment_cohort` shows a bar on a terminal. Elsewhere, for example in the log of a batch system, a line of progress
    follows every 30 seconds.

    Parameters
    ----------
    folder
        Folder or address of the results.
    count
        Number of photographs.
    """

    def __init__(self, folder: str, count: int) -> None:
        self._folder = folder
        self._count = count
        self._done = 0
        self._failed = 0
        self._began = self._told = time.monotonic()

    def __call__(self, photograph: Photograph, outcome: Outcome) -> None:
        """Print what is to be said of one photograph."""
        self._done += 1
        row = outcome.row
        if row is None:
            self._failed += 1
            print(f"resegnet: {photograph.id}: {outcome.error}", file=sys.stderr)
        elif self._count <= MAX_LINES:
            density = row["vessel_density"]
            share = "no field of view" if density is None else f"{density:.1%} of the field of view"
            print(f"{photograph.source}: vessels in {share}, {self._folder}/{row['mask']}")
            if row["warnings"]:
                print(f"  warning: {row['warnings']}")
        now = time.monotonic()
        if self._count > MAX_LINES and now - self._told >= PROGRESS_S and not sys.stderr.isatty():
            self._told = now
            print(self._progress(now - self._began), flush=True)

    def _progress(self, passed_s: float) -> str:
        minutes = passed_s / self._done * (self._count - self._done) / 60
        left = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        failed = f", {self._failed} of them failed" if self._failed else ""
        return f"{self._done} of {self._count} photographs{failed}, about {left} left"


def summary_lines(counts: Counts, options: CohortOptions, folder: str) -> list[str]:
    """Return the lines at the end: what is done, how many photographs have warnings, and a doubt about the scale."""
    # With other options than before, nothing is kept, which takes longer than the user may expect.
    kept = f" ({counts.kept} kept from before, {counts.done - counts.kept} made now)" if options.resume else ""
    failed = f", {counts.failed} failed, see failures.csv" if counts.failed else ""
    table = f"; table: {folder}/{TABLE}" if counts.done else ""
    lines = [f"{counts.done} of {counts.done + counts.failed} done{kept}{failed}{table}"]
    if counts.warned:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(counts.warnings.items()))
        lines.append(f"{counts.warned} with warnings ({codes}): see the columns warning_codes and warnings")
    if counts.is_scale_doubtful and counts.sides_px is not None:
        least, greatest = counts.sides_px
        lines.append(
            f"note: photographs of {least} to {greatest} px share --um-per-px {options.um_per_px:g}, which fits only "
            "photographs of one camera at one size: give each its own scale in a table with a column um_per_px"
        )
    return lines
