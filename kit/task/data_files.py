"""A data file becomes rows, each with its place: JSON Lines, a JSON array, CSV or TSV, Parquet, packed or not."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.errors import UserError, first_line
from kit.numbers.reading import decimal_mark

if TYPE_CHECKING:
    import pyarrow

FORMATS = "JSON Lines, a JSON array, CSV, TSV or Parquet"
_PACKED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
}
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # PowerShell's > writes it
_LONG = 64  # a list of more numbers is an embedding, and nobody's answer
_EXCELS_SEPARATOR = re.compile(r"sep=([,;\t]|\\t)\r?\n")
_THOUSANDS = re.compile(r"-?[1-9][0-9]{0,2}\.[0-9]{3}")

_AROUND_ROWS = ("data", "rows", "train", "test", "validation", "examples", "instances", "questions")  # names, of lists

# Where a row stands, and the row; or in its stead, as a ValueError, why the place holds none.
PlacedRow = tuple[str, Any]


def read_rows(path: Path) -> list[PlacedRow]:
    """The rows of a data file in their order. Its content says which format it is; CSV is known by its name.

    Raises:
        UserError: the file is missing, or cannot be read as any of the formats.
    """
    content = _unpacked(path)
    if content.startswith(b"PAR1"):
        return _parquet_rows(path, content)
    if content.startswith(b"PK\x03\x04"):
        raise UserError(f"--dataset {path} is an Excel or zip file: save it as CSV, or unpack it")
    try:
        # a byte order mark, which Windows' programs put first, is no part of the text
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--dataset {path} is no UTF-8 text ({error}): save it as UTF-8, or give {FORMATS}") from None
    if {".csv", ".tsv"} & {suffix.lower() for suffix in path.suffixes}:
        return _csv_rows(path, text)
    return _json_rows(path, text)


def _unpacked(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        unpack = next((unpack for start, unpack in _PACKED.items() if content.startswith(start)), None)
        return unpack(content) if unpack else content
    except FileNotFoundError:
        raise UserError(
            f"--dataset {path} does not exist: give a file ({FORMATS}), or a Hub data set such as openai/gsm8k"
        ) from None
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(
            f"--dataset {path} cannot be read ({first_line(error)}): fetch it again if it is cut off, or give {FORMATS}"
        ) from None


def _json_rows(path: Path, text: str) -> list[PlacedRow]:
    if text.lstrip().startswith("["):
        try:
            return [(f"row {number}", row) for number, row in enumerate(json.loads(text))]
        except (ValueError, RecursionError) as error:
            are_lines = "\n" in text.strip() and getattr(error, "msg", "") == "Extra data"  # each is named below
            if not are_lines:
                raise UserError(f"--dataset {path} is not JSON ({first_line(error)}): mend it there") from None
    rows: list[PlacedRow] = []
    for number, line in enumerate(text.split("\n"), 1):  # and nowhere else: a text may hold U+2028
        if line.strip():
            rows.append((f"line {number}", _json_line(line)))
    if rows and all(isinstance(row, ValueError) for _, row in rows) and text.lstrip()[0] not in "{[":
        raise UserError(f"--dataset {path} is no JSON: if it is CSV or TSV, let its name end so")
    if _is_one_object(rows, text):
        raise UserError(
            f"--dataset {path} is one JSON object, not rows: write one object a line, or an array of them "
            "(with pandas: frame.to_json(FILE, orient='records', lines=True))"
        )
    return rows


def _json_line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # the latter, and some of the former, of what nobody means as data
        return ValueError(f"is not JSON ({first_line(error)}): mend or remove that line")


def _is_one_object(rows: list[PlacedRow], text: str) -> bool:
    """Is it an object over several lines, or columns as pandas writes them (``{"answer": {"0": "7"}, ...}`` or
    ``{"answer": ["7"], ...}``), or rows in another object (``{"data": [...]}``)?"""
    if len(rows) == 1 and isinstance(only := rows[0][1], dict) and only:
        columns = list(only.values())
        if all(isinstance(column, list) and column for column in columns):
            items = [item for column in columns for item in column]
            is_of_columns = len(columns[0]) > 1 and len({len(column) for column in columns}) == 1
            is_of_rows = len(columns) == 1 and next(iter(only)) in _AROUND_ROWS
            return is_of_rows or (is_of_columns and not any(isinstance(item, (dict, list)) for item in items))
        indexes = [list(column) if isinstance(column, dict) else None for column in only.values()]
        return indexes[0] is not None and "0" in indexes[0] and indexes == indexes[:1] * len(indexes)
    if not rows or not all(isinstance(row, ValueError) for _, row in rows):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _csv_rows(path: Path, text: str) -> list[PlacedRow]:
    """Rows named by the header, each with the line that it ends in; columns of numbers alone become numbers."""
    if said := _EXCELS_SEPARATOR.match(text):
        text = text[said.end() :]
    header = text.partition("\n")[0]
    # Excel writes ; where the comma is the decimal mark
    delimiter = said[1].replace("\\t", "\t") if said else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num + bool(said), fields) for fields in reader if any(map(str.strip, fields))]
    except csv.Error as error:
        raise UserError(
            f"--dataset {path}, line {reader.line_num + bool(said)} is no CSV ({error}): mend that line"
        ) from None
    if not lines:
        return []
    names = [name.strip() for name in lines.pop(0)[1]]
    while (
        names and not names[-1] and not any(field.strip() for _, fields in lines for field in fields[len(names) - 1 :])
    ):
        names.pop()  # a column of a sheet that nobody wrote into
        lines = [(number, fields[: len(names)]) for number, fields in lines]
    if len(set(names)) < len(names):
        raise UserError(f"--dataset {path} names a column twice in its header ({', '.join(names)}): rename one")
    whole = [fields for _, fields in lines if len(fields) == len(names)]
    columns = dict(zip(names, map(_as_numbers, zip(*whole, strict=True)), strict=True)) if whole else {}
    typed = iter(zip(*columns.values(), strict=True))
    return [
        (
            f"line {number}",
            dict(zip(names, next(typed), strict=True))
            if len(fields) == len(names)
            else ValueError(f"has {len(fields)} fields where the header has {len(names)}: mend or remove that line"),
        )
        for number, fields in lines
    ]


def _as_numbers(texts: tuple[str, ...]) -> list[Any]:
    """A column's values as whole numbers or numbers where each is one as it would be written out, else as they are.

    Where the comma is the decimal mark, a column of "1.234" alone is one of thousands, and stays as written.
    """
    if decimal_mark() == "comma" and all(map(_THOUSANDS.fullmatch, filter(None, texts))):
        return list(texts)
    for kind in (int, float):
        try:
            values = [None if text == "" else kind(text) for text in texts]
        except ValueError:
            continue
        if all(value is None or str(value) == text for value, text in zip(values, texts, strict=True)):
            return values
    return list(texts)


def _parquet_rows(path: Path, content: bytes) -> list[PlacedRow]:
    from pyarrow import BufferReader, parquet

    try:
        table = parquet.read_table(BufferReader(content))
    except Exception as error:  # pyarrow has its own kinds
        raise UserError(f"--dataset {path} is damaged Parquet ({first_line(error)}): write it again") from None
    return [(f"row {number}", row) for number, row in enumerate(as_meant(table.to_pylist(), table.schema))]


def as_meant(rows: list[dict[str, Any]], schema: pyarrow.Schema) -> list[dict[str, Any]]:
    """Rows whose numbers of 32 or 16 bits are those that were meant: 0.1, and not 0.10000000149011612.

    Args:
        rows: as their library gives them.
        schema: the types of their columns.
    """
    short = [field for field in schema if _holds_short(field.type)]
    if not short:
        return rows
    return [row | {field.name: _as_meant(row.get(field.name), field.type) for field in short} for row in rows]


def _holds_short(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    fields = [kind.field(number) for number in range(kind.num_fields)]
    return types.is_float32(kind) or types.is_float16(kind) or any(_holds_short(field.type) for field in fields)


def _as_meant(value: Any, kind: pyarrow.DataType) -> Any:
    import numpy as np
    from pyarrow import types

    if isinstance(value, float) and (types.is_float32(kind) or types.is_float16(kind)):
        return float(str((np.float32 if types.is_float32(kind) else np.float16)(value)))
    if isinstance(value, dict) and types.is_struct(kind):
        return value | {field.name: _as_meant(value[field.name], field.type) for field in kind if field.name in value}
    if isinstance(value, list) and len(value) <= _LONG and (types.is_list(kind) or types.is_large_list(kind)):
        return [_as_meant(item, kind.value_type) for item in value]
    return value
