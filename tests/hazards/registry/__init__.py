"""The registry of bad and odd inputs: a file or two for each section of the design's list of hazards,
and one for what each array library adds."""

from registry import (
    dlpack_exports,
    dlpack_headers,
    dtypes,
    gpu_arrays,
    jax_arrays,
    knobs,
    process,
    rates,
    shapes,
    torch_tensors,
    trees,
    values,
)

CASES = [
    *trees.CASES,
    *shapes.CASES,
    *dtypes.CASES,
    *dlpack_headers.CASES,
    *dlpack_exports.CASES,
    *torch_tensors.CASES,
    *jax_arrays.CASES,
    *gpu_arrays.CASES,
    *values.CASES,
    *knobs.CASES,
    *rates.CASES,
    *process.CASES,
]
