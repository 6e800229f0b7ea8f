"""Every kind of network."""

from mupc.settings.convolutional import ConvResNet, Vgg
from mupc.settings.decoder import ClassDecoder, ConvDecoder, Decoder
from mupc.settings.hopfield import LayeredHopfield, ResidualHopfield
from mupc.settings.mlp import BidirectionalMLP, ResidualMLP
from mupc.settings.network import NetworkKind
from mupc.settings.transformers import Transformer, VisionTransformer

NETWORKS: tuple[type[NetworkKind], ...] = (
    *(ResidualMLP, ConvResNet, Vgg),
    *(Transformer, VisionTransformer),
    BidirectionalMLP,
    *(Decoder, ClassDecoder, ConvDecoder),
    ResidualHopfield,
    LayeredHopfield,
)
