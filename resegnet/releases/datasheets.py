"""Datasheets of public data sets for training and scoring: title, paper, terms, camera, eyes, and what to know."""

from __future__ import annotations

from dataclasses import dataclass

_RESEARCH = "published for research, no licence text found; cite"


@dataclass(frozen=True)
class Source:
    """Datasheet of one data set, as its publishers describe it.

    Attributes
    ----------
    title
        Name of the data set.
    paper
        Authors, year, journal and DOI.
    terms
        Licence, or conditions of use.
    url
        Address of its publishers, or of the paper where their own is gone; "" for none.
    camera
        Camera and field; "" where not known.
    eyes
        Number of photographs, and whose eyes they show.
    notes
        What a reader of scores, or someone who trains on the set, has to know. Whole sentences.
    """

    title: str
    paper: str
    terms: str
    url: str = ""
    camera: str = ""
    eyes: str = ""
    notes: tuple[str, ...] = ()


SOURCES = {
    "drive": Source(
        "DRIVE",
        "Staal et al. 2004, IEEE TMI 23(4):501-509, doi:10.1109/TMI.2004.825627",
        "research and education only, no redistribution",
        "https://drive.grand-challenge.org",
        camera="Canon CR5, 45 degrees, 565 x 584 px",
        eyes="40 of a screening for diabetic retinopathy, 7 with mild signs of it",
    ),
    "chase_db1": Source(
        "CHASE_DB1",
        "Fraz et al. 2012, IEEE TBME 59(9):2538-2548, doi:10.1109/TBME.2012.2205687",
        "CC BY 4.0",
        "https://blogs.kingston.ac.uk/retinal/chasedb1",
        camera="Nidek NM-200-D, 30 degrees, 999 x 960 px",
        eyes="28, both of 14 children",
        notes=("The publishers give no fields of view.",),
    ),
    "stare": Source(
        "STARE",
        "Hoover et al. 2000, IEEE TMI 19(3):203-210, doi:10.1109/42.845178",
        "none stated; free to download for research",
        "https://cecas.clemson.edu/~ahoover/stare",
        camera="Topcon TRV-50, film, 35 degrees, 700 x 605 px",
        eyes="20, half of them with disease",
    ),
    "hrf": Source(
        "HRF",
        "Budai et al. 2013, Int. J. Biomed. Imaging 2013:154860, doi:10.1155/2013/154860",
        "CC BY 4.0",
        "https://www5.cs.fau.de/research/data/fundus-images",
        camera="Canon CR-1, 60 degrees, 3504 x 2336 px",
        eyes="45: 15 healthy, 15 with diabetic retinopathy, 15 with glaucoma",
    ),
    "fives": Source(
        "FIVES",
        "Jin et al. 2022, Scientific Data 9:475, doi:10.1038/s41597-022-01564-3",
        "CC BY 4.0",
        "https://doi.org/10.6084/m9.figshare.19688169",
        camera="Topcon TRC-NW8, 50 degrees, 2048 x 2048 px",
        eyes="800: a quarter each healthy, with macular degeneration, diabetic retinopathy, glaucoma",
        notes=("The persons are not named: each photograph counts as a patient of its own.",),
    ),
    "dr_hagis": Source(
        "DR-HAGIS",
        "Holm et al. 2017, J. Med. Imaging 4(1):014503, doi:10.1117/1.JMI.4.1.014503",
        _RESEARCH,
        "https://doi.org/10.1117/1.JMI.4.1.014503",
        camera="several by Topcon and Canon, 45 degrees, 2816 to 4752 px wide",
        eyes="39 of a screening for diabetic retinopathy, with glaucoma, hypertension, diabetic retinopathy or macular "
        "degeneration; laser scars, flare and haze",
        notes=(
            "Photograph 32 is left out: it is the same as photograph 24.",
            "The persons are not named: each photograph counts as a patient of its own.",
        ),
    ),
    "aria": Source(
        "ARIA",
        "Farnell et al. 2008, J. Franklin Inst. 345(7):748-765, doi:10.1016/j.jfranklin.2008.04.009",
        _RESEARCH,
        "https://doi.org/10.1016/j.jfranklin.2008.04.009",
        camera="Zeiss FF450+, 50 degrees, 768 x 576 px, the field cut off above and below",
        eyes="143: healthy, with macular degeneration, with diabetes",
        notes=(
            "The lines of the manual segmentations are broad: a model that draws vessels at their width scores lower "
            "here.",
            "The persons are not named: each photograph counts as a patient of its own.",
        ),
    ),
    "orvs": Source(
        "ORVS",
        "Sarhan et al. 2021, ICPR, doi:10.48550/arXiv.2012.09250",
        _RESEARCH,
        "https://arxiv.org/abs/2012.09250",
        camera="Zeiss Visucam 200, 30 degrees, 1444 x 1444 px",
        eyes="49 of a clinic",
        notes=(
            "The manual segmentations leave out most fine vessels, so precision is low for a model that finds them.",
            "The camera is of the same family as that of LES-AV: for a model trained on ORVS, LES-AV is an unseen "
            "clinic, not an unseen camera.",
            "The persons are not named: each photograph counts as a patient of its own.",
        ),
    ),
    "les_av": Source(
        "LES-AV",
        "Orlando et al. 2018, MICCAI, doi:10.1007/978-3-030-00934-2_8",
        "CC BY 4.0",
        "https://doi.org/10.1007/978-3-030-00934-2_8",
        camera="Zeiss Visucam Pro NM, 30 and 45 degrees, 1620 x 1444 px",
        eyes="22, half of them with glaucoma",
        notes=("The vessels are the arteries, veins and crossings of its artery and vein labels together.",),
    ),
    "idrid": Source(
        "IDRiD",
        "Porwal et al. 2018, Data 3(3):25, doi:10.3390/data3030025",
        "CC BY 4.0",
        "https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
        camera="Kowa VX-10 alpha, 50 degrees, 4288 x 2848 px",
        eyes="516, with diabetes",
        notes=("It has no vessel masks.",),
    ),
}

SOURCES |= {
    # Parts of IDRiD by the names of their folders.
    "idrid_disc": Source(
        "IDRiD (masks of the optic disc)",
        SOURCES["idrid"].paper,
        SOURCES["idrid"].terms,
        SOURCES["idrid"].url,
        camera=SOURCES["idrid"].camera,
        eyes="81, with diabetes and many lesions",
        notes=("Some of these photographs are also among those with centres of disc and fovea.",),
    ),
    "idrid_unlabelled": Source(
        "IDRiD (centres of disc and fovea)",
        SOURCES["idrid"].paper,
        SOURCES["idrid"].terms,
        SOURCES["idrid"].url,
        camera=SOURCES["idrid"].camera,
        eyes="516, with diabetes",
        notes=("It has no vessel masks.",),
    ),
    # Labels of arteries and veins on the photographs of another set.
    "rite": Source(
        "RITE (arteries and veins of DRIVE)",
        "Hu et al. 2013, MICCAI, doi:10.1007/978-3-642-40763-5_54",
        _RESEARCH,
        "https://doi.org/10.1007/978-3-642-40763-5_54",
        camera="that of DRIVE",
        eyes="those of DRIVE",
        notes=(
            "Drawn on other vessel masks than those of DRIVE's first observer: kinds are scored where both have a "
            "vessel.",
        ),
    ),
    "hrf_av": Source(
        "HRF-AV (arteries and veins of HRF)",
        "Hemelings et al. 2019, Comput. Med. Imaging Graph. 76:101636, doi:10.1016/j.compmedimag.2019.05.004",
        _RESEARCH,
        "https://github.com/rubenhx/av-segmentation",
        camera="that of HRF",
        eyes="those of HRF",
    ),
    "synthetic": Source("synthetic photographs", "drawn by resegnet.synthetic, without any patient", "CC0"),
}

# Datasheet of the labels of arteries and veins by the data set whose photographs they are of, where other people
# published them.
ARTERY_VEIN_SOURCES = {"drive": "rite", "hrf": "hrf_av"}
