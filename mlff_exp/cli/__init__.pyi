from .sweeping import HydraHost as HydraHost
from .sweeping import place_sweep as place_sweep
from .sweeping import sweep as sweep
