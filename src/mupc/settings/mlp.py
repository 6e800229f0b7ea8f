"""Fully connected networks: the residual multilayer perceptron, in one direction and in two."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import PRNGKeyArray

from mupc.data import Dataset
from mupc.networks import Network, bidirectional_mlp, decoder, residual_mlp
from mupc.settings.network import (
    ACTIVATIONS,
    NTK,
    Activation,
    NetworkKind,
    OfActivation,
    ParameterisationKind,
)
from mupc.settings.setting import ConfigError, Count, unheeded

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


class FullyConnected(NetworkKind):
    """Fully connected layers of one width."""

    sizes = ("depth", "width")
    make: ClassVar[Callable[..., Network]]

    depth: Count = 128
    """Number of hidden layers H."""
    width: Count = 128
    """Width N of every hidden layer."""
    skips: bool = True
    """Residual (skip) connections."""
    biases: bool = False
    """Biases in every layer."""

    def view(self, data: Dataset) -> Dataset:
        """Return the data with samples as rows."""
        return data.flattened()

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Network:
        """Return a new network."""
        own: Any = self
        return type(self).make(
            self._inputs(shape),
            outputs,
            width=self.width,
            depth=self.depth,
            activation=ACTIVATIONS[own.activation],
            skips=self.skips,
            biases=self.biases,
            parameterisation=self.parameterisation.build(),
            key=key,
        )

    def _inputs(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers the first layer reads."""
        return math.prod(shape)

    @property
    def hidden(self) -> int:
        """The number of its hidden layers."""
        return self.depth

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return f"{self.depth} layers of width {self.width}, {self.parameterisation.kind}"

    def check(self, config: "Configuration") -> None:
        """Refuse the absence of skips where there is nothing to skip."""
        if self.depth == 1 and not self.skips:
            raise unheeded("skips", "a `depth` of 1 has no hidden block")


class ResidualMLP(OfActivation, FullyConnected):
    """Fully connected residual layers (arXiv 2505.13124, Eq. 1)."""

    kind = "residual-mlp"
    make = residual_mlp

    activation: Activation = "relu"
    """Activation function φ."""


class Decoder(OfActivation, FullyConnected):
    """Fully connected layers that generate data from latent variables."""

    kind = "decoder"
    generates = True
    make = decoder
    sizes = ("latents", "depth", "width")
    brings: ClassVar[Mapping[str, Any]] = {
        "scale": "unit",
        "regime": "fixed",
        "precision": 10.0,
        "hidden_precision": 10_000.0,
        "solver": "l-bfgs",
        "max_steps": 15,
        "learning_rate": 0.005,
    }

    latents: Count = 64
    """Number of latent variables, which have a prior N(0, I) and are inferred."""
    depth: Count = 2
    """Number of hidden layers between them and the data."""
    activation: Activation = "tanh"
    """Activation function φ."""
    biases: bool = True
    """Biases in every layer."""
    parameterisation: ParameterisationKind = NTK()

    def view(self, data: Dataset) -> Dataset:
        """Return the data with samples as rows, which are their own targets."""
        rows = super().view(data)
        # Targets with positions, of text, are refused as they are.
        return rows if data.train.y.ndim > 2 else rows.reconstructed()

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

    def check(self, config: "Configuration") -> None:
        """Refuse rules that do not infer the input, and regimes in which it is hardly inferred."""
        super().check(config)
        if (rule := config.rule.kind) != "predictive-coding":
            raise ConfigError(
                f"`network` decoder has latent variables, which `rule` {rule} does not infer: "
                "choose predictive-coding"
            )
        if getattr(config.dataset, "augment", "none") != "none":
            raise ConfigError(
                "`network` decoder takes no `augment`, which changes inputs and not targets"
            )
        regime: Any = config.rule
        if (kind := regime.regime.kind) != "fixed":
            raise ConfigError(
                f"`network` decoder takes no `regime` {kind}, which is for networks near "
                "backpropagation, where latent variables stay at their mean: choose `regime` fixed "
                "and a `precision`"
            )


class BidirectionalMLP(OfActivation, FullyConnected):
    """Fully connected residual layers in either direction, over one set of activities."""

    kind = "bidirectional-mlp"
    brings: ClassVar[Mapping[str, Any]] = {"rule": "bidirectional"}
    make = bidirectional_mlp

    activation: Activation = "relu"
    """Activation function φ."""

    def check(self, config: "Configuration") -> None:
        """Refuse rules of networks of one direction."""
        super().check(config)
        if (rule := config.rule.kind) not in ("bidirectional", "hybrid"):
            raise ConfigError(
                f"`network` bidirectional-mlp is two networks, of which `rule` {rule} trains one: "
                "choose `rule` bidirectional or hybrid, or `network` residual-mlp"
            )
