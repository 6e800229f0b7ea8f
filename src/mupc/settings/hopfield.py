"""Hopfield networks: layers that are coupled both ways, and settle together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from jaxtyping import PRNGKeyArray
from pydantic import AfterValidator

from mupc.data import Dataset
from mupc.networks import Hopfield, layered_hopfield, read_couplings, residual_hopfield
from mupc.networks.vgg import Layer
from mupc.settings.mlp import FullyConnected
from mupc.settings.network import (
    ACTIVATIONS,
    Activation,
    HopfieldLaws,
    NetworkKind,
    ParameterisationKind,
    Standard,
)
from mupc.settings.setting import ConfigError, unheeded

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration
    from mupc.settings.rules import EquilibriumPropagationRule


def _readable(text: str) -> str:
    read_couplings(text)
    return text


class Settling(NetworkKind):
    """What a network whose layers settle together asks of the rule."""

    settles = True
    brings: ClassVar[Mapping[str, Any]] = {"rule": "equilibrium-propagation"}

    def check(self, config: "Configuration") -> None:
        """Refuse rules and methods that are for predictions."""
        super().check(config)
        if (rule := config.rule.kind) not in ("equilibrium-propagation", "backpropagation"):
            raise ConfigError(
                f"`network` {self.kind} makes no predictions, which `rule` {rule} needs: "
                "choose equilibrium-propagation, or backpropagation through its relaxation"
            )


class ResidualHopfield(Settling, FullyConnected):
    """Fully connected layers, coupled both ways, that settle together."""

    kind = "residual-hopfield"
    make = residual_hopfield

    activation: Activation = "tanh"
    """Activation function φ of the states."""
    parameterisation: ParameterisationKind = HopfieldLaws()


class LayeredHopfield(Settling):
    """A few layers, also convolutional ones, that settle together with the output."""

    brings: ClassVar[Mapping[str, Any]] = {
        **Settling.brings,
        "solver": "fixed-point",
        "nudged_steps": 4,
        "learning_rate": 0.0005,
        "learning_rate_rule": "raw",
    }
    kind = "layered-hopfield"
    sizes = ("couplings",)
    images = True

    couplings: Annotated[str, AfterValidator(_readable)] = "d512"
    """Layers: convolutions as of vgg, such as 32p, then d and a width, such as "32p 64p d128"."""
    pool: Literal["max", "average"] = "max"
    """What is taken of every 2 × 2 pixels of a pooled layer."""
    activation: Activation | Literal["box"] = "box"
    """Activation function φ of the states; `box`: the identity, of states that stay in 0 to 1."""
    parameterisation: ParameterisationKind = Standard()

    @property
    def boxed(self) -> bool:
        """Whether states are on a box."""
        return self.activation == "box"

    def check(self, config: "Configuration") -> None:
        """Refuse a pooling where nothing is pooled, and methods that would leave the box."""
        super().check(config)
        solver = getattr(config.rule, "solver", None)
        if self.boxed and solver is not None and solver.kind != "fixed-point":
            raise ConfigError(
                f"`solver` {solver.kind} would leave the box of `activation` box: use fixed-point"
            )
        if self.boxed and config.rule.activity_decay:
            raise ConfigError("states on a box (`activation` box) take no `activity_decay`")
        if self.boxed and config.rule.likelihood.kind == "laplace":
            raise ConfigError(
                "states on a box (`activation` box) take no `likelihood` laplace: use gaussian"
            )
        if self.boxed and solver is not None:
            rule = cast("EquilibriumPropagationRule", config.rule)
            name = "rho" if rule.beta == "rho" else "beta"
            if getattr(rule, name) >= 1 and rule.phases != "one-sided":
                raise ConfigError(
                    f"`{name}` must be below 1 with states on a box: nudged away from its target "
                    "by more, the output has no equilibrium; or choose `phases` one-sided"
                )
        pooled = any(not isinstance(one, int) and one.pooled for one in self._layers)
        if not pooled and self.pool != type(self).default("pool"):
            raise unheeded("pool", "no layer of `couplings` has a p")

    @property
    def _layers(self) -> list[Layer | int]:
        return read_couplings(self.couplings)

    def check_data(self, data: Dataset) -> None:
        """Refuse images that are too small, or rows where pixels are read."""
        super().check_data(data)
        try:
            self.shapes(data.shape, data.outputs)
        except ValueError as error:
            raise ConfigError(f"`network` {self.kind}: {error}") from error

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Hopfield:
        """Return a new network."""
        return layered_hopfield(
            shape,
            outputs,
            layers=self.couplings,
            activation=None if self.boxed else ACTIVATIONS[self.activation],
            pool=self.pool,
            parameterisation=self.parameterisation.build(),
            key=key,
        )

    @property
    def hidden(self) -> int:
        """The number of its states, the output's among them."""
        return len(self._layers) + 1

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return f"couplings {self.couplings}, {self.parameterisation.kind}"
