"""What the ending of a file's name says about its format."""

from __future__ import annotations

from typing import NamedTuple

from electra_jax.errors import UserError

TEXT_ENDINGS = (".txt", ".text", ".md")
JSONL_ENDINGS = (".jsonl", ".ndjson")
COMPRESSED_ENDINGS = (".gz", ".xz", ".zst")
_SHORT_ENDINGS = {".tgz": ".tar.gz", ".txz": ".tar.xz", ".tzst": ".tar.zst"}

# What a directory is searched for, for messages.
KNOWN_ENDINGS = (
    f"{', '.join((*TEXT_ENDINGS, *JSONL_ENDINGS, '.tar', '.parquet'))} (or these with "
    f"{', '.join(COMPRESSED_ENDINGS)})"
)

_REMEDIES = {
    ".json": "if it has one object a line, rename it to .jsonl; otherwise write it so, with "
    "jq -c '.[]'",
    ".zip .7z .rar": "unpack it, and name the directory",
    ".bz2 .tbz .tbz2 .lzma .lz4 .br .z": "decompress it, or recompress it as .xz or .zst",
    ".pdf .doc .docx .odt .rtf .epub .ps": "convert it to UTF-8 text",
    ".arrow .feather .orc .avro": "convert it to .parquet or .jsonl",
    ".tfrecord .array_record": "name the data set instead, as tfds:NAME",
    ".pkl .pickle .npy .npz .pt .h5": "convert it to .jsonl or UTF-8 text",
}
_REFUSED = {ending: why for endings, why in _REMEDIES.items() for ending in endings.split()}


class NameParts(NamedTuple):
    """What a file's name says.

    Attributes:
      ending: its ending in lower case, that of the compression left out; "" if it has none.
      compression: "gz", "xz", "zst" or "".
    """

    ending: str
    compression: str

    @property
    def format(self) -> str | None:
        """ "text", "jsonl", "parquet" or "archive"; None if the name does not say.

        It does not for a name with no ending but one of compression: what is inside may be text or
        an archive (OpenWebText's urlsf_subset00-1_data.xz).
        """
        if self.ending in TEXT_ENDINGS:
            return "text"
        if self.ending in JSONL_ENDINGS:
            return "jsonl"
        if self.ending == ".tar":
            return "archive"
        if self.ending == ".parquet":
            return "parquet"
        return None

    @property
    def whole_ending(self) -> str:
        """With the ending of the compression."""
        return self.ending + (f".{self.compression}" if self.compression else "")

    @property
    def is_known(self) -> bool:
        """Whether a directory's or an archive's file of this name is read."""
        return self.format is not None or (not self.ending and bool(self.compression))


def split_name(name: str) -> NameParts:
    """What a file's name says; directories before it do not matter."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
    for short, long in _SHORT_ENDINGS.items():
        if name.endswith(short):
            name = name[: -len(short)] + long
    compression = ""
    for ending in COMPRESSED_ENDINGS:
        if name.endswith(ending):
            name, compression = name[: -len(ending)], ending[1:]
            break
    stem, dot, last = name.rpartition(".")
    return NameParts(dot + last if stem and last else "", compression)


def is_hidden(name: str) -> bool:
    """Whether a relative name, or a directory in it, begins with a dot."""
    parts = name.replace("\\", "/").split("/")
    return any(part.startswith(".") and part not in (".", "..") for part in parts)


def format_of(name: str) -> str:
    """The format of a file that is named itself: what has an unknown ending is text.

    Raises:
      UserError: if it is of a format that cannot be read.
    """
    parts = split_name(name)
    if parts.ending in _REFUSED:
        raise UserError(
            f"input {name}: {parts.ending} is not a format that can be read: "
            + _REFUSED[parts.ending]
        )
    return parts.format or "text"


def printable(text: str, limit: int = 200) -> str:
    """Text from inside a file as one line of a message."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= limit else text[:limit] + "..."
