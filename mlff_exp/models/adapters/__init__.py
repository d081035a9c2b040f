"""One module for each kind of force field: its options and its `ModelSpec`, under the name ``SPEC``.

`MODELS` finds every module here by itself. What a kind needs, torch too, is imported in its factory only.
"""
