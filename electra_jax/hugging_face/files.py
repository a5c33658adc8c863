"""The bytes of a directory of Hugging Face's: JSON and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_jax.errors import UserError

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
      UserError: if it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON file ({error}): bring it anew") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, expected an object of fields")
    return value


def read_tensors(directory: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """All tensors of a directory, and the names of the files they are in.

    One `model.safetensors`, or several files that `model.safetensors.index.json` lists.

    Raises:
      UserError: if there are none, or a file is missing, damaged or not as the index says.
    """
    if (directory / _WEIGHTS).is_file():
        return _read_safetensors(directory / _WEIGHTS), [_WEIGHTS]
    if not (directory / _INDEX).is_file():
        if (directory / _PICKLE).exists():
            return _read_pickle(directory / _PICKLE), [_PICKLE]
        if (directory / f"{_PICKLE}.index.json").exists():
            raise UserError(
                f"{directory} has its weights in several pickles: convert them to {_WEIGHTS} (in "
                "transformers: from_pretrained, then save_pretrained)"
            )
        raise UserError(f"{directory} has no weights: expected {_WEIGHTS} or {_INDEX}")
    files_of = read_json(directory / _INDEX).get("weight_map")
    if not isinstance(files_of, dict) or not files_of:
        raise UserError(f"{directory / _INDEX} has no weight_map of names and files: bring it anew")
    tensors: dict[str, np.ndarray] = {}
    files = sorted(set(map(str, files_of.values())))
    for file in files:
        if Path(file).name != file:
            raise UserError(f"{directory / _INDEX} names {file!r}, which is not beside it")
        wanted = {name for name, where in files_of.items() if where == file}
        found = _read_safetensors(directory / file)
        if set(found) != wanted:
            wrong = ", ".join(sorted(set(found) ^ wanted))
            raise UserError(
                f"{directory / file} and {_INDEX} disagree on {wrong}: bring both from one model"
            )
        tensors |= found
    return tensors, files


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, but {_INDEX} names it: bring it too") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}): bring it anew") from None


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    """A state dict of PyTorch's, by its loader that runs no code from the file."""
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path} is a pickle, which can run any code when it is read, and torch, whose loader "
            f"does not, is not installed: install torch, or convert the file to {_WEIGHTS} where "
            "you trust it (in transformers: from_pretrained, then save_pretrained)"
        ) from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    except Exception as error:  # whatever its unpickler or the file's contents raise
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path} holds more than tensors by name, or is damaged ({reason}): nothing of it was "
            "run; bring it as safetensors"
        ) from None


def as_float32(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """Their values in single precision; buffers of integers (of ids) as they are.

    Raises:
      UserError: for a tensor of another type, such as of a quantised model.
    """
    for name, array in tensors.items():
        kind = str(array.dtype)
        if kind not in ("float16", "bfloat16", "float32", "float64") and "_ids" not in name:
            raise UserError(
                f"{source}: {name} is of type {kind}, expected float32, float16 or bfloat16: "
                "quantised models cannot be read"
            )
    return {
        name: array if "_ids" in name else np.asarray(array, np.float32)
        for name, array in tensors.items()
    }
