"""`ukbob cite` prints entries that BibTeX reads, the same as CITATION.cff says."""

import re

from tests.conftest import ROOT
from ukbob_jax import __version__, cli
from ukbob_jax.commands import cite

ENTRY = re.compile(r"@(\w+)\{(\w+),\n((?:  \w+ = \{.*\},?\n)+)\}")


def test_every_entry_is_whole_and_has_a_key_of_its_own(capsys):
    assert cli.main(["cite"]) == 0
    found = ENTRY.findall(capsys.readouterr().out)
    assert len(found) == 1 + len(cite.PAPERS) == len({key for _, key, _ in found})
    for _, key, fields in found:
        assert {"title", "author"} <= set(re.findall(r"^  (\w+) = ", fields, re.MULTILINE))
        assert fields.count("{") == fields.count("}"), key


def test_a_part_has_its_own_papers(capsys):
    assert cli.main(["cite", "sentinel"]) == 0
    keys = [key for _, key, _ in ENTRY.findall(capsys.readouterr().out)]
    assert keys == ["ukbob_jax", "chen2024quality"]
    assert cli.main(["cite", "cooking"]) == 2
    assert (
        capsys.readouterr().err
        == "ukbob: no part 'cooking'; there are labels, network, adapt, nnunet, pretrain, sentinel.\n"
    )


def test_the_citation_file_says_the_same():
    text = (ROOT / "CITATION.cff").read_text()
    [paper] = [one for one in cite.PAPERS if one.key.startswith("bourigault")]
    assert re.sub(r"[{}]", "", paper.fields["title"]) in text and paper.fields["eprint"] in text
    assert all(name.split(",")[0] in text for name in paper.fields["author"].split(" and "))
    assert f"version: {__version__}\n" in text
