from .guard import GuardedLoader as GuardedLoader
from .words import composing_errors as composing_errors
from .words import n_values as n_values
