"""Networks that generate data from latent variables."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxtyping import PRNGKeyArray

from mupc.data import Dataset
from mupc.networks import Network, class_decoder, conv_decoder, decoder
from mupc.records import counted
from mupc.settings.convolutional import OfImages
from mupc.settings.mlp import FullyConnected
from mupc.settings.network import (
    ACTIVATIONS,
    Activation,
    GenerativeLaws,
    NetworkKind,
    OfActivation,
    ParameterisationKind,
)
from mupc.settings.setting import ConfigError, Count

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


class Generating(OfActivation, NetworkKind):
    """What a network of latent variables asks of the rest."""

    generates = True
    free = True
    pictures = "drawn"
    brings: ClassVar[Mapping[str, Any]] = {
        "scale": "unit",
        "regime": "fixed",
        "precision": 10.0,
        "hidden_precision": 10_000.0,
        "solver": "l-bfgs",
        # Few samples take more than 15, but hidden errors of those that have not settled are
        # learned as much as those of all others, and in the end nothing else is.
        "max_steps": 60,
        "coordinates": "whitened",
        "learning_rate": 0.005,
    }

    latents: Count = 64
    """Number of latent variables, which have a prior N(0, I) and are inferred."""
    activation: Activation = "tanh"
    """Activation function φ."""
    parameterisation: ParameterisationKind = GenerativeLaws()

    def view(self, data: Dataset) -> Dataset:
        """Return the data in the shape that the network takes, as their own targets."""
        shaped = super().view(data)
        # Targets with positions, of text, are refused as they are.
        return shaped if data.train.y.ndim > 2 else self._generated(shaped)

    def _generated(self, data: Dataset) -> Dataset:
        """Return the data as what is generated."""
        return data.reconstructed()

    @property
    def _stays_at_zero(self) -> bool:
        """Whether no error reaches latent variables of zero, without biases."""
        return self.activation == "relu"

    def check(self, config: "Configuration") -> None:
        """Refuse rules that do not infer the input, and regimes in which it is hardly inferred."""
        super().check(config)
        if (rule := config.rule.kind) not in ("predictive-coding", "monte-carlo"):
            raise ConfigError(
                f"`network` {self.kind} has latent variables, which `rule` {rule} does not infer: "
                "choose predictive-coding or monte-carlo"
            )
        if rule == "predictive-coding" and self._stays_at_zero:
            raise ConfigError(
                f"`activation` {self.activation} has no derivative at zero, where latent variables "
                "begin, so that inference would leave them there: choose tanh, silu or gelu"
            )
        if getattr(config.dataset, "augment", "none") != "none":
            raise ConfigError(
                f"`network` {self.kind} takes no `augment`, which changes inputs and not targets"
            )
        regime: Any = getattr(config.rule, "regime", None)
        if regime is not None and (kind := regime.kind) != "fixed":
            raise ConfigError(
                f"`network` {self.kind} takes no `regime` {kind}, which is for networks near "
                "backpropagation, where latent variables stay at their mean: choose `regime` fixed "
                "and a `precision`"
            )


class Decoder(Generating, FullyConnected):
    """Fully connected layers that generate data from latent variables."""

    # Weights that grow make latent variables small, where tanh is a line.
    brings: ClassVar[Mapping[str, Any]] = {
        **Generating.brings,
        "learning_rate": 0.01,
        "weight_bound": 1.0,
    }
    kind = "decoder"
    make = decoder
    sizes = ("latents", "depth", "width")

    depth: Count = 2
    """Number of hidden layers between them and the data."""
    biases: bool = True
    """Biases in every layer."""

    def _inputs(self, shape: tuple[int, ...]) -> int:
        return self.latents

    @property
    def hidden(self) -> int:
        """The number of its hidden layers, the latent variables' among them."""
        return self.depth + 1

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return f"{self.latents} latent variables, {super().describes}"


class ClassDecoder(Decoder):
    """Fully connected layers that generate data of classes, each by latent variables of its own."""

    brings: ClassVar[Mapping[str, Any]] = {
        **Generating.brings,
        "coordinates": "errors",
        "max_steps": 15,
    }
    kind = "class-decoder"
    make = class_decoder
    free = False

    latents: Count = 16
    """Number of latent variables of each class, which have a prior N(0, I) and are inferred."""

    def _generated(self, data: Dataset) -> Dataset:
        return data.reversed()

    @property
    def _stays_at_zero(self) -> bool:
        return False  # the class is not zero

    def _inputs(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    @property
    def _further(self) -> Mapping[str, Any]:
        return {"latents": self.latents}

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        hidden = f"{self.depth} layers of width {self.width}, {self.parameterisation.kind}"
        return f"{self.latents} latent variables of each class, {hidden}"


class ConvDecoder(Generating, OfImages):
    """Convolutional layers that generate images from a small image of latent variables."""

    brings: ClassVar[Mapping[str, Any]] = {**Generating.brings, "weight_bound": 1.0}
    kind = "conv-decoder"
    sizes = ("latents", "blocks", "channels")

    latents: Count = 8
    """Channels of the small image of latent variables, which have a prior N(0, I)."""
    doublings: Count = 2
    """How often the sides of that image are doubled until they are those of the data."""
    blocks: Count = 1
    """Residual blocks of each stage: one at the first size, and one after each doubling."""
    channels: Count = 16
    """Channels of the last stage; each one before has twice as many, and half the pixels a side."""
    error_kernels: Literal["tied", "learned"] = "tied"
    """Kernels that carry errors back: `tied`, those of the predictions, for the exact gradient; or
    `learned`, others that learn what these do, as in convolutional neural generative coding."""

    @property
    def _stays_at_zero(self) -> bool:
        return self.error_kernels == "tied" and super()._stays_at_zero

    def check(self, config: "Configuration") -> None:
        """Refuse methods that need a gradient where errors go back by kernels of their own."""
        super().check(config)
        rule: Any = config.rule
        if self.error_kernels == "learned" and rule.kind == "monte-carlo":
            raise ConfigError(
                "`rule` monte-carlo samples by the gradient of an energy, which `error_kernels` "
                "learned do not give: choose `rule` predictive-coding"
            )
        if self.error_kernels == "learned" and not rule.solver.build().follows:
            raise ConfigError(
                f"`solver` {rule.solver.kind} as it is needs the gradient of an energy, which "
                "`error_kernels` learned do not give: choose `solver` gradient-descent, "
                "`coordinates` activities, and a number for `step_size`"
            )

    def check_data(self, data: Dataset) -> None:
        """Refuse what are no images, or images whose sides cannot be halved so often."""
        self.check_images(data)

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Network:
        """Return a new network."""
        height, width, channels = shape
        return conv_decoder(
            self.latents,
            (height, width, channels),
            doublings=self.doublings,
            blocks=self.blocks,
            channels=self.channels,
            activation=ACTIVATIONS[self.activation],
            error_kernels=self.error_kernels == "learned",
            parameterisation=self.parameterisation.build(),
            key=key,
        )

    @property
    def hidden(self) -> int:
        """The number of its hidden layers, the latent variables' among them."""
        return (self.doublings + 1) * (self.blocks + 1) + 1

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        stages = f"{counted(self.doublings + 1, 'stage')} of {counted(self.blocks, 'block')}"
        laws = self.parameterisation.kind
        return f"latent images of {counted(self.latents, 'channel')}, {stages}, {laws}"
