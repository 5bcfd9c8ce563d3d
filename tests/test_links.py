"""Links in the documentation lead somewhere."""

from tools import check_links


def test_every_link_leads_to_a_file_and_a_heading():
    assert check_links.main() == 0


def test_a_link_that_leads_nowhere_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(check_links, "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# A `title`, here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-title-here) [b](none.md) [c](other.md#no) [d](https://x.org/none)\n```\n[e](f.md)\n```\n"
    )
    assert list(check_links.broken(page)) == [
        "page.md: none.md: no such file",
        "page.md: other.md#no: no such heading",
    ]
