"""What every model over weather fields eats and says, and what builds it. Plain data, standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from models.errors import InputError

Kind = TypeVar("Kind", bound="WeatherSpec")


@dataclass(frozen=True)
class WeatherSpec:
    """What the Specs of rain and of downscaling share.

    Attributes:
        channels: names of the input fields in the order of the model's channels.
        units: the unit of each as the training files have it; empty where they say none.
        mean: mean of each, used to normalise inside the model.
        std: standard deviation of each.
        times: time steps of the input.
        step: hours between them.
        leads: hours from the last input time that the model was trained to look ahead.
        window: hours (from, to] around input time plus lead that are told of.
        target: name of what is predicted.
        scale: standard deviation of what is learned: the training rain, or the detail that bicubic leaves out.
        position: whether the model knows latitude, longitude and hour.
        unit: unit of the target; empty where the files say none.
        levels: levels of the quantiles that are told, if any.
        thresholds: values whose exceedance is told, if any.
        task: "rain" or "downscale".
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    times: int = 1
    step: float = 0.0
    leads: tuple[float, ...] = (0.0,)
    window: tuple[float, float] = (0.0, 0.0)
    target: str = ""
    scale: float = 1.0
    position: bool = True
    unit: str = ""
    levels: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    task: str = ""

    def __post_init__(self) -> None:
        """Check the contract at birth."""
        sizes = {len(self.channels), len(self.units), len(self.mean), len(self.std)}
        if len(sizes) > 1 or not self.channels:
            raise InputError(f"{sizes} channels, units, means and deviations: one each is wanted")
        if len(set(self.channels)) < len(self.channels):
            raise InputError(f"variables {', '.join(self.channels)}: one is named twice")
        if self.times < 1 or (self.times > 1 and self.step <= 0):
            raise InputError(f"times {self.times}, step {self.step} h: wanted 1 time or more, and a step above 0")
        if not self.leads or min(self.leads) < 0 or max(self.leads) > 24:
            raise InputError(f"leads {list(self.leads)}: wanted hours from 0 to 24")

    @classmethod
    def from_json(cls: type[Kind], data: Mapping[str, Any]) -> Kind:
        """Build a Spec from the plain types of `dataclasses.asdict`.

        Raises:
            InputError: a key is missing, unknown or of the wrong kind.
        """
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**fields)
        except TypeError as error:
            raise InputError(f"not a {cls.task} Spec: {error}") from error


@dataclass(frozen=True)
class WeatherArchitecture:
    """What, beside the Spec and the name of the backbone, builds a network again.

    Attributes:
        overrides: fields of the encoder's configuration (`WxCConfig`) that differ from its own, such as embed_dim: 64.
        channels: features that the tokens become at the resolution of the fields.
        detail: width of the convolutions beside the tokens.
        members: networks over the one encoder whose answers are averaged.
        dropout: share of feature maps dropped while training.
        token_dropout: share of samples that train without the tokens.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 16
    detail: int = 48
    members: int = 1
    dropout: float = 0.15
    token_dropout: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for key in ("channels", "detail", "members"):
            if getattr(self, key) < 1:
                raise InputError(f"model.{key} {getattr(self, key)}: wanted 1 or more")
        for key in ("dropout", "token_dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise InputError(f"model.{key} {getattr(self, key)}: wanted 0 or more, below 1")


@dataclass(frozen=True)
class Augmentation:
    """What another day may differ in.

    Attributes:
        offset: spread of the random offset on each field of a sample, in its standard deviations.
        gain: spread of the random factor on each field's deviations.
        shift: degrees by which a sample's latitudes and longitudes are moved at most, so that places are not learned.
        turns: turn samples by 180 degrees (the equations of motion stay as they are on an f-plane) and mirror them from
            north to south with their latitudes, as in the other hemisphere; wind changes its sign.
    """

    offset: float = 0.0
    gain: float = 0.0
    shift: float = 0.0
    turns: bool = False

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for key, most in (("offset", 10.0), ("gain", 10.0), ("shift", 180.0)):
            if not 0 <= getattr(self, key) <= most:
                raise InputError(f"augment.{key} {getattr(self, key)}: wanted 0 to {most:g}")
