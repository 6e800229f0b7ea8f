"""Networks: layers, stages of stacked blocks, and chains of stages."""

from mupc.networks.activations import identity as identity
from mupc.networks.block import Activities as Activities
from mupc.networks.block import Block as Block
from mupc.networks.block import Dense as Dense
from mupc.networks.block import Scaled as Scaled
from mupc.networks.block import ScaledBlock as ScaledBlock
from mupc.networks.block import is_scaled as is_scaled
from mupc.networks.chain import Chain as Chain
from mupc.networks.convolutional import Convolution as Convolution
from mupc.networks.convolutional import PooledDense as PooledDense
from mupc.networks.convolutional import conv_resnet as conv_resnet
from mupc.networks.from_modules import chain_from_mlp as chain_from_mlp
from mupc.networks.from_modules import chain_from_modules as chain_from_modules
from mupc.networks.mlp import residual_mlp as residual_mlp
from mupc.networks.network import Feedforward as Feedforward
from mupc.networks.network import Layer as Layer
from mupc.networks.network import Network as Network
from mupc.networks.network import check_network as check_network
from mupc.networks.network import layer_scales as layer_scales
from mupc.networks.rates import rate_factors as rate_factors
from mupc.networks.rates import scale_adam as scale_adam
from mupc.networks.rates import scale_by as scale_by
from mupc.networks.rates import scale_sgd as scale_sgd
from mupc.networks.rates import scale_uniform as scale_uniform
from mupc.networks.stage import Stage as Stage
from mupc.networks.stage import with_gradient as with_gradient
