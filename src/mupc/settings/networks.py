"""Networks."""

import abc
import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import PRNGKeyArray

from mupc import parameterisations
from mupc.data import Dataset
from mupc.networks import Chain, Network, conv_resnet, identity, residual_mlp, transformer
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


Exponent = Annotated[float, Ge(0), Le(1)]
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
    exponent: Exponent = 0.5
    """α of the branch multiplier L^−α: 0.5 as in Depth-μP; 1 suits branches of several matrices."""

    def build(self) -> Parameterisation:
        """Return the parameterisation."""
        initialise = getattr(parameterisations, self.initialisation)
        return parameterisations.mupc(self.gamma, exponent=self.exponent, initialise=initialise)


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

    def check_data(self, data: Dataset) -> None:
        """Refuse data of another form than the network takes and gives.

        Raises:
            ConfigError: if inputs or targets are.
        """
        if (shape := data.train.y.shape[1:]) != (data.outputs,):
            raise ConfigError(
                f"the targets of {data.name} are of shape {shape} per sample, and the network "
                f"{self.kind} predicts one row: choose `network` transformer for tokens, or train "
                "one of your own with mupc.fit"
            )

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

    def check_data(self, data: Dataset) -> None:
        """Refuse what are no images, or too small ones for the stages."""
        super().check_data(data)
        if len(data.shape) != 3:
            raise ConfigError(
                "`network` conv-resnet takes images (height, width, channels), and the inputs of "
                f"{data.name} are of shape {data.shape}: choose residual-mlp"
            )
        if min(data.shape[:2]) < 2 ** (self.stages - 1):
            raise ConfigError(
                f"`stages` {self.stages} halve images {self.stages - 1} times, which is too often "
                f"for {data.shape[0]} × {data.shape[1]} pixels: give fewer"
            )

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Chain:
        """Return a new network."""
        height, width, channels = shape
        return conv_resnet(
            (height, width, channels),
            outputs,
            blocks=(self.blocks,) * self.stages,
            channels=self.channels,
            convolutions=self.convolutions,
            activation=_ACTIVATIONS[self.activation],
            parameterisation=self.parameterisation.build(),
            key=key,
        )

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


class Transformer(NetworkKind):
    """Causal transformer of tokens, with an activity for every branch."""

    kind = "transformer"
    sizes = ("pairs", "width")

    parameterisation: ParameterisationKind = MuPC(exponent=1.0)
    pairs: Count = 4
    """Pairs of an attention and a perceptron branch."""
    width: Count = 128
    """Width N of an activity at a position."""
    head_width: Count = 32
    """Width of a head of attention, or that of the network if it is smaller."""

    def check_data(self, data: Dataset) -> None:
        """Refuse what are no tokens with a target at every position."""
        x, y = data.train
        if x.dtype.kind not in "iu" or x.ndim != 2 or y.shape[:-1] != x.shape:
            raise ConfigError(
                "`network` transformer takes tokens, whole numbers (samples, positions), and a row "
                f"of targets for each; those of {data.name} are of shapes {x.shape} and {y.shape}: "
                "choose `dataset` text"
            )

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Chain:
        """Return a new network."""
        return transformer(
            outputs,
            context=shape[0],
            pairs=self.pairs,
            width=self.width,
            heads=max(self.width // self.head_width, 1),
            parameterisation=self.parameterisation.build(),
            key=key,
        )

    @property
    def hidden(self) -> int:
        """The number of its hidden layers: the embedding and every branch."""
        return 2 * self.pairs + 1

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        laws = self.parameterisation.kind
        return f"{self.pairs} pairs of attention and perceptron of width {self.width}, {laws}"

    def check(self, config: "Configuration") -> None:
        """Refuse a width that is no multiple of that of the heads."""
        if self.width > self.head_width and self.width % self.head_width:
            raise ConfigError(
                f"`width` must be a multiple of `head_width` {self.head_width}, not {self.width}"
            )


NETWORKS: tuple[type[NetworkKind], ...] = (ResidualMLP, ConvResNet, Transformer)
PARAMETERISATIONS: tuple[type[ParameterisationKind], ...] = (MuPC, NTK, Standard)
