"""Print BibTeX of this software and of the papers whose methods it implements.

ukbob cite                  all of them, each with what it is cited for
ukbob cite labels adapt     those of some parts
"""

import argparse
from typing import NamedTuple

from ukbob_jax import __version__


class Entry(NamedTuple):
    """One reference.

    Attributes:
        parts: of this software that implement it.
        what: what it is cited for.
        kind, key: of BibTeX.
        fields: of BibTeX, in order.
    """

    parts: tuple[str, ...]
    what: str
    kind: str
    key: str
    fields: dict[str, str]


_UKBOB = Entry(
    ("labels", "network", "adapt"),
    "the label filter SOLF, the training on what it keeps, and ETTA, adaptation to each scan",
    "inproceedings",
    "bourigault2025ukbob",
    {
        "title": "{UKBOB}: One Billion {MRI} Labeled Masks for Generalizable {3D} Medical Image Segmentation",
        "author": "Bourigault, Emmanuelle and Jamaludin, Amir and Hamdi, Abdullah",
        "booktitle": "Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)",
        "year": "2025",
        "eprint": "2504.06908",
        "archivePrefix": "arXiv",
    },
)
_SWIN_UNETR = Entry(
    ("network",),
    "the network `swin_unetr`",
    "misc",
    "hatamizadeh2022swin",
    {
        "title": "Swin {UNETR}: Swin Transformers for Semantic Segmentation of Brain Tumors in {MRI} Images",
        "author": "Hatamizadeh, Ali and Nath, Vishwesh and Tang, Yucheng and Yang, Dong and Roth, Holger and Xu, Daguang",
        "year": "2022",
        "eprint": "2201.01266",
        "archivePrefix": "arXiv",
    },
)
_NNUNET = Entry(
    ("nnunet",),
    "model folders of nnU-Net and its networks",
    "article",
    "isensee2021nnunet",
    {
        "title": "{nnU-Net}: a self-configuring method for deep learning-based biomedical image segmentation",
        "author": "Isensee, Fabian and Jaeger, Paul F. and Kohl, Simon A. A. and Petersen, Jens and Maier-Hein, Klaus H.",
        "journal": "Nature Methods",
        "volume": "18",
        "number": "2",
        "pages": "203--211",
        "year": "2021",
    },
)
_OPENMIND = Entry(
    ("pretrain",),
    "pre-training without labels: data, methods and the protocol of fine-tuning",
    "misc",
    "wald2024openmind",
    {
        "title": "An {OpenMind} for {3D} medical vision self-supervised learning",
        "author": "Wald, Tassilo and Ulrich, Constantin and Suprijadi, Jonathan and Ziegler, Sebastian and Nohel, Michal "
        'and Peretzke, Robin and K{\\"o}hler, Gregor and Maier-Hein, Klaus H.',
        "year": "2025",
        "eprint": "2412.17041",
        "archivePrefix": "arXiv",
    },
)
_TANG = Entry(
    ("pretrain",),
    "the pre-training `swinunetr`",
    "inproceedings",
    "tang2022self",
    {
        "title": "Self-Supervised Pre-Training of Swin Transformers for {3D} Medical Image Analysis",
        "author": "Tang, Yucheng and Yang, Dong and Li, Wenqi and Roth, Holger R. and Landman, Bennett and Xu, Daguang and "
        "Nath, Vishwesh and Hatamizadeh, Ali",
        "booktitle": "Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)",
        "year": "2022",
    },
)
_SENTINEL = Entry(
    ("sentinel",),
    "graders that predict the Dice of a mask",
    "misc",
    "chen2024quality",
    {
        "title": "Quality Sentinel: Estimating Label Quality and Errors in Medical Segmentation Datasets",
        "author": "Chen, Yixiong and Zhou, Zongwei and Yuille, Alan",
        "year": "2024",
        "eprint": "2406.00327",
        "archivePrefix": "arXiv",
    },
)
PAPERS = (_UKBOB, _SWIN_UNETR, _NNUNET, _OPENMIND, _TANG, _SENTINEL)
PARTS = tuple(dict.fromkeys(part for paper in PAPERS for part in paper.parts))


def software() -> Entry:
    """This software, in the version that is installed."""
    fields = {
        "title": "ukbob_jax: whole-body {MRI} segmentation in {JAX}",
        "author": "{The ukbob_jax contributors}",
        "version": __version__,
    }
    return Entry((), "the software itself", "software", "ukbob_jax", fields)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of the software: {', '.join(PARTS)}")


def run(options: argparse.Namespace) -> None:
    """Print the entries.

    Raises:
        ConfigError: there is no such part.
    """
    from ukbob_jax.errors import ConfigError

    if wrong := [part for part in options.parts if part not in PARTS]:
        raise ConfigError(f"no part {wrong[0]!r}; there are {', '.join(PARTS)}.")
    wanted = set(options.parts or PARTS)
    print("\n\n".join(bibtex(one) for one in (software(), *PAPERS) if not one.parts or wanted & {*one.parts}))


def bibtex(entry: Entry) -> str:
    """The entry under a line that says what it is cited for; BibTeX passes over text between entries."""
    rows = ",\n".join(f"  {name} = {{{value}}}" for name, value in entry.fields.items())
    return f"% {entry.what}\n@{entry.kind}{{{entry.key},\n{rows}\n}}"
