"""What nnU-Net makes of a folder and a scan, with logits summed in float32."""

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np


class Theirs(NamedTuple):
    """Stages of one prediction; axes as nnU-Net has them.

    Attributes:
        data: preprocessed, c z y x, with masks of a cascade's first stage.
        logits: merged, k z y x.
        labels: file of labels.
        close: x y z of that file, where the two best probabilities are within 0.01, or one of a region within 0.005 of
            one half.
    """

    data: np.ndarray
    logits: np.ndarray
    labels: pathlib.Path
    close: np.ndarray


def predictor(folder: pathlib.Path, folds: Sequence[int], step: float = 0.5, mirror: bool = True) -> Any:
    """nnU-Net's own, for the CPU."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    found = nnUNetPredictor(
        tile_step_size=step, use_mirroring=mirror, perform_everything_on_device=False, device=torch.device("cpu"),
        allow_tqdm=False,
    )  # fmt: skip
    found.initialize_from_trained_model_folder(str(folder), tuple(folds), "checkpoint_final.pth")
    return found


def predict(used: Any, scan: Sequence[str], out: pathlib.Path, first: pathlib.Path | None = None) -> Theirs:
    """One scan.

    Args:
        used: a predictor.
        scan: one file per channel.
        out: the file of labels to write, .nii.gz.
        first: labels of a cascade's first stage.
    """
    import torch
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape,
    )
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot

    preprocessor = used.configuration_manager.preprocessor_class(verbose=False)
    labels_file = None if first is None else str(first)
    data, seg, properties = preprocessor.run_case(
        list(scan), labels_file, used.plans_manager, used.configuration_manager, used.dataset_json
    )
    if first is not None:
        masks = convert_labelmap_to_one_hot(seg[0], used.label_manager.foreground_labels, data.dtype)
        data = np.vstack((data, masks))
    with _float32_sums():
        logits = used.predict_logits_from_preprocessed_data(torch.from_numpy(data).contiguous()).numpy()
    assert logits.dtype == np.float32
    managers = used.plans_manager, used.configuration_manager, used.label_manager
    convert = convert_predicted_logits_to_segmentation_with_correct_shape
    labels = convert(logits, *managers, dict(properties))
    _, probabilities = convert(logits, *managers, dict(properties), return_probabilities=True)
    _save(labels, out, used, scan)
    if used.label_manager.has_regions:
        close = (np.abs(probabilities - 0.5) < 0.005).any(0)
    else:
        best = np.sort(probabilities, axis=0)
        close = best[-1] - best[-2] < 0.01
    apart = out.with_name(f"close_{out.name}")
    _save(close.astype(np.uint8), apart, used, scan)
    return Theirs(data, logits, out, np.asarray(nib.load(apart).dataobj) > 0)


def _save(labels: np.ndarray, out: pathlib.Path, used: Any, scan: Sequence[str]) -> None:
    """As nnU-Net writes labels; of an image with all channels in one file it cannot, since the header has four axes."""
    reader = used.plans_manager.image_reader_writer_class()
    _, properties = reader.read_images(list(scan))
    header = properties.get("sitk_stuff", {})
    if len(header.get("spacing", ())) == 4:
        directions = np.reshape(header["direction"], (4, 4))[:3, :3].ravel().tolist()
        header |= {"spacing": header["spacing"][:3], "origin": header["origin"][:3], "direction": directions}
    reader.write_seg(labels, str(out), properties)


@contextlib.contextmanager
def _float32_sums() -> Iterator[None]:
    """nnU-Net keeps logits, weights and the gaussian in `torch.half`; inside they are float32."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as module

    half, gaussian = torch.half, module.compute_gaussian

    def single(*args: Any, **kwargs: Any) -> Any:
        return gaussian(*args, dtype=torch.float32, **kwargs)

    single.cache_clear = gaussian.cache_clear  # type: ignore[attr-defined]
    torch.half, module.compute_gaussian = torch.float32, single
    try:
        yield
    finally:
        torch.half, module.compute_gaussian = half, gaussian
