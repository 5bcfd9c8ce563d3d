"""Names of the reference cases of MONAI's sliding window."""


def reference_cases():
    names = [
        f"larger_{mode}_{overlap}"
        for mode in ("constant", "gaussian")
        for overlap in ("0.25", "0.5", "0.625")
    ]
    for kind in ("mixed", "smaller", "equal", "conv", "batch2", "large"):
        names += [f"{kind}_constant", f"{kind}_gaussian"]
    names += ["overlap0_constant", "overlap0.9_gaussian", "overlap_per_axis_gaussian", "roi_minus1_gaussian"]
    return names


NOT_OFFERED = {"sigma0.25_gaussian", "cval_constant", "replicate_gaussian"}  # no recipe sets width or padding
