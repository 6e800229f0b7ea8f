"""Networks."""

import abc
import math
from typing import TYPE_CHECKING, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from mupc import parameterisations
from mupc.data import Dataset
from mupc.networks import Chain, Network, conv_resnet, identity, residual_mlp
from mupc.parameterisations import Parameterisation
from mupc.settings.setting import ConfigError, Count, Kind, Positive, unheeded

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration

_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "linear": identity,
}


Activation = Literal["relu", "tanh", "gelu", "silu", "linear"]


class ParameterisationKind(Kind):
    """How initial weights, multipliers and rate factors scale with size."""

    slot = "parameterisation"

    initialisation: Literal["normal", "orthogonal"] = "normal"
    """Distribution of the initial weights."""

    def build(self) -> Parameterisation:
        """Return the parameterisation."""
        make = getattr(parameterisations, self.kind)
        return make(initialise=getattr(parameterisations, self.initialisation))


class MuPC(ParameterisationKind):
    """Depth-μP for predictive coding (arXiv 2505.13124)."""

    kind = "mupc"

    gamma: Positive = 1.0
    """γ: divides the readout's multiplier."""

    def build(self) -> Parameterisation:
        """Return the parameterisation."""
        initialise = getattr(parameterisations, self.initialisation)
        return parameterisations.mupc(gamma=self.gamma, initialise=initialise)


class NTK(ParameterisationKind):
    """The neural tangent parameterisation, with 1/√L on branches."""

    kind = "ntk"


class Standard(ParameterisationKind):
    """Weights of variance 1/fan-in, no multipliers."""

    kind = "standard"


class NetworkKind(Kind):
    """Network."""

    slot = "network"
    sizes: ClassVar[tuple[str, ...]] = ()
    """The fields that say how large it is, which name a run."""

    parameterisation: ParameterisationKind = MuPC()

    def view(self, data: Dataset) -> Dataset:
        """Return the data in the shape that the network takes."""
        return data

    @abc.abstractmethod
    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Network:
        """Return a new network.

        Args:
            shape: of one input.
            outputs: width of an output.
            key: draws the weights.
        """

    def shapes(self, shape: tuple[int, ...], outputs: int) -> Network:
        """Return the network without its arrays: their shapes are in their place."""
        return eqx.filter_eval_shape(self.build, shape, outputs, jax.random.key(0))

    @property
    @abc.abstractmethod
    def hidden(self) -> int:
        """The number of its hidden layers."""

    @property
    def linear(self) -> bool:
        """Whether its output is linear in its input."""
        return False

    @property
    def kinks(self) -> bool:
        """Whether its activation function has a kink."""
        return False

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return self.kind


class ResidualMLP(NetworkKind):
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
            activation=_ACTIVATIONS[self.activation],
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
    def linear(self) -> bool:
        """Whether its output is linear in its input."""
        return self.activation == "linear"

    @property
    def kinks(self) -> bool:
        """Whether its activation function has a kink."""
        return self.activation == "relu"

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return f"{self.depth} layers of width {self.width}, {self.parameterisation.kind}"

    def check(self, config: "Configuration") -> None:
        """Refuse the absence of skips where there is nothing to skip."""
        if self.depth == 1 and not self.skips:
            raise unheeded("skips", "a `depth` of 1 has no hidden block")


class ConvResNet(NetworkKind):
    """Residual convolutional network of images."""

    kind = "conv-resnet"
    sizes = ("blocks", "channels")

    blocks: Count = 3
    """Residual blocks in every stage; there are 3 n + 4 layers of weights with three stages."""
    channels: Count = 16
    """Channels of the first stage; each later one has twice as many, and half the pixels a side."""
    stages: Count = 3
    """Stages."""
    convolutions: Literal[1, 2] = 1
    """Convolutions in a block; with 2 they are those of ResNet-18 and ResNet-110."""
    activation: Activation = "relu"
    """Activation function φ."""

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Chain:
        """Return a new network.

        Raises:
            ConfigError: if the inputs are no images, or too small for the stages.
        """
        if len(shape) != 3:
            raise ConfigError(
                "`network` conv-resnet takes images (height, width, channels), not inputs of shape "
                f"{shape}: use residual-mlp"
            )
        try:
            return conv_resnet(
                (shape[0], shape[1], shape[2]),
                outputs,
                blocks=(self.blocks,) * self.stages,
                channels=self.channels,
                convolutions=self.convolutions,
                activation=_ACTIVATIONS[self.activation],
                parameterisation=self.parameterisation.build(),
                key=key,
            )
        except ValueError as error:
            raise ConfigError(f"`stages`: {error}") from error

    @property
    def hidden(self) -> int:
        """The number of its hidden layers."""
        return self.stages * (self.blocks + 1)

    @property
    def linear(self) -> bool:
        """Whether its output is linear in its input."""
        return self.activation == "linear"

    @property
    def kinks(self) -> bool:
        """Whether its activation function has a kink."""
        return self.activation == "relu"

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        laws = self.parameterisation.kind
        stages = f"{self.stages} stages of {self.blocks} blocks"
        return f"{stages}, {self.channels} channels and more, {self.hidden + 1} layers, {laws}"


NETWORKS: tuple[type[NetworkKind], ...] = (ResidualMLP, ConvResNet)
PARAMETERISATIONS: tuple[type[ParameterisationKind], ...] = (MuPC, NTK, Standard)
