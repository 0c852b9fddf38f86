"""Formats of programs, and what each needs; read without torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramFormat:
    """How a program is written.

    Attributes:
        suffix: of its files.
        packages: that write and run it, beside those of the model.
    """

    suffix: str
    packages: tuple[str, ...] = ()


FORMATS = {
    "torch-export": ProgramFormat(suffix=".pt2"),
    "onnx": ProgramFormat(suffix=".onnx", packages=("onnxscript", "onnxruntime")),
}
