"""These tests run where test_emulated_gpu.py starts them, in a process in which a CPU stands in for a GPU."""

import os

import emulated_gpu

collect_ignore_glob = [] if emulated_gpu.VARIABLE in os.environ else ["*"]
