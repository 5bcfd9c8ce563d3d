"""A whole model folder with random weights, in nnU-Net's layout, for tests of what surrounds the network."""

import collections
import copy
import dataclasses
import json

import jax
import numpy as np

from tests.inference.nnunet import test_plans
from ukbob_jax import networks, weights
from ukbob_jax.inference.nnunet import plans, write
from ukbob_jax.weights import tensors, torch_files

FOLLOWS_PLANS, NOT_MIRRORING = "nnUNetTrainer", "nnUNetTrainerNoMirroring"


def folder(place, name="nnUNetTrainer__nnUNetPlans__3d_fullres", folds=("0",), axes=(0, 1, 2), change=None,
           dataset=None, by_torch=True):  # fmt: skip
    """A model folder whose checkpoints torch wrote, or we; returns it."""
    place.mkdir(parents=True, exist_ok=True)
    made = test_plans.write(place, change, dataset, name)
    said = plans.read(made)
    model = networks.build(said.network.name, said.in_channels, said.out_channels, **said.network.fields)
    for fold in folds:
        values = drawn(tensors.variables(model), 7 if fold == "all" else int(fold))
        state = weights.to_torch(values.pop("params"), model, values)
        arrays = collections.OrderedDict((k, np.array(v)) for k, v in state.items())
        content = {
            "network_weights": arrays,
            "trainer_name": said.trainer,
            "inference_allowed_mirroring_axes": axes,
            "init_args": {
                **{"plans": copy.deepcopy(dict(said.plans)), "configuration": said.configuration},
                "dataset_json": json.loads((made / "dataset.json").read_text()),
            },
        }
        (made / f"fold_{fold}").mkdir()
        (_saved_by_torch if by_torch else _saved)(content, made / f"fold_{fold}" / "checkpoint_final.pth")
    return made


def _saved_by_torch(content, path):
    import torch

    content["network_weights"] = collections.OrderedDict(
        (name, torch.from_numpy(array)) for name, array in content["network_weights"].items()
    )
    torch.save(content, path)


def _saved(content, path):
    content["network_weights"] = dict(content["network_weights"])
    torch_files.save(path, content)


def dataset_folder(place, number, names, trainer=NOT_MIRRORING, folds=(0,)):
    """DatasetNNN_Tiny with a model of few features, written without torch; each has other limits of intensity."""

    def small(found):
        found["transpose_forward"] = found["transpose_backward"] = [0, 1, 2]
        found["foreground_intensity_properties_per_channel"]["0"]["mean"] = float(number - 291)
        chosen = found["configurations"]["3d_fullres"]
        chosen |= {"spacing": [2.0, 2.0, 2.0], "patch_size": [8, 8, 8]}
        chosen["architecture"]["arch_kwargs"] |= {
            **{"features_per_stage": [4, 8], "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]},
            **{"kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]]},
        }

    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {name: i for i, name in enumerate(("background", *names))},
        "file_ending": ".nii.gz",
    }
    made = place / f"Dataset{number}_Tiny"
    made.mkdir(parents=True, exist_ok=True)
    folder = test_plans.write(made, small, dataset, f"{trainer}__nnUNetPlans__3d_fullres")
    said = plans.read(folder, FOLLOWS_PLANS)
    network = networks.build(said.network.name, 1, said.out_channels, **said.network.fields)
    for fold in folds:
        values = drawn(tensors.variables(network), number + fold)
        state = weights.to_torch(values.pop("params"), network, values)
        write.checkpoint(dataclasses.replace(said, trainer=trainer), state, fold)
    return folder


def drawn(shapes, seed):
    """Variables without compiling an initialisation."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        if path[-1].key != "kernel":
            return np.full(shape.shape, path[-1].key in ("scale", "var"), shape.dtype)
        return rng.normal(0, 0.3, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def flat(found):
    """Make the plans' 3d_fullres a configuration 2d."""
    chosen = found["configurations"].pop("3d_fullres")
    arguments = chosen["architecture"]["arch_kwargs"]
    arguments |= {
        **{
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
        },
        **{"kernel_sizes": [[3, 3], [3, 3]], "strides": [[1, 1], [2, 2]], "features_per_stage": [4, 8]},
    }
    found["configurations"] = {"2d": {**chosen, "patch_size": [16, 16], "spacing": [1.0, 1.0]}}


def narrow(found):
    """Few features, so that compiling is quick."""
    found["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8]


def cascade(found):
    """Two stages on one grid."""
    narrow(found)
    configurations = found["configurations"]
    configurations["3d_lowres"] = {"inherits_from": "3d_fullres", "next_stage": "3d_cascade_fullres"}
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
