"""Networks: layers, stages of stacked blocks, and chains of stages."""

from mupc.networks.chain import Chain as Chain
from mupc.networks.layers import Activities as Activities
from mupc.networks.layers import Block as Block
from mupc.networks.layers import Dense as Dense
from mupc.networks.layers import Scaled as Scaled
from mupc.networks.layers import ScaledBlock as ScaledBlock
from mupc.networks.layers import identity as identity
from mupc.networks.layers import scaled_blocks as scaled_blocks
from mupc.networks.mlp import residual_mlp as residual_mlp
from mupc.networks.modules import chain_from_mlp as chain_from_mlp
from mupc.networks.modules import chain_from_modules as chain_from_modules
from mupc.networks.network import Feedforward as Feedforward
from mupc.networks.network import Network as Network
from mupc.networks.rates import rate_factors as rate_factors
from mupc.networks.rates import scale_adam as scale_adam
from mupc.networks.rates import scale_by as scale_by
from mupc.networks.rates import scale_sgd as scale_sgd
from mupc.networks.rates import scale_uniform as scale_uniform
from mupc.networks.stage import Stage as Stage
from mupc.networks.stage import with_gradient as with_gradient
