"""Names of the presets, for those who only list them: without JAX."""

PRESETS = ("vibesegmentator", "totalsegmentator_ct", "totalsegmentator_mr")
SPEEDS = ("", "fast", "fastest")
