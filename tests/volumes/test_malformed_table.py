"""The page on ingestion says of malformed files what the reader says."""

from tools import malformed_table


def test_the_page_shows_what_the_reader_says():
    _, shown, _ = malformed_table.parts(malformed_table.PAGE.read_text())
    assert shown == malformed_table.table(), "run: python -m tools.malformed_table --write"
    assert shown.count("\n") > 50
