"""The C allocator, told what inference looks like: the same large blocks, again and again."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory for the next allocation, for the whole process.

    By default each large tensor is mapped anew, and its pages are zeroed by the kernel at first touch,
    which costs ten times what writing them does. Kept, the process stays at its high-water mark.

    Returns:
        Whether it took effect: on Linux with glibc.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    kept = libc.mallopt(M_MMAP_THRESHOLD, LARGEST_INT) and libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
    return bool(kept)
