"""Force fields of other packages as `GraphForceField`: the networks, and what makes and checks them.

Their options and specs are in `mlff_exp.models.adapters`. A module here imports the package that it adapts only in the
functions that need it.
"""
