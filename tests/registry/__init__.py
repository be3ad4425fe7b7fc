"""The registry of bad and odd inputs: one file for each section of the design's list of hazards."""

from registry import dtypes, knobs, process, shapes, trees, values

CASES = [
    *trees.CASES,
    *shapes.CASES,
    *dtypes.CASES,
    *values.CASES,
    *knobs.CASES,
    *process.CASES,
]
