"""The public data sets that a model may have been trained or scored on: full names, papers, terms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A data set as its publishers describe it."""

    title: str
    paper: str  # authors, year and DOI
    terms: str


SOURCES = {
    "drive": Source("DRIVE", "Staal et al. 2004, doi:10.1109/TMI.2004.825627", "research and education only"),
    "chase_db1": Source("CHASE_DB1", "Fraz et al. 2012, doi:10.1109/TBME.2012.2205687", "CC BY 4.0"),
    "hrf": Source("HRF", "Budai et al. 2013, doi:10.1155/2013/154860", "CC BY 4.0"),
    "les_av": Source("LES-AV", "Orlando et al. 2018, doi:10.1007/978-3-030-00934-2_8", "CC BY 4.0"),
    "stare": Source("STARE", "Hoover et al. 2000, doi:10.1109/42.845178", "no stated licence"),
    "fives": Source("FIVES", "Jin et al. 2022, doi:10.1038/s41597-022-01564-3", "CC BY 4.0"),
    "drawn": Source("drawn photographs", "resegnet.learning.synthetic", "no photograph, CC0"),
}
