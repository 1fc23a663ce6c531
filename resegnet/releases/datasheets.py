"""Datasheets of public data sets for training and scoring: title, paper, terms and address."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Datasheet of one data set, as its publishers describe it."""

    title: str
    paper: str  # authors, year, journal and DOI
    terms: str  # licence, or conditions of use
    url: str = ""


SOURCES = {
    "drive": Source(
        "DRIVE",
        "Staal et al. 2004, IEEE TMI 23(4):501-509, doi:10.1109/TMI.2004.825627",
        "research and education only, no redistribution",
        "https://drive.grand-challenge.org",
    ),
    "chase_db1": Source(
        "CHASE_DB1",
        "Fraz et al. 2012, IEEE TBME 59(9):2538-2548, doi:10.1109/TBME.2012.2205687",
        "CC BY 4.0",
        "https://blogs.kingston.ac.uk/retinal/chasedb1",
    ),
    "stare": Source(
        "STARE",
        "Hoover et al. 2000, IEEE TMI 19(3):203-210, doi:10.1109/42.845178",
        "none stated; free to download for research",
        "https://cecas.clemson.edu/~ahoover/stare",
    ),
    "hrf": Source(
        "HRF",
        "Budai et al. 2013, Int. J. Biomed. Imaging 2013:154860, doi:10.1155/2013/154860",
        "CC BY 4.0",
        "https://www5.cs.fau.de/research/data/fundus-images",
    ),
    "fives": Source(
        "FIVES",
        "Jin et al. 2022, Scientific Data 9:475, doi:10.1038/s41597-022-01564-3",
        "CC BY 4.0",
        "https://doi.org/10.6084/m9.figshare.19688169",
    ),
    "les_av": Source(
        "LES-AV",
        "Orlando et al. 2018, MICCAI, doi:10.1007/978-3-030-00934-2_8",
        "CC BY 4.0",
        "https://doi.org/10.1007/978-3-030-00934-2_8",
    ),
    "idrid": Source(
        "IDRiD",
        "Porwal et al. 2018, Data 3(3):25, doi:10.3390/data3030025",
        "CC BY 4.0",
        "https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    ),
    "synthetic": Source("synthetic photographs", "drawn by resegnet.synthetic, without any patient", "CC0"),
}
