"""What can be set of a prediction, in one value: the same for whoever predicts, scores, labels or validates."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ukbob_jax.data.options import Config
from ukbob_jax.errors import ConfigError
from ukbob_jax.inference.adaptation import methods
from ukbob_jax.inference.adaptation.methods import Method, MethodLike
from ukbob_jax.inference.windows import averaging
from ukbob_jax.inference.windows.averaging import View
from ukbob_jax.inference.windows.window import Window, fractions
from ukbob_jax.quality.limits import Limits


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Options of `Segmenter.predict`.

    Attributes:
        overlap: fraction of a window that its neighbour covers; one number, or one per axis.
        blend: of overlapping windows, "gaussian" or "constant".
        batch: windows in a call of the network.
        views: averaged; `averaging.MIRRORED` adds the mirror image, sides exchanged.
        method: how the network is adapted to the scan, as `Method.parse` reads it; "tta" replaces the views.
        gate: remove structures whose part of the body is not in the scan; see `body_parts`.
        limits: of SOLF; the report then says of each structure whether it keeps to them.
        accept_unusual: segment scans that are unlike those of training, see `volumes.plausibility`, instead of refusing
            them; the report then says in what.
        series: of a folder of DICOM files that holds several, as `volumes.dicom.read_series`.
        nan: "zero" sets NaN and infinite voxels of files to 0 with a warning instead of refusing the file.
        attributes: of the person: `sex` ("F" or "M") and `height_mm`, for limits with strata and for `gate`.

    Raises:
        ConfigError: the method or one of its options cannot be used.
    """

    overlap: float | Sequence[float] = Window.overlap
    blend: str = Window.blend
    batch: int = Window.batch
    views: Sequence[View] = averaging.PLAIN
    method: MethodLike = "off"
    gate: bool = False
    limits: Limits | None = None
    accept_unusual: bool = False
    nan: Literal["refuse", "zero"] = "refuse"
    series: str = ""
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bring the values into one form."""
        object.__setattr__(self, "method", Method.parse(self.method))
        object.__setattr__(self, "overlap", fractions(self.overlap))
        object.__setattr__(self, "views", tuple(self.views))

    @property
    def adaptation(self) -> Method:
        """The method with its options."""
        return Method.parse(self.method)

    @property
    def averaged_views(self) -> tuple[View, ...]:
        """The views, or those of test-time augmentation where that is the method."""
        return averaging.AUGMENTED if self.adaptation.name == "tta" else tuple(self.views)

    def window(self, roi: Sequence[int]) -> Window:
        """The window of a network of this size, with the overlap, blend and batch chosen here."""
        return Window(roi, self.overlap, self.blend, self.batch)

    def to_json(self) -> dict[str, Any]:
        """What decides about the labels; `limits` judge them and change none."""
        values = {name: getattr(self, name) for name in ("overlap", "blend", "batch", "gate")}
        return {
            **values,
            "views": [view._asdict() for view in self.averaged_views],
            **self.adaptation.to_json(),
        }


def from_config(config: Config, method: str = "off", field: str = "method") -> PredictOptions:
    """Options of a prediction as a recipe sets them: its section `inference`, and the section of the method.

    Jobs that predict, score, label and validate all come here, so that what is scored is what is predicted.

    Args:
        config: the recipe.
        method: one of `METHODS`.
        field: of the recipe that names the method, for messages.

    Raises:
        ConfigError: the method or one of its options cannot be used.
    """
    try:
        methods.check((method,))
    except ConfigError as error:
        raise ConfigError(f"config.{field}: {error}") from error
    window = config.inference
    chosen = config[method].to_dict() if method in methods.OPTIONS else {}
    return PredictOptions(
        overlap=window.overlap,
        blend=window.blend,
        batch=window.batch,
        views=averaging.MIRRORED if window.mirror else averaging.PLAIN,
        method={"method": method, **chosen},
        gate=window.gate,
        accept_unusual=True,  # subjects of a store are measured as they are; the predict job refuses
    )
