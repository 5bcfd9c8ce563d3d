"""Convert a network's weights between PyTorch files, safetensors and our checkpoint folders, in any direction.

    python -m tools.convert_weights model.pt model.safetensors --downsample merging_legacy
    python -m tools.convert_weights model_swinvit.pt start/checkpoints --downsample merging --out_channels 73 \\
        --new decoder,head
    python -m tools.convert_weights runs/swin_bob swin_bob.pt
    python -m tools.convert_weights runs/mae mae.pt --which latest

Files are written in the layout of the network's PyTorch class, with its card inside; a target without a suffix becomes
a folder that training, prediction and `bob.weights.load` read. Files of others do not say which network they are of:
give --architecture, and the fields that no tensor shows, such as Swin-UNETR's patch merging (--downsample
merging_legacy for MONAI 0.9 to 1.4, merging from 1.5). The rest is read off the tensors; any field of the network can
be given as --FIELD VALUE. Of a pre-training a file gets what was trained, perhaps the encoder alone, and nothing fresh.
Prints which tensors matched; exit code 3 where the weights do not fit.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ukbob_jax import weights
from ukbob_jax.errors import ConfigError, UkbobError
from ukbob_jax.files import read_json
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import PARTS, Architecture
from ukbob_jax.models.card import FACTS, FIRST_ARCHITECTURE, PRETRAINING, ModelCard, facts_from_json

OF_HEAD, OF_STEM = ("labels", "regions"), ("contrasts",)  # facts that a new head or stem makes wrong


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        convert(options)
    except UkbobError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    words = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=words)
    parser.add_argument(
        "source", type=pathlib.Path, help=".pt, .pth, .safetensors, or a folder of checkpoints"
    )
    parser.add_argument("target", type=pathlib.Path, help=".pt, .pth, .safetensors, or a new folder")
    parser.add_argument("--architecture", default=FIRST_ARCHITECTURE, help="of a file that does not say it")
    parser.add_argument(
        "--new",
        default="",
        help=f"what may be missing and starts afresh: any of {','.join(PARTS)}, or a regular expression on names",
    )
    parser.add_argument("--drop", default="", help="regular expression: tensors of the file to leave out")
    parser.add_argument("--head", choices=("match", "new"), default="match")
    parser.add_argument("--stem", choices=("match", "average", "new"), default="match")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a folder")
    parser.add_argument("--facts", type=pathlib.Path, help=f"JSON file with any of {', '.join(FACTS)}")
    options, rest = parser.parse_known_args(arguments)
    options.fields = read_fields(parser, rest)
    return options


def read_fields(parser: argparse.ArgumentParser, words: list[str]) -> dict[str, Any]:
    """Fields of the network from `--FIELD VALUE ...`; values are JSON or a plain word, several are a list."""
    fields: dict[str, list[Any]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word[2:]
            fields[name] = []
        elif not name:
            parser.error(f"unexpected {word!r}")
        else:
            fields[name].append(value_of(word))
    if empty := [name for name, values in fields.items() if not values]:
        parser.error(f"--{empty[0]}: a field of the network needs a value")
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}


def value_of(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def convert(options: argparse.Namespace) -> None:
    if options.target.exists():
        raise ConfigError(f"{options.target}: exists already. Choose another name, or remove it.")
    said = architecture.find(options.architecture)
    found = weights.contents(options.source, options.which, options.drop, said)
    if found.card:
        said = architecture.find(found.card.architecture, imported_only=True)
    model = said.build(fields_of(options, said, found))
    if found.card and found.card.task == PRETRAINING and options.target.suffix and not changes(options):
        write_trained(options, found, model)
        return
    choices = {name: getattr(options, name) for name in ("drop", "head", "stem", "which")}
    parts = options.new.split(",")
    new = tuple(parts) if set(parts) <= set(PARTS) else options.new
    loaded = weights.read(options.source, model, new=new, **choices)
    print(loaded.report)
    card = card_of(options, ModelCard.of(model), found.card)
    if options.target.suffix:
        weights.save(options.target, loaded.params, model, model_state=loaded.model_state, card=card)
    else:
        save_folder(options.target, loaded, card)
    print(f"written: {options.target}, {said.name} {json.dumps(card.fields)}")


def changes(options: argparse.Namespace) -> bool:
    """Whether the network is to become another than the source's."""
    return bool(options.new or options.fields or options.head != "match" or options.stem != "match")


def write_trained(options: argparse.Namespace, found: weights.Contents, model: nn.Module) -> None:
    """Write what a pre-training has of its network, under all names of the PyTorch class."""
    card = card_of(options, ModelCard.of(model), found.card)
    tensors = weights.with_copies(found.tensors, model)
    weights.files.write(options.target, tensors, {"card": card.to_json()})
    print(f"left out: {len(found.left_out)}", *found.left_out, sep="\n  ")
    print(
        f"written: {options.target}, {len(tensors)} tensors of {card.architecture} {json.dumps(card.fields)}"
    )


def fields_of(options: argparse.Namespace, said: Architecture, found: weights.Contents) -> dict[str, Any]:
    """Fields of the model: the card's or what the tensors show, and over them those given."""
    if found.card:
        return {**found.card.fields, **options.fields}
    if said.torch is None or said.torch.infer is None:
        return options.fields
    for name in said.torch.hidden:
        if name not in options.fields:
            raise ConfigError(
                f"{options.source}: does not say its {name}, which no tensor shows. Give --{name}."
            )
    fields = {**said.torch.infer(found.tensors), **options.fields}
    if "out_channels" not in fields:
        raise ConfigError(f"{options.source}: has no last layer. Give --out_channels.")
    return fields


def card_of(options: argparse.Namespace, card: ModelCard, before: ModelCard | None) -> ModelCard:
    """`card` with what the source said, less what a new head or stem makes wrong, and the facts that are given."""
    gone = (OF_HEAD if options.head != "match" else ()) + (OF_STEM if options.stem != "match" else ())
    facts = {name: getattr(before, name) for name in (*FACTS, "task") if name not in gone} if before else {}
    facts |= facts_from_json(read_facts(options.facts)) if options.facts else {}
    if not facts.get("provenance"):
        facts["provenance"] = {"converted_from": options.source.name, **checksum(options.source)}
    return dataclasses.replace(card, **facts)


def read_facts(path: pathlib.Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object with any of {', '.join(FACTS)}.")
    return found


def checksum(source: pathlib.Path) -> dict[str, str]:
    return {"sha256": hashlib.sha256(source.read_bytes()).hexdigest()} if source.is_file() else {}


def save_folder(folder: pathlib.Path, loaded: weights.Loaded, card: ModelCard) -> None:
    """A checkpoint at step 0, as training would write it, without optimizer."""
    from ukbob_jax.training.checkpoints import Checkpoints
    from ukbob_jax.training.state import TrainState

    zero = jnp.zeros((), jnp.int32)
    params, model_state = jax.device_put((loaded.params, loaded.model_state))
    checkpoints = Checkpoints(folder)
    state = TrainState(zero, params, model_state, opt_state={}, ema={}, skipped=zero, skipped_in_row=zero)
    checkpoints.save(state, {"card": card.to_json()})
    checkpoints.close()


if __name__ == "__main__":
    sys.exit(main())
