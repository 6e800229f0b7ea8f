"""Energies: functions of the activities whose gradients are inference and learning."""

from mupc.energies.bidirectional import AmortisedEnergy as AmortisedEnergy
from mupc.energies.bidirectional import BidirectionalEnergy as BidirectionalEnergy
from mupc.energies.energy import Energy as Energy
from mupc.energies.energy import ErrorEnergy as ErrorEnergy
from mupc.energies.energy import GaussNewtonMaps as GaussNewtonMaps
from mupc.energies.energy import NudgedEnergy as NudgedEnergy
from mupc.energies.energy import Point as Point
from mupc.energies.error_view import ErrorView as ErrorView
from mupc.energies.hopfield import HopfieldEnergy as HopfieldEnergy
from mupc.energies.latent_units import LatentUnits as LatentUnits
from mupc.energies.latent_units import latent_units as latent_units
from mupc.energies.prediction import FreeEnergy as FreeEnergy
