"""Transformers, of tokens and of images."""

from typing import TYPE_CHECKING

from jaxtyping import PRNGKeyArray

from mupc.data import Dataset
from mupc.networks import Chain, transformer, vision_transformer
from mupc.records import counted
from mupc.settings.convolutional import OfImages
from mupc.settings.network import MuPC, NetworkKind, ParameterisationKind
from mupc.settings.setting import ConfigError, Count

if TYPE_CHECKING:
    from mupc.settings.configuration import Configuration


class _OfPairs(NetworkKind):
    sizes = ("pairs", "width")

    parameterisation: ParameterisationKind = MuPC(exponent=1.0)
    pairs: Count = 4
    """Pairs of an attention and a perceptron branch."""
    width: Count = 128
    """Width N of an activity at a position."""
    head_width: Count = 32
    """Width of a head of attention, or that of the network if it is smaller."""
    learned_norms: bool = False
    """Whether layer norms have gains and shifts that are learned."""

    @property
    def heads(self) -> int:
        """How many heads attention has."""
        return max(self.width // self.head_width, 1)

    @property
    def hidden(self) -> int:
        """The number of its hidden layers: the embedding and every branch."""
        return 2 * self.pairs + 1

    @property
    def describes(self) -> str:
        """What it is, in a few words."""
        pairs, laws = counted(self.pairs, "pair"), self.parameterisation.kind
        return f"{pairs} of attention and perceptron of width {self.width}, {laws}"

    def check(self, config: "Configuration") -> None:
        """Refuse a width that is no multiple of that of the heads."""
        if self.width > self.head_width and self.width % self.head_width:
            raise ConfigError(
                f"`width` must be a multiple of `head_width` {self.head_width}, not {self.width}"
            )


class Transformer(_OfPairs):
    """Causal transformer of tokens, with an activity for every branch."""

    kind = "transformer"

    tied: bool = False
    """Whether the readout multiplies by the table of tokens, in place of one of its own."""

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
            heads=self.heads,
            learned_norms=self.learned_norms,
            tied=self.tied,
            parameterisation=self.parameterisation.build(),
            key=key,
        )


class VisionTransformer(_OfPairs, OfImages):
    """Transformer of an image's patches, with an activity for every branch."""

    kind = "vision-transformer"

    patch: Count = 4
    """Pixels that a side of a patch has."""

    def build(self, shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> Chain:
        """Return a new network."""
        height, width, channels = shape
        return vision_transformer(
            (height, width, channels),
            outputs,
            patch=self.patch,
            pairs=self.pairs,
            width=self.width,
            heads=self.heads,
            learned_norms=self.learned_norms,
            parameterisation=self.parameterisation.build(),
            key=key,
        )
