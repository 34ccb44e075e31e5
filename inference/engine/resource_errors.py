"""What torch and numpy raise when a machine is too small, as coded errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from inference.errors import InferenceError, ModelError
from inference.reasons import Reason


@contextmanager
def resource_errors() -> Iterator[None]:
    """Translate what torch and numpy raise; torch has no class of its own for main memory."""
    import torch

    try:
        yield
    except InferenceError:
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(Reason.OOM_GPU, _first_line(error)) from error
    except MemoryError as error:
        raise ModelError(Reason.OOM_CPU, _first_line(error)) from error
    except RuntimeError as error:
        text = _first_line(error)
        if "DefaultCPUAllocator" in text or "not enough memory" in text:
            raise ModelError(Reason.OOM_CPU, text) from error
        raise ModelError(Reason.MODEL_ERROR, text) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
