"""Networks of images."""

from typing import TYPE_CHECKING, Annotated, Literal

from jaxtyping import PRNGKeyArray
from pydantic import AfterValidator

from mupc.data import Dataset
from mupc.networks import Chain, conv_resnet, vgg
from mupc.networks.vgg import read_layers
from mupc.records import counted
from mupc.settings.network import ACTIVATIONS, Activation, NetworkKind, OfActivation
from mupc.settings.setting import ConfigError, Count, unheeded

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


def _readable(text: str) -> str:
    read_layers(text)
    return text


class OfImages(NetworkKind):
    """What a network of images asks of data."""

    images = True

    def check_data(self, data: Dataset) -> None:
        """Refuse what are no images, or images that are too small."""
        super().check_data(data)
        self.check_images(data)

    def check_images(self, data: Dataset) -> None:
        """Refuse inputs that are no images, or of which the network cannot be built.

        Raises:
            ConfigError: if they are such.
        """
        if len(data.shape) != 3:
            raise ConfigError(
                f"`network` {self.kind} takes images (height, width, channels), and the inputs of "
                f"{data.name} are of shape {data.shape}: choose residual-mlp"
            )
        try:
            self.shapes(data.shape, data.outputs)
        except ValueError as error:
            raise ConfigError(f"`network` {self.kind}: {error}") from error


class ConvResNet(OfActivation, OfImages):
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
        """Return a new network."""
        height, width, channels = shape
        return conv_resnet(
            (height, width, channels),
            outputs,
            blocks=(self.blocks,) * self.stages,
            channels=self.channels,
            convolutions=self.convolutions,
            activation=ACTIVATIONS[self.activation],
            parameterisation=self.parameterisation.build(),
            key=key,
        )

    @property
    def hidden(self) -> int:
        """The number of its hidden layers."""
        return self.stages * (self.blocks + 1)

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        laws = self.parameterisation.kind
        stages = f"{counted(self.stages, 'stage')} of {counted(self.blocks, 'block')}"
        return f"{stages}, {self.channels} channels and more, {self.hidden + 1} layers, {laws}"


class Vgg(OfImages):
    """Convolutional network of images without skips, as in the field's benchmark (2407.01163)."""

    kind = "vgg"
    sizes = ("layers",)

    layers: Annotated[str, AfterValidator(_readable)] = "vgg5"
    """`vgg5`, `vgg7`, `vgg9`, or the channels of every layer, with p if it is pooled and v if it is
    not padded, such as "128p 256 512p"."""
    pool: Literal["max", "average"] = "max"
    """What is taken of every 2 × 2 pixels of a pooled layer."""
    activation: Activation = "gelu"
    """Activation function φ, after the convolution."""

    def check(self, config: "Configuration") -> None:
        """Refuse a pooling where nothing is pooled."""
        super().check(config)
        pooled = any(layer.pooled for layer in read_layers(self.layers))
        if not pooled and self.pool != type(self).default("pool"):
            raise unheeded("pool", "no layer of `layers` has a p")

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Chain:
        """Return a new network."""
        height, width, channels = shape
        return vgg(
            (height, width, channels),
            outputs,
            layers=self.layers,
            activation=ACTIVATIONS[self.activation],
            pool=self.pool,
            parameterisation=self.parameterisation.build(),
            key=key,
        )

    @property
    def hidden(self) -> int:
        """The number of its hidden layers."""
        return len(read_layers(self.layers))

    @property
    def linear(self) -> bool:
        """Whether its output is linear in its input."""
        return self.activation == "linear" and self.pool == "average"

    @property
    def kinks(self) -> bool:
        """Whether its activation function, or its pooling, has a kink."""
        return self.activation == "relu" or self.pool == "max"

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        return f"convolutional layers {self.layers}, {self.parameterisation.kind}"
