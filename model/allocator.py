"""The C allocator, set for what inference looks like: the same large blocks, again and again."""

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
    libc = _glibc()
    if libc is None:
        return False
    kept = libc.mallopt(M_MMAP_THRESHOLD, LARGEST_INT) and libc.mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
    return bool(kept)


def return_freed_memory() -> bool:
    """Gives all freed memory back to the system, kept or not; what is allocated next is mapped anew, once.

    Returns:
        Whether there was any: on Linux with glibc.
    """
    libc = _glibc()
    return libc is not None and bool(libc.malloc_trim(ctypes.c_size_t(0)))


def _glibc() -> ctypes.CDLL | None:
    here = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
    return ctypes.CDLL(None) if here else None
