"""The names other trainers give a network's tensors, brought to those its PyTorch class gives them."""

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from ukbob_jax.errors import MismatchError
from ukbob_jax.models.architecture import TorchNames

# What trainers, compilers and wrappers put in front of every name.
_WRAPPER = re.compile(r"^(_orig_mod|module|net|network|model|backbone)\.")


def canonical(name: str, names: TorchNames, own: Collection[str] = ()) -> str:
    """The network's name of the tensor a checkpoint calls `name`: one of `own`, if known; unknown names stay."""
    while name not in own and _WRAPPER.match(name):
        name = _WRAPPER.sub("", name)
    for pattern, replacement in names.aliases if name not in own else ():
        name = re.sub(pattern, replacement, name)
    return name


def wrapping(tensors: Iterable[str], names: TorchNames) -> str:
    """What stands before the names of the one network there is, such as "student.backbone."; "" if there are several."""
    if not names.first:
        return ""
    found = {match[1] for name in tensors if (match := re.fullmatch(names.first, name))}
    return found.pop() if len(found) == 1 else ""


def rename(
    tensors: Mapping[str, np.ndarray],
    names: TorchNames,
    where: str,
    drop: re.Pattern[str] | None = None,
    own: Collection[str] = (),
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """`tensors` under the network's names, and the names left out: found by `drop`, or parts of a pre-training task.

    Args:
        tensors: by the file's names.
        names: the network's in PyTorch files.
        where: the file, for messages.
        drop: finds names to leave out.
        own: names that the network is known to have, and which therefore stay as they are.
    Raises:
        MismatchError: two tensors would get the same name.
    """
    renamed: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    left_out = [name for name in tensors if drop and drop.search(name)]
    kept = {name: array for name, array in tensors.items() if name not in left_out}
    before = wrapping(kept, names)
    for name, array in kept.items():
        new = name if name in own else canonical(name.removeprefix(before), names, own)
        if re.match(names.pretext, new):
            left_out.append(name)
            continue
        if new in renamed:
            raise MismatchError(f"{where}: {origin[new]} and {name} are both {new}. Keep one of them.")
        renamed[new], origin[new] = array, name
    return renamed, tuple(left_out)
