"""Sweeps: grids of runs, resumable, on a folder that several processes may share."""

from mupc.records import Outcome as Outcome
from mupc.sweeps.folder import SweepFolder as SweepFolder
from mupc.sweeps.points import Point as Point
from mupc.sweeps.points import Range as Range
from mupc.sweeps.points import Space as Space
from mupc.sweeps.points import point_of as point_of
from mupc.sweeps.ranking import ranked as ranked
from mupc.sweeps.sweep import Result as Result
from mupc.sweeps.sweep import sweep as sweep
