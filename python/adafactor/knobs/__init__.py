"""What a user may give as a knob: numbers, rates, patterns; what a name that is no knob may have meant."""
