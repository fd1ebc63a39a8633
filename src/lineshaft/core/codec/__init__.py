"""Typed Python values to JSON bytes and back, at the two places where work crosses storage.

    codecs.py       `ArgumentsCodec` for the arguments of a task, `ValueCodec` for one value
    hints.py        type hints made exact: unions tagged, dictionaries with any keys, special floats
    comparison.py   is what would arrive the same as what is sent, down to the types?
    canonical.py    one order for what has none, the digest of arguments, the depth of a payload
    wording.py      what error messages say about values

One guarantee holds throughout: what arrives equals what was sent, or the submission is refused.
It does not rest on knowledge about types. Every payload is decoded again before it is accepted, and the
outcome is compared with the original; see docs/decisions/0005-encoder.md.

Importing this package is light; Pydantic is imported when a codec is first used.
"""

from lineshaft.core.codec.canonical import digest
from lineshaft.core.codec.codecs import ArgumentsCodec, ValueCodec

__all__ = ["ArgumentsCodec", "ValueCodec", "digest"]
