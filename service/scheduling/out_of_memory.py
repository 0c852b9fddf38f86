"""Telling a shortage of memory from other faults, and giving memory back after one."""

import traceback

import cv2
import torch

# What PyTorch's allocators, CUDA's libraries and OpenCV say in an error that is for everything.
_PHRASES = (
    "out of memory",
    "insufficient memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less work at a time could have gone well: the device or the host had no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower() if isinstance(error, RuntimeError | cv2.error) else ""
    return any(phrase in words for phrase in _PHRASES)


def release_memory(error: BaseException) -> None:
    """Frees what the work that failed still holds: the local variables in its tracebacks, CUDA's cache."""
    chain: BaseException | None = error
    while chain is not None:
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__context__
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
