"""A training process keeps the memory that it frees, if the C library is glibc."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Prints the pages requested from the system for tensors of 48 MiB, before and after.
PROGRAM = """
import resource, torch
from jahp_pl.training.memory import keep_freed_memory
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        tensors = [torch.ones(3 * 2**22) for _ in range(2)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
assert keep_freed_memory()
for _ in range(4):
    faults()  # until the heap has found its order
print(first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_tensors_that_come_and_go_ask_the_system_for_no_more_pages() -> None:
    program = [sys.executable, "-c", PROGRAM]
    before, after = map(int, subprocess.run(program, capture_output=True, text=True, check=True).stdout.split())
    assert before > 1000
    assert after < before / 20
