"""GGUF files, made and read with the pinned llama.cpp: convert, quantize, look inside."""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kit.cli.errors import UserError, first_line
from kit.llama_cpp.build import llama_cpp_folder, program
from kit.llama_cpp.running import converter, output_of
from kit.storage.generation_settings import GREEDY_METADATA

if TYPE_CHECKING:
    import numpy as np

# File types of which llama-quantize refuses some tensor without an importance matrix (tensor_requires_imatrix in its
# source, and tried on a model 256 wide: tests/llama_cpp/test_gguf.py).
NEED_IMATRIX = ("iq3_xxs", "iq3_xs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s", "q2_k_s")
CONVERTED = ("f32", "f16", "bf16")  # written by the converter; everything else is quantized from f16
_ONLY_IN_C = {"q1_0", "q2_0"}  # llama.cpp's Python package cannot read these types; its programs can
_NOT_QUANTIZED, _PLAIN = ("f32", "f16", "bf16"), ("f64", "i8", "i16", "i32", "i64")
BLOCK = 256  # the row length that K-quants and most I-quants need a multiple of
_LONG_ARRAY = 1000
_PART = 2**23  # entries
_LENGTH = 4  # where an array's length stands among a field's parts: length of the name, name, type, type of the items


def convert(merged: Path, file: Path, kind: str, name: str) -> None:
    """Write a merged folder as one GGUF of ``kind`` f32, f16 or bf16, called ``name`` in its metadata.

    The file says that it is greedy, as it is scored: llama.cpp's programs take that for what they are not told.

    Raises:
        UserError: the converter failed.
    """
    metadata = file.with_suffix(".metadata.json")
    metadata.write_text(json.dumps(GREEDY_METADATA), encoding="utf-8")
    options = ["--outtype", kind, "--outfile", str(file), "--model-name", name, "--metadata", str(metadata)]
    try:
        output_of([*converter(), str(merged), *options])
    finally:
        metadata.unlink(missing_ok=True)


def why_not_converted(folder: Path, scratch: Path) -> str:
    """Why llama.cpp's converter cannot read a model folder, in its own words; empty where it can.

    It is asked for the vocabulary alone, for which it looks at the architecture and at the tokenizer.
    """
    try:
        output_of([*converter(), str(folder), "--vocab-only", "--outfile", str(scratch / "vocabulary.gguf")])
    except UserError as error:
        return error.problems[0].strip().splitlines()[-1]
    return ""


def quantize(f16: Path, file: Path, kind: str, imatrix: Path | None = None) -> None:
    """Write a quantized copy of an f16 GGUF, rounded by an importance matrix where there is one.

    Raises:
        UserError: llama-quantize failed.
    """
    by = ["--imatrix", imatrix.name] if imatrix else []  # the file keeps what it is called here: no path of ours
    command = [str(program("llama-quantize")), *by, str(f16.resolve()), str(file.resolve()), kind.upper()]
    output_of(command, imatrix.parent if imatrix else None)


def with_readable_weights(gguf: GgufFile, scratch: Path) -> GgufFile:
    """The same file, or an f32 copy of it in ``scratch`` where ``matrix`` cannot read a type in it."""
    if not _ONLY_IN_C & set(gguf.tensor_types):
        return gguf
    copy = scratch / f"{gguf.path.stem}.readable.gguf"
    output_of([str(program("llama-quantize")), "--allow-requantize", str(gguf.path), str(copy), "F32"])
    return GgufFile(copy)


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file says of itself."""

    path: Path

    @cached_property
    def _reader(self) -> Any:
        try:
            return _quick_reader(self.path)
        except (ValueError, LookupError, struct.error, OSError) as error:  # what reading past a file's end raises
            raise UserError(
                f"{self.path} is no whole GGUF file ({first_line(error)}): fetch it again, or export it again"
            ) from error

    def value(self, key: str) -> Any:
        """One metadata value; ``None`` where the file has none."""
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    @property
    def metadata(self) -> dict[str, bytes]:
        """All metadata, key → its bytes in the file with name and type, long arrays too; none without any tensor."""
        if not self._tensors:
            return {}
        fields = {key: field for key, field in self._reader.fields.items() if not key.startswith("GGUF.")}
        starts = [int(field.offset) for field in fields.values()]
        ends = [*starts[1:], int(self._reader.tensors[0].field.offset)]
        return {
            key: self._reader.data[start:end].tobytes() for key, start, end in zip(fields, starts, ends, strict=True)
        }

    @property
    def vocabulary_size(self) -> int:
        tokens = self._reader.get_field("tokenizer.ggml.tokens")
        return int(tokens.parts[_LENGTH][0]) if tokens else 0

    @property
    def bits_per_weight(self) -> float:
        """As it really came out, over all tensors."""
        tensors = self._reader.tensors
        return 8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)

    @property
    def tensor_types(self) -> dict[str, int]:
        """How many tensors have which type, norms and biases (always f32) included."""
        return dict(Counter(tensor.tensor_type.name.lower() for tensor in self._reader.tensors).most_common())

    @property
    def rows_not_in_blocks(self) -> tuple[int, int]:
        """(matrices whose row length 256 does not divide, all matrices): the former cannot be K-quants."""
        rows = [int(tensor.shape[0]) for tensor in self._reader.tensors if len(tensor.shape) == 2]
        return sum(row % BLOCK != 0 for row in rows), len(rows)

    def matrix(self, name: str) -> np.ndarray:
        """A matrix in float32, by its name in the Hugging Face model (``….weight``); shape (out, in) as there.

        Raises:
            KeyError: the file has no such tensor.
        """
        return self.values(self._tensor(name).name)

    def bits(self, name: str) -> int | None:
        """As ``bits_of``, by the tensor's name in the Hugging Face model.

        Raises:
            KeyError: the file has no such tensor.
        """
        return self.bits_of(self._tensor(name).name)

    @cached_property
    def _tensors(self) -> dict[str, Any]:
        return {tensor.name: tensor for tensor in self._reader.tensors}

    @property
    def names(self) -> list[str]:
        """What its tensors are called in the file."""
        return list(self._tensors)

    def values(self, own_name: str) -> np.ndarray:
        """A tensor in float32, by its name in the file."""
        found = self._tensors[own_name]
        return gguf_library().dequantize(found.data, found.tensor_type)

    def parts(self, own_name: str) -> Iterator[np.ndarray]:
        """As ``values``, so many rows at a time that a part holds some millions of entries; integers too."""
        found, is_plain = self._tensors[own_name], self.type_of(own_name) in _PLAIN
        rows = max(1, _PART * len(found.data) // max(1, int(found.n_elements)))
        for start in range(0, len(found.data), rows):
            part = found.data[start : start + rows]
            yield part.astype("float64") if is_plain else gguf_library().dequantize(part, found.tensor_type)

    def shape_of(self, own_name: str) -> tuple[int, ...]:
        """Of a tensor by its name in the file, as in the Hugging Face model: (out, in)."""
        return tuple(int(size) for size in reversed(self._tensors[own_name].shape))

    def type_of(self, own_name: str) -> str:
        """A tensor's type, such as ``q4_k``, by its name in the file."""
        return str(self._tensors[own_name].tensor_type.name).lower()

    def bits_of(self, own_name: str) -> int | None:
        """The bits of a weight of a quantized tensor, without its block's scale; ``None`` where it is not quantized."""
        kind = self.type_of(own_name)
        if kind in (*_NOT_QUANTIZED, *_PLAIN):
            return None
        # The largest values of mxfp4 and nvfp4 lie as far apart as those of three bits in even steps.
        return 3 if kind.endswith("fp4") else int(re.sub(r"\D", "", kind)[0])

    def name_of(self, name: str) -> str:
        """What the file calls a tensor of the Hugging Face model (``….weight``).

        Raises:
            KeyError: the file has no such tensor.
        """
        return str(self._tensor(name).name)

    def _tensor(self, name: str) -> Any:
        names = gguf_library().get_tensor_name_map(
            self._architecture, int(self.value(f"{self._architecture_name}.block_count"))
        )
        wanted = names.get_name(name, try_suffixes=(".weight",))
        if wanted not in self._tensors:
            raise KeyError(name)
        return self._tensors[wanted]

    def in_order(self, found: np.ndarray, name: str, wanted: np.ndarray) -> np.ndarray:
        """Rows of a matrix in Hugging Face's order, that is nearer ``wanted``.

        Llama's converter takes the two halves of a head in turn, in queries and keys.
        """
        if not name.endswith(("q_proj.weight", "k_proj.weight")):
            return found
        heads = self.heads(of_keys="k_proj" in name)
        back = found.reshape(heads, -1, 2, found.shape[1]).swapaxes(1, 2).reshape(found.shape)
        return min((found, back), key=lambda matrix: float(((matrix - wanted) ** 2).sum()))

    def heads(self, of_keys: bool) -> int:
        """Attention heads of the queries, or of the keys and values."""
        name = f"{self._architecture_name}.attention.head_count"
        return int((self.value(f"{name}_kv") if of_keys else None) or self.value(name))

    @property
    def cached_values_per_token(self) -> int:
        """How many numbers llama.cpp caches of each token, at most: keys and values in all layers; 0 where the file
        does not say."""
        name = f"{self._architecture_name}.attention"
        layers, heads, of_keys, of_queries, wide = (
            self.value(key)
            for key in (
                f"{self._architecture_name}.block_count", f"{name}.head_count_kv", f"{name}.key_length",
                f"{name}.head_count", f"{self._architecture_name}.embedding_length",
            )
        )  # fmt: skip
        heads, of_queries = (max(count) if isinstance(count, list) else count for count in (heads, of_queries))
        if not (layers and of_queries and wide):
            return 0
        of_keys = of_keys or wide // of_queries
        of_values = self.value(f"{name}.value_length") or of_keys
        return int(layers * (heads or of_queries) * (of_keys + of_values))

    @property
    def _architecture_name(self) -> str:
        return str(self.value("general.architecture"))

    @property
    def _architecture(self) -> Any:
        names = gguf_library().MODEL_ARCH_NAMES
        return next(arch for arch, name in names.items() if name == self._architecture_name)


def _quick_reader(path: Path) -> Any:
    """llama.cpp's reader, which steps over long arrays: 300,000 tokens and merges take it 11 s, and 0.1 s so.

    Of such an array no more than its length is read.
    """
    import numpy as np

    gguf = gguf_library()

    class QuickReader(gguf.GGUFReader):  # type: ignore[name-defined, misc]
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list, list[int], list]:
            if raw_type != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            buffer = memoryview(self.data)
            item_type, length = struct.unpack_from("<IQ", buffer, orig_offs)
            if item_type == gguf.GGUFValueType.ARRAY or length < _LONG_ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            end = orig_offs + 12
            if item_type == gguf.GGUFValueType.STRING:
                for _ in range(length):
                    end += 8 + struct.unpack_from("<Q", buffer, end)[0]
            else:
                end += length * np.dtype(self.gguf_scalar_to_np[gguf.GGUFValueType(item_type)]).itemsize
            return end - orig_offs, [[item_type], [length]], [], [gguf.GGUFValueType.ARRAY]

    return QuickReader(str(path))


def gguf_library() -> ModuleType:
    """llama.cpp's own ``gguf`` package, of the same version as the converter that wrote the files."""
    folder = str(llama_cpp_folder() / "gguf-py")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import gguf

    return gguf
