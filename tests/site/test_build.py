"""The documentation builds without a warning, and its links lead somewhere."""

import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT
from tools.site import api, links

TIME = 900  # seconds; it takes some twenty on a quiet core


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="the site is not built here: pip install 'ukbob-jax[docs]'")
    out = tmp_path_factory.mktemp("site")
    command = [
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(out / "trees"),
        "docs",
        str(out / "html"),
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=TIME)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_every_link_within_the_site_leads_somewhere(site):
    found = links.check(site)
    assert not found.broken, "\n".join(found.broken)
    assert found.pages > 60 and found.inner > 1000


def test_a_broken_link_is_noticed(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">x</a><a href="none.html">y</a><a href="#no">z</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there">x</p><a href="https://example.org">z</a>')
    found = links.check(tmp_path)
    assert (found.pages, found.inner, found.outer) == (2, 3, 1)
    assert found.broken == ["a.html: none.html: no such file", "a.html: #no: no such element"]


def test_every_public_name_is_on_a_page_and_in_the_index(site):
    index = (site / "genindex.html").read_text()
    for name in api.modules():
        assert (ROOT / f"docs/reference/api/{name}.md").exists(), (
            f"add a page with <!-- generated: api {name} -->"
        )
        page = (site / "reference" / "api" / f"{name}.html").read_text()
        for member in api.public(getattr(api.ukbob_jax, name)):
            assert f".{member}" in page, f"{name}.{member} is not described"
    assert "sliding_window()" in index and "SwinUNETR" in index and "dice_ce()" in index


def test_pages_hold_what_the_code_says(site):
    page = (site / "reference" / "config.html").read_text()
    assert "config.solf.epsilon" in page and "percent cut off at either end" in page
    assert "<!-- generated" not in "".join(path.read_text() for path in site.rglob("*.html"))


def test_who_installs_for_the_tests_gets_what_builds_the_site():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "ukbob-jax[docs]" in extras["test"] and any(word.startswith("sphinx") for word in extras["docs"])
