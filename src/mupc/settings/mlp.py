"""Fully connected networks: the residual multilayer perceptron, in one direction and in two."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import PRNGKeyArray

from mupc.data import Dataset
from mupc.networks import Network, bidirectional_mlp, residual_mlp
from mupc.settings.network import ACTIVATIONS, Activation, NetworkKind, OfActivation
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
            **self._further,
            key=key,
        )

    def _inputs(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers the first layer reads."""
        return math.prod(shape)

    @property
    def _further(self) -> Mapping[str, Any]:
        """What else `make` takes."""
        return {}

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


class BidirectionalMLP(OfActivation, FullyConnected):
    """Fully connected residual layers in either direction, over one set of activities."""

    kind = "bidirectional-mlp"
    brings: ClassVar[Mapping[str, Any]] = {"rule": "bidirectional"}
    make = bidirectional_mlp
    pictures = "classes"

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
