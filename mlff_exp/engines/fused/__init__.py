"""The one door to Triton: PaiNN's energy and forces in kernels written by hand, and the engine that launches them."""
