"""What every network is, for settings, and its parameterisation."""

import abc
from typing import Annotated, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import PRNGKeyArray

from mupc import parameterisations
from mupc.data import Dataset
from mupc.networks import Network, identity
from mupc.parameterisations import Parameterisation
from mupc.settings.setting import ConfigError, Kind, Positive

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "linear": identity,
}

Activation = Literal["relu", "tanh", "gelu", "silu", "linear"]
Exponent = Annotated[float, Ge(0), Le(1)]


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


class HopfieldLaws(ParameterisationKind):
    """`mupc` for layers that are coupled both ways: branches of 1/√(L³)."""

    kind = "hopfield"

    gamma: Positive = 1.0
    """γ: divides the readout's multiplier."""

    def build(self) -> Parameterisation:
        """Return the parameterisation."""
        initialise = getattr(parameterisations, self.initialisation)
        return parameterisations.hopfield(self.gamma, initialise=initialise)


class NTK(ParameterisationKind):
    """The neural tangent parameterisation, with 1/√L on branches."""

    kind = "ntk"


class GenerativeLaws(ParameterisationKind):
    """`ntk` for networks that generate: rates of residual layers that fall with their number."""

    kind = "generative"


class Standard(ParameterisationKind):
    """Weights of variance 1/fan-in, no multipliers."""

    kind = "standard"


class NetworkKind(Kind):
    """Network."""

    slot = "network"
    sizes: ClassVar[tuple[str, ...]] = ()
    """The fields that say how large it is, which name a run."""
    images: ClassVar[bool] = False
    """Whether it takes images, (height, width, channels)."""
    generates: ClassVar[bool] = False
    """Whether it generates its targets from latent variables."""
    free: ClassVar[bool] = False
    """Whether all of its input is latent variables."""
    pictures: ClassVar[Literal["none", "drawn", "classes"]] = "none"
    """Which pictures it makes: as many as are drawn, or one of each class."""
    settles: ClassVar[bool] = False
    """Whether its layers settle together, and predict nothing."""

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
    def boxed(self) -> bool:
        """Whether its states are on a box."""
        return False

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return self.kind


class OfActivation:
    """What follows for a network of linear layers from its activation function."""

    activation: Activation

    @property
    def linear(self) -> bool:
        """Whether its output is linear in its input."""
        return self.activation == "linear"

    @property
    def kinks(self) -> bool:
        """Whether its activation function has a kink."""
        return self.activation == "relu"


PARAMETERISATIONS: tuple[type[ParameterisationKind], ...] = (
    MuPC,
    HopfieldLaws,
    GenerativeLaws,
    NTK,
    Standard,
)
