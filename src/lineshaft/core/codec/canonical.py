"""One order for what has none, the digest of arguments, and the depth of a payload."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import blake2b
from typing import Any

DIGEST_BYTES = 16
PAIRS = "$pairs"
"""The one key of the object that stands for a dictionary whose keys JSON cannot carry.

User data may not hold it as a key (the comparison refuses that), so `digest` can trust it.
"""
MEMBER, VALUE = "$member", "value"
"""The keys of the object that says which member of a union a value is."""
TAGGED = frozenset({MEMBER, VALUE})
_PAIRS_TEXT = f'"{PAIRS}"'.encode()

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_AS_ARRAYS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def digest(payload: bytes) -> bytes:
    """16 bytes (BLAKE2b, RFC 7693) that are the same for the same arguments.

    `payload` is what `encode` returned. The order of a dictionary's keys does not count, and sets have
    been put in order when they were encoded.
    """
    document = _reader()(payload)
    if _PAIRS_TEXT in payload:
        document = _ordered_pairs(document)
    # Written by the standard library: its text of a number stays the same from version to version.
    return blake2b(_canonical_text(document).encode(), digest_size=DIGEST_BYTES).digest()


@cache
def _reader() -> Callable[[bytes], Any]:
    from pydantic_core import from_json

    return from_json


_canonical_text: Callable[[Any], str] = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _ordered_pairs(document: Any) -> Any:
    if type(document) is list:
        return [_ordered_pairs(item) for item in document]
    if type(document) is not dict:
        return document
    ordered = {key: _ordered_pairs(item) for key, item in document.items()}
    pairs = ordered.get(PAIRS)
    if len(ordered) == 1 and type(pairs) is list:
        return {PAIRS: sorted(pairs, key=_canonical_text)}
    return ordered


def with_sets_in_order(value: Any, document: Any) -> Any:
    """The JSON document of a value, its sets in the order of their members' JSON text.

    The iteration order of a set differs between processes; payloads, and so digests, must not.
    Value and document are walked side by side. Where a custom serializer made them differ in shape,
    the document stays as it is.
    """
    if isinstance(document, dict):
        return _object_in_order(value, document)
    if not isinstance(document, list) or not hasattr(value, "__len__") or len(value) != len(document):
        return document
    items = [with_sets_in_order(item, inner) for item, inner in zip(value, document, strict=True)]
    return sorted(items, key=_canonical_text) if isinstance(value, (set, frozenset)) else items


def _object_in_order(value: Any, document: dict[str, Any]) -> dict[str, Any]:
    walk = with_sets_in_order
    keys = document.keys()
    if not isinstance(value, Mapping):
        if keys == TAGGED:
            return {**document, VALUE: walk(value, document[VALUE])}
        return {key: walk(getattr(value, key, None), inner) for key, inner in document.items()}
    if keys == {PAIRS}:
        pairs = zip(value.items(), document[PAIRS], strict=True)
        return {PAIRS: [[walk(k, in_k), walk(v, in_v)] for (k, v), (in_k, in_v) in pairs]}
    if keys == TAGGED and value.keys() != TAGGED:
        return {**document, VALUE: walk(value, document[VALUE])}
    if len(value) != len(document):
        return document
    items = zip(value.values(), document.items(), strict=True)
    return {key: walk(item, inner) for item, (key, inner) in items}


def is_deeper_than(payload: bytes, depth_max: int) -> bool:
    """Whether arrays and objects of a JSON text are nested deeper than `depth_max`."""
    if payload.count(b"[") + payload.count(b"{") <= depth_max:
        return False
    brackets = _STRINGS.sub(b"", payload).translate(_AS_ARRAYS, _NOT_BRACKETS)
    for _ in range(depth_max):  # each pass removes the innermost level
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True
