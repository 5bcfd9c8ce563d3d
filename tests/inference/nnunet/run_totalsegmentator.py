"""TotalSegmentator's own program on a scan, its nnU-Net adding in float32: run with its weights in $nnUNet_results.

python -m tests.inference.nnunet.run_totalsegmentator SCAN LABELS TASK TRAINER SPACING DATASET [DATASET ...]
"""

import pathlib
import sys


def main(scan, labels, task, trainer, spacing, *datasets):
    import nnunetv2.inference.predict_from_raw_data as predicting
    import torch
    from totalsegmentator import nnunet

    gaussian = predicting.compute_gaussian

    def in_float32(*arguments, **options):
        return gaussian(*arguments, **{**options, "dtype": torch.float32})

    in_float32.cache_clear = gaussian.cache_clear
    predicting.compute_gaussian, torch.half = in_float32, torch.float32
    numbers = [int(number) for number in datasets]
    nnunet.nnUNet_predict_image(
        *(scan, pathlib.Path(labels), numbers if len(numbers) > 1 else numbers[0]),
        **{"model": "3d_fullres", "folds": [0], "trainer": trainer, "tta": False, "multilabel_image": True},
        **{"resample": float(spacing), "task_name": task, "device": "cpu", "quiet": True},
        **{"nr_threads_resampling": 1, "nr_threads_saving": 1},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
