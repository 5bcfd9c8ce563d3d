"""The names of the methods of adaptation; here, because a command line needs them before it imports JAX."""

# off: the trained network as it is
# etta, tent, bn: see `options`
# tta: its mean over the views `averaging.AUGMENTED`, without adapting anything
METHODS = ("off", "etta", "tent", "bn", "tta")
