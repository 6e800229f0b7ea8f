"""The residual multilayer perceptron."""

import math
from typing import TYPE_CHECKING

from jaxtyping import PRNGKeyArray

from mupc.data import Dataset
from mupc.networks import Chain, residual_mlp
from mupc.settings.network import ACTIVATIONS, Activation, NetworkKind, OfActivation
from mupc.settings.setting import Count, unheeded

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


class ResidualMLP(OfActivation, NetworkKind):
    """Fully connected residual layers (arXiv 2505.13124, Eq. 1)."""

    kind = "residual-mlp"
    sizes = ("depth", "width")

    depth: Count = 128
    """Number of hidden layers H."""
    width: Count = 128
    """Width N of every hidden layer."""
    activation: Activation = "relu"
    """Activation function φ."""
    skips: bool = True
    """Residual (skip) connections."""
    biases: bool = False
    """Biases in every layer."""

    def view(self, data: Dataset) -> Dataset:
        """Return the data with samples as rows."""
        return data.flattened()

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Chain:
        """Return a new network."""
        return residual_mlp(
            math.prod(shape),
            outputs,
            width=self.width,
            depth=self.depth,
            activation=ACTIVATIONS[self.activation],
            skips=self.skips,
            biases=self.biases,
            parameterisation=self.parameterisation.build(),
            key=key,
        )

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
