"""Adafactor, the optimizer with sublinear memory, as one fused step over arrays that you own."""
