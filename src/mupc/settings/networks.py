"""Every kind of network."""

from mupc.settings.convolutional import ConvResNet, Vgg
from mupc.settings.hopfield import LayeredHopfield, ResidualHopfield
from mupc.settings.mlp import BidirectionalMLP, Decoder, ResidualMLP
from mupc.settings.network import NetworkKind
from mupc.settings.transformers import Transformer, VisionTransformer

NETWORKS: tuple[type[NetworkKind], ...] = (
    *(ResidualMLP, ConvResNet, Vgg),
    *(Transformer, VisionTransformer),
    BidirectionalMLP,
    Decoder,
    ResidualHopfield,
    LayeredHopfield,
)
