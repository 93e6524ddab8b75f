"""How training uses memory: the layout of its tensors, and what the process keeps between two steps."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

import torch

# Of glibc's <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 1 << 30
# What glibc itself comes to in a process that frees large blocks: the greatest values it sets by its own rule.
_MMAP_BYTES, _TRIM_BYTES = 32 << 20, 64 << 20


def memory_layout(device: torch.device, size: int) -> torch.memory_format:
    """Channels last, but for images below 64 px on a CPU.

    There the gradients of the weights are brought into that layout at every step, which costs more than it saves: a
    tenth of a step at 28 px. At 64 px the two are even, above it channels last is faster.
    """
    small = device.type == "cpu" and size < 64
    return torch.contiguous_format if small else torch.channels_last


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have the C library keep freed memory (up to 1 GiB) until training ends, then give it back to the system.

    The gradients of a step are tens of megabytes. glibc gives them back to the system when the next step drops them and
    asks for them anew a moment later, and the system clears every page again: a tenth of a step at 28 px. Other C
    libraries are left as they are.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
    library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        library.mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        library.malloc_trim(0)
