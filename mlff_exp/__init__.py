"""How fast can a force field run, what does each optimisation cost, and is it still stable?"""
