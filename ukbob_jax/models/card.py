"""What must travel with a network's parameters for others to use them: its architecture, classes and input."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from ukbob_jax.errors import ConfigError, FileError, MismatchError
from ukbob_jax.models import architecture
from ukbob_jax.models.architecture import Size
from ukbob_jax.regions import Regions

PRETRAINING = "pretraining"  # without labels: the network's last layer predicts none
TASKS = ("segmentation", "regression", PRETRAINING)
VERSION = 1  # of what parameters mean; another number is refused
AXES = "x y z c, RAS+"  # of the arrays a network takes; others are refused
UNUSED = "unused"  # name of a class that no label map has
# Descriptions that were written before networks had names have the fields under `model`, the version under
# `architecture`, the window under `roi`, and are of this network.
FIRST_ARCHITECTURE = "swin_unetr"
FACTS = ("labels", "regions", "contrasts", "spacing_mm", "normalize", "window", "training", "provenance")


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """A network and what it was trained on; what is empty is not known.

    Attributes:
        architecture: name of the network's architecture.
        fields: of the network, JSON values.
        task: "segmentation", "regression" or "pretraining".
        labels: value in a label map -> name, background included.
        regions: of a network with one sigmoid channel per region; None: classes exclude each other.
        contrasts: names of the input's channels, in order.
        spacing_mm: x y z that scans are resampled to; None: they keep their own.
        normalize: how intensities are brought to the network's, see `volumes.intensity.normalize`.
        window: voxels x y z of the windows it was trained on.
        training: of the subjects it was trained on, as `TrainingData.extremes` and `appearance`, JSON values.
        provenance: where the parameters come from, JSON values.
    """

    architecture: str
    fields: Mapping[str, Any]
    task: str = "segmentation"
    labels: Mapping[int, str] = dataclasses.field(default_factory=dict)
    regions: Regions | None = None
    contrasts: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    normalize: str = ""
    window: Size = ()
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a task there is no such of."""
        if self.task not in TASKS:
            raise ConfigError(f"card: task {self.task!r} is unknown; choose one of {', '.join(TASKS)}.")

    @classmethod
    def of(cls, model: nn.Module, **facts: Any) -> "ModelCard":
        """The card of a module; `facts` are any of the other attributes."""
        found = architecture.of(model)
        return cls(found.name, found.fields(model), **facts)

    def build(self, dtype: str = "") -> Any:
        """The network; `dtype` of its arithmetic, empty: as it was trained.

        Raises:
            ConfigError: the architecture is unknown, or of a module that is not imported, or has other fields.
        """
        fields = {**self.fields, "dtype": dtype} if dtype else self.fields
        return architecture.find(self.architecture, imported_only=True).build(fields)

    @property
    def num_classes(self) -> int:
        """Channels of the network's output."""
        return len(self.regions.names) if self.regions else max(self.labels, default=-1) + 1

    @property
    def excluded(self) -> tuple[int, ...]:
        """Channels that no label map has and that are never predicted."""
        if self.regions:
            return ()
        return tuple(c for c in range(self.num_classes - 1) if self.labels.get(c, UNUSED) == UNUSED)

    @property
    def used(self) -> dict[int, str]:
        """Value -> name of the classes that predicted label maps have, background among them."""
        return {value: name for value, name in self.labels.items() if value not in self.excluded}

    @property
    def channels(self) -> dict[int, str]:
        """Channel of the network -> what it stands for."""
        return dict(enumerate(self.regions.names)) if self.regions else dict(self.labels)

    @property
    def region_labels(self) -> tuple[int, ...]:
        """The label each region writes into a label map, later ones over earlier ones; empty without regions."""
        return self.regions.region_labels if self.regions else ()

    @property
    def activation(self) -> str:
        """ "softmax", or "sigmoid" for a network of regions."""
        return "sigmoid" if self.regions else "softmax"

    def to_json(self) -> dict[str, Any]:
        """JSON values that `from_json` reads; attributes that are not known are left out."""
        known: dict[str, Any] = {
            "labels": {str(value): name for value, name in self.labels.items()},
            "regions": self.regions.to_json() if self.regions else None,
            "contrasts": list(self.contrasts),
            "spacing_mm": list(self.spacing_mm) if self.spacing_mm else None,
            "normalize": self.normalize,
            "window": list(self.window),
            "training": dict(self.training),
            "provenance": dict(self.provenance),
        }
        start = {"architecture": self.architecture, "fields": dict(self.fields), "task": self.task}
        return {**start, "version": VERSION, "axes": AXES, **{k: v for k, v in known.items() if v}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: Any) -> "ModelCard":
        """The card of a checkpoint's description: its own, the value of "card", or one in the form before cards.

        Args:
            value: JSON object.
            where: the file, for messages.
        Raises:
            FileError: it is not a card, or damaged.
            MismatchError: parameters of this version or axes are not those we use.
        """
        try:
            card = value.get("card", value)
            before = "model" in card
            version, axes = card.get("architecture" if before else "version"), card.get("axes", AXES)
            name = FIRST_ARCHITECTURE if before else card.get("architecture")
            fields = card.get("model" if before else "fields")
            if not isinstance(name, str) or not isinstance(fields, Mapping):
                raise TypeError("it does not say which model it is for")
            facts = facts_from_json({name: card[name] for name in (*FACTS, "roi") if name in card})
            found = cls(name, dict(fields), card.get("task", TASKS[0]), **facts)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FileError(f"{where}: its description cannot be used: {error}. Convert it again.") from None
        for what, theirs, ours in (("version", version, VERSION), ("axes", axes, AXES)):
            if theirs != ours:
                raise MismatchError(
                    f"{where}: was made for {what} {theirs!r}, not {ours!r}. Use the code it was made with."
                )
        return found


def facts_from_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a card from JSON values: any of `FACTS`; "roi" is an earlier name of "window".

    Raises:
        ConfigError: a key of another name.
        ValueError, TypeError, AttributeError: a value that cannot be one.
    """
    value = dict(value)
    if "roi" in value:
        value["window"] = value.pop("roi")
    if unknown := sorted(set(value) - set(FACTS)):
        raise ConfigError(f"card: unknown {', '.join(unknown)}; known are {', '.join(FACTS)}.")
    labels = {int(label): str(name) for label, name in (value.get("labels") or {}).items()}
    spacing = value.get("spacing_mm")
    facts = {
        "labels": labels,
        "regions": Regions.from_json(value["regions"], labels) if value.get("regions") else None,
        "contrasts": tuple(map(str, value.get("contrasts") or ())),
        "spacing_mm": tuple(map(float, spacing)) if spacing else None,
        "normalize": str(value.get("normalize") or ""),
        "window": tuple(map(int, value.get("window") or ())),
        "training": dict(value.get("training") or {}),
        "provenance": dict(value.get("provenance") or {}),
    }
    return {name: fact for name, fact in facts.items() if name in value}
