"""The workdir's network into its nnU-Net model folder, `{workdir}/nnunet/DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION`."""

import pathlib
import sys

from ukbob_jax import weights
from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.nnunet import write
from ukbob_jax.models.architecture import tuples
from ukbob_jax.models.card import ModelCard
from ukbob_jax.training.checkpoints import restore_params


def run(config: Config, workdir: str) -> None:
    """Write `fold_K/checkpoint_final.pth` with the weights of the last step, as nnU-Net's final checkpoint has them.

    Raises:
        ConfigError: the network is not that of the plans.
        FileError: there are no plans or no checkpoint in the workdir, or the file cannot be written.
    """
    plans = write.find(
        pathlib.Path(workdir) / "nnunet", config.plans, config.configuration, "mirror" in config.augment
    )
    folder = pathlib.Path(workdir) / "checkpoints"
    params, model_state, meta = restore_params(folder, "latest")
    card = ModelCard.from_json(meta, folder)
    network = card.build()
    differing = [n for n, v in plans.network.fields.items() if getattr(network, n, None) != tuples(v)]
    if card.architecture != plans.network.name or differing:
        raise ConfigError(
            f"config.model: the checkpoint's network, {card.architecture}, is not the {plans.network.name} of the plans"
            f"{f' (other {differing[0]})' if differing else ''}, which is what nnU-Net would build."
        )
    state_dict = weights.to_torch(params, network, model_state)
    epochs = config.train.steps // config.optimizer.hold_steps
    path = write.checkpoint(plans, state_dict, config.fold, epochs)
    print(f"export_nnunet: {path}", file=sys.stderr)
