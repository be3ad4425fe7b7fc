"""What the calls of a state do, leaf by leaf: rows of knobs, rates, the core's memory, one call."""
