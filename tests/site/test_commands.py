"""Every command in the documentation exists: programs, recipes, variants, fields with values of their types, options."""

import importlib.util
import re
import shlex
import tomllib

import pytest

from tests.conftest import ROOT
from tests.site.blocks import PAGES, SHELL, Block, blocks, commands, name
from tests.test_messages import is_field, main_options
from tools.site import commands as ukbob
from ukbob_jax import cli, settings
from ukbob_jax.errors import ConfigError

REASONS = {  # why a block is not run; what of it is ours is checked all the same
    "needs a cluster": "of machines, a queue or a cloud",
    "another program": "that this package does not bring",
    "needs data": "that cannot be shipped",
    "needs weights": "that cannot be shipped",
    "a part": "of something that a page builds up",
}
TEXT = ("text", "json", "csv", "python", "dockerfile", "toml", "math")  # blocks that are no commands
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
OURS = re.compile(r"python(3)?$|ukbob$|pip$|\.\.\.$|--config\.")
PLACEHOLDER = re.compile(r"RECIPE|FILE\.py|\.\.\.")


def check(words: list[str], recipe: list[str]) -> list[str]:
    """Check one command; `recipe` is `--config=...` of the one before it on the page. Returns its own, or that one.

    Raises:
        AssertionError: saying what does not exist.
    """
    if words[0] == "pip":
        named = {word for extra in re.findall(r"\[([\w,-]+)\]", " ".join(words)) for word in extra.split(",")}
        assert named <= EXTRAS, f"no extra {named - EXTRAS}"
    elif words[0] == "source":
        assert words[1].endswith("/bin/activate")
    elif words[0] == "ukbob":
        assert words[1] in cli.COMMANDS, f"no command {words[1]}"
        ukbob.parser(words[1]).parse_args(words[2:])
    elif any(word.startswith("--config") for word in words):
        return main(words, recipe)
    elif words[:2] == ["python", "-m"] and words[2].startswith(("tools.", "experiments.")):
        tool(words[2], words[3:])
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), f"no module {words[2]}"
    else:
        assert words[0] == "...", f"{words[0]} is no program of ours: mark the block with a reason"
    return recipe


def main(words: list[str], recipe: list[str]) -> list[str]:
    """A call of `ukbob_jax.main`, or fields to add to the one before."""
    own = [word for word in words if word.startswith("--config=")]
    fields = [word for word in words if word.startswith("--config.")]
    options = [
        word.split("=")[0] for word in words if word.startswith("--") and not word.startswith("--config")
    ]
    assert set(options) <= main_options(), f"no option {set(options) - main_options()}"
    own = own or recipe
    if not own or PLACEHOLDER.search(own[0]):
        for word in fields:
            assert is_field(word), f"no recipe has {word}"
    else:
        settings.read_recipe([*own, *fields], usage="")
    return own


def tool(module: str, words: list[str]) -> None:
    """A script of ours: its file, and that it has these options."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    assert file.is_file(), f"no script {module}"
    near = "".join(path.read_text() for path in file.parent.glob("*.py"))  # options may be shared
    for word in words:
        if word.startswith("--"):
            assert f'"{word.split("=")[0]}"' in near, f"{module} has no option {word}"


def ours(words: list[str]) -> list[str]:
    """The part of a command that calls us: after `srun`, or within a quoted argument; empty: none."""
    for at, word in enumerate(words):
        if (OURS.match(word) and (at == 0 or word != "ukbob")) or word.startswith("--config="):
            return words[at:]
        if " -m ukbob_jax" in word:
            return ours(shlex.split(word.partition("=")[2] or word))
    return []


SHELL_BLOCKS = [block for page in PAGES for block in blocks(page) if block.kind in SHELL]


@pytest.mark.parametrize("page", sorted({block.page for block in SHELL_BLOCKS}), ids=name)
def test_every_command_of_a_page_exists(page):
    recipe: list[str] = []
    for block in SHELL_BLOCKS:
        if block.page == page and block.reason != "a part":
            for words in commands(block):
                wanted = ours(words) if block.reason or block.kind == "indented" else words
                try:
                    recipe = check(wanted, recipe) if wanted else recipe
                except (AssertionError, ConfigError, SystemExit) as error:
                    pytest.fail(f"{name(page)}:{block.line}: {shlex.join(words)}: {error}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_has_a_language_or_a_reason(page):
    for block in blocks(page):
        where = f"{name(page)}:{block.line}"
        assert block.kind in (*SHELL, *TEXT), f"{where}: {block.kind} is no language of ours"
        assert not block.reason or block.reason in REASONS, (
            f"{where}: {block.reason} is not one of {', '.join(REASONS)}"
        )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_field_named_in_a_sentence_exists(page):
    for word in re.findall(r"--config\.[a-z][\w.]*|`config\.[a-z][\w.]*", page.read_text()):
        word = word.strip("`.")
        if word not in ("config.json", "--config.model.FIELD"):
            assert is_field(word), f"{name(page)}: no recipe has {word}"


def test_commands_that_do_not_exist_are_noticed():
    wrong = {
        "python -m ukbob_jax.main --config=configs/swin_bob.py:deno --workdir=w": "no variant 'deno'",
        "python -m ukbob_jax.main --config=configs/swin_bob.py --workdir=w --config.data.corp=1": "no such field",
        "python -m ukbob_jax.main --config=configs/swin_bob.py --config.train.steps=few": "not a whole number",
        "python -m ukbob_jax.main --config=configs/swin_bob.py --wrokdir=w": "no option",
        "python -m tools.nothing": "no script",
        "python -m tools.label_hours --sizes 1": "no option --sizes",
        "pip install 'ukbob-jax[everything]'": "no extra",
        "ukbob dream": "no command dream",
        "docker run x": "no program of ours",
        "... --config.nothing.at=all": "no such field",
    }
    for line, said in wrong.items():
        with pytest.raises((AssertionError, ConfigError), match=said):
            check(shlex.split(line), ["--config=configs/swin_bob.py"])
    with pytest.raises(SystemExit):
        check(["ukbob", "labels", "--jsn"], [])
    block = Block(PAGES[0], 1, "bash", 'A="--x 1"\npython -m y \\\n    $A [--z=2]  # words\n', "")
    assert [*commands(block)] == [["python", "-m", "y", "--x", "1", "--z=2"]]
    assert ours(shlex.split('gcloud ssh --command="python -m ukbob_jax.main --workdir=w"'))[:2] == [
        "python",
        "-m",
    ]
