"""What nnU-Net reads of a model folder that we wrote."""

import numpy as np
import pytest

from tests.inference.nnunet import raw_folder
from ukbob_jax.inference.nnunet import write


@pytest.mark.parametrize("mirrored, trainer", [(True, "nnUNetTrainer"), (False, "nnUNetTrainerNoMirroring")])
def test_torch_loads_the_checkpoint_as_nnunet_does(tmp_path, mirrored, trainer):
    torch = pytest.importorskip("torch")
    raw, file = raw_folder.write(tmp_path, number=1)
    plans = write.begin(tmp_path / "nnunet", file, raw, "3d_fullres", mirrored)
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = write.checkpoint(plans, {"a.weight": weight, "b.weight": weight}, fold=2, epochs=7)
    folder = tmp_path / "nnunet" / raw_folder.NAME / f"{trainer}__nnUNetPlans__3d_fullres"
    assert path == folder / "fold_2" / "checkpoint_final.pth"
    found = torch.load(path, weights_only=True)
    assert found["trainer_name"] == trainer and found["current_epoch"] == 7
    assert found["inference_allowed_mirroring_axes"] == ((0, 1, 2) if mirrored else None)
    arguments = found["init_args"]
    assert (arguments["configuration"], arguments["fold"]) == ("3d_fullres", 2)
    assert arguments["plans"] == raw_folder.plans() and arguments["dataset_json"] == raw_folder.dataset()
    assert list(arguments["dataset_json"]["labels"]) == ["background", "ball", "box"]  # their order counts
    one, other = found["network_weights"].values()
    np.testing.assert_array_equal(one.numpy(), weight)
    assert one.data_ptr() == other.data_ptr()
