"""Convert Swin-UNETR weights between PyTorch files, safetensors and our checkpoint folders, in any direction.

    python -m tools.convert_weights model.pt model.safetensors --downsample merging_legacy
    python -m tools.convert_weights model_swinvit.pt start/checkpoints --downsample merging --out_channels 73 \\
        --new "^(encoder|decoder|out)"
    python -m tools.convert_weights runs/swin_bob swin_bob.pt

Files are written in MONAI's layout, with the description of the model inside; a target without a suffix becomes a
folder that training, prediction and `bob.weights.load` read. Files of others do not say which patch merging they were
trained with: give --downsample ("merging_legacy" for MONAI 0.9 to 1.4, "merging" from 1.5). The rest of the
architecture is read off the tensors, and any field can be given. Prints which tensors matched; exit code 3 where the
weights do not fit.
"""

import argparse
import hashlib
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp

from ukbob_jax import weights
from ukbob_jax.errors import ConfigError, UkbobError
from ukbob_jax.files import read_json
from ukbob_jax.models.blocks import NORMS
from ukbob_jax.models.swin_unetr import infer
from ukbob_jax.models.swin_unetr.encoder import MERGINGS
from ukbob_jax.models.swin_unetr.network import SwinUNETR

FACTS = ("labels", "regions", "spacing_mm", "normalize", "contrasts", "roi", "provenance")
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
    parser.add_argument("--downsample", choices=MERGINGS, help="patch merging the weights were trained with")
    parser.add_argument("--norm", choices=NORMS)
    parser.add_argument("--norm_groups", type=int)
    parser.add_argument("--in_channels", type=int)
    parser.add_argument("--out_channels", type=int)
    parser.add_argument("--window_size", type=int, nargs=3, metavar="VOXELS")
    parser.add_argument("--no_normalize", action="store_true", help="the encoder's maps were not normalised")
    parser.add_argument(
        "--new", default="", help="regular expression: tensors that may be missing and start afresh"
    )
    parser.add_argument("--drop", default="", help="regular expression: tensors of the file to leave out")
    parser.add_argument("--head", choices=("match", "new"), default="match")
    parser.add_argument("--stem", choices=("match", "average", "new"), default="match")
    parser.add_argument("--which", choices=("best", "latest"), default="best", help="checkpoint of a folder")
    parser.add_argument("--facts", type=pathlib.Path, help=f"JSON file with any of {', '.join(FACTS)}")
    return parser.parse_args(arguments)


def convert(options: argparse.Namespace) -> None:
    if options.target.exists():
        raise ConfigError(f"{options.target}: exists already. Choose another name, or remove it.")
    tensors, description, _ = weights.contents(options.source, options.which, options.drop)
    model = SwinUNETR.from_config(architecture(options, tensors, description))
    choices = {name: getattr(options, name) for name in ("new", "drop", "head", "stem", "which")}
    loaded = weights.read(options.source, model, **choices)
    print(loaded.report)
    gone = (OF_HEAD if options.head != "match" else ()) + (OF_STEM if options.stem != "match" else ())
    facts = {n: description[n] for n in FACTS if description and n in description and n not in gone}
    facts |= read_facts(options.facts) if options.facts else {}
    facts.setdefault("provenance", {"converted_from": options.source.name, **checksum(options.source)})
    if options.target.suffix:
        weights.save(options.target, loaded.params, model, model_state=loaded.model_state, **facts)
    else:
        save_folder(options.target, loaded, weights.describe(model, **facts))
    print(f"written: {options.target}, {json.dumps(model.config())}")


def architecture(
    options: argparse.Namespace, tensors: dict[str, Any], description: dict[str, Any] | None
) -> dict[str, Any]:
    """Fields of the model: the description's or what the tensors show, and over them those given."""
    given = ("downsample", "norm", "norm_groups", "in_channels", "out_channels", "window_size")
    chosen = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    chosen |= {"normalize": False} if options.no_normalize else {}
    if description is None and "downsample" not in chosen:
        raise ConfigError(f"{options.source}: does not say how its patches were merged. Give --downsample.")
    found = description["model"] if description else infer.fields(tensors)
    if "out_channels" not in {**found, **chosen}:
        raise ConfigError(f"{options.source}: has no last layer. Give --out_channels.")
    return {**found, **chosen}


def read_facts(path: pathlib.Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: expected a JSON object with any of {', '.join(FACTS)}.")
    return found


def checksum(source: pathlib.Path) -> dict[str, str]:
    return {"sha256": hashlib.sha256(source.read_bytes()).hexdigest()} if source.is_file() else {}


def save_folder(folder: pathlib.Path, loaded: weights.Loaded, description: dict[str, Any]) -> None:
    """A checkpoint at step 0, as training would write it, without optimizer."""
    from ukbob_jax.training.checkpoints import Checkpoints
    from ukbob_jax.training.state import TrainState

    zero = jnp.zeros((), jnp.int32)
    params, model_state = jax.device_put((loaded.params, loaded.model_state))
    checkpoints = Checkpoints(folder)
    state = TrainState(zero, params, model_state, opt_state={}, ema={}, skipped=zero, skipped_in_row=zero)
    checkpoints.save(state, description)
    checkpoints.close()


if __name__ == "__main__":
    sys.exit(main())
