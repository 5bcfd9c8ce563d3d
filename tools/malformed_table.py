"""Read every malformed file of the tests and write down the message each one gets.

    python -m tools.malformed_table            prints the table
    python -m tools.malformed_table --write    puts it into docs/ingestion.md, between its two marks

Run it from the root of a checkout.
"""

import argparse
import pathlib
import tempfile
import warnings

from tests.volumes import malformed
from ukbob_jax.errors import InputError
from ukbob_jax.volumes.nifti import read_pair, read_volume

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "ingestion.md"
MARKS = "<!-- malformed: begin -->\n", "<!-- malformed: end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        before, _, after = parts(PAGE.read_text())
        PAGE.write_text(before + table() + after)
    else:
        print(table())


def parts(page: str) -> tuple[str, str, str]:
    """A page up to the first mark, between the two, and from the second on."""
    start, end = page.index(MARKS[0]) + len(MARKS[0]), page.index(MARKS[1])
    return page[:start], page[start:end], page[end:]


def table() -> str:
    """A row per file that is refused, or read with a warning."""
    rows = ["| file | what is said |", "|---|---|"]
    for case in malformed.cases():
        refused, said = told(case)
        if said:
            rows.append(
                f"| `{case.name}` | {'' if refused else 'read, with a warning: '}{said.replace('|', chr(92) + '|')} |"
            )
    return "\n".join(rows) + "\n"


def told(case: malformed.Case) -> tuple[bool, str]:
    """Whether a file is refused, and the message or the warnings, with bare file names."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        root = pathlib.Path(folder)
        for file, data in case.files.items():
            (root / file).mkdir() if data is None else (root / file).write_bytes(data)
        paths = [root / file for file in case.files] or [root / case.name]
        try:
            read_pair(*paths) if case.purpose == "pair" else read_volume(paths[0], kind=case.purpose)
        except InputError as error:
            return True, str(error).replace(f"{root}/", "")
        return False, " ".join(str(warning.message).replace(f"{root}/", "") for warning in caught)


if __name__ == "__main__":
    main()
