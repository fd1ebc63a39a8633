"""Type hints made exact, so that their JSON says all that is needed to build the same values again.

Pydantic does the work; this only adds what JSON lacks, in the hints of a task and inside the containers
found there:

    union whose members look alike in JSON      {"$member": "datetime", "value": "2026-01-01T00:00:00"}
    dictionary whose keys JSON cannot carry     {"$pairs": [[[1, 2], "a"], …]}
    float that is no number                     "NaN", "Infinity", "-Infinity"
    bytes                                       base64 (RFC 4648, URL-safe alphabet)

The fields of a user's models and dataclasses are encoded as these say themselves. A value that would not
survive there is refused by the comparison that follows every encoding.
"""

from __future__ import annotations

import collections
import collections.abc
import enum
import operator
import types
from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, ForwardRef, Literal, NewType, Union, get_args, get_origin
from uuid import UUID

from lineshaft.core.codec.canonical import MEMBER, PAIRS, TAGGED, VALUE
from lineshaft.core.errors import DeclarationError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

_CONTAINERS = frozenset(
    {list, tuple, set, frozenset, dict, collections.deque, collections.defaultdict, collections.OrderedDict}
    | {collections.abc.Sequence, collections.abc.Mapping, collections.abc.Set}
    | {collections.abc.MutableSequence, collections.abc.MutableMapping, collections.abc.MutableSet}
)
_READ_ONCE = frozenset(
    {collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator}
    | {collections.abc.AsyncIterable, collections.abc.AsyncIterator, collections.abc.AsyncGenerator}
)
_PLAIN_KEYS = frozenset({str, int, UUID, date, datetime})
_WORDS: list[Any] = ["NaN", "Infinity", "-Infinity"]
_EXACT_INT_MAX = 2**53  # beyond it not every integer has a float (IEEE 754)


def adapter(hint: Any) -> TypeAdapter[Any]:
    """Validator and serializer for values of one hint. Raises what Pydantic does on hints unknown to it."""
    return _adapter(_Only(exact(hint)))


def arguments_adapter(hints: Mapping[str, Any]) -> TypeAdapter[Any]:
    """Validator and serializer for dictionaries that hold a value under each of these names."""
    return _adapter(_Named({name: exact(hint) for name, hint in hints.items()}))


def _adapter(marker: _Only | _Named) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    # The marker, and not the hint itself, since Pydantic takes no configuration beside a model or dataclass.
    # Models keep their own configuration; plain dataclasses inherit this one.
    made: TypeAdapter[Any] = TypeAdapter(Annotated[Any, marker], config=_config())
    if not made.pydantic_complete:
        raise DeclarationError("A name in them is not defined.", hint="Resolve the hints before.")
    return made


def _config() -> Any:
    """For Pydantic's `ConfigDict` and the core's `CoreConfig`, which name one thing differently."""
    return {
        "extra": "forbid",
        "extra_fields_behavior": "forbid",
        "strict": True,
        "ser_json_bytes": "base64",
        "val_json_bytes": "base64",
        "ser_json_inf_nan": "strings",
    }


def _object(hints: Mapping[str, CoreSchema], *, required: bool = True) -> CoreSchema:
    from pydantic_core import core_schema as cs

    made = {name: cs.typed_dict_field(schema, required=required) for name, schema in hints.items()}
    # A typed dictionary does not inherit the configuration around it.
    return cs.typed_dict_schema(made, extra_behavior="forbid", config=_config())


class _MentionsItself(Exception):
    """An alias names itself, or something by a string; it stays as it is, and the comparison judges its values."""


def exact(hint: Any, within: tuple[Any, ...] = ()) -> Any:
    """The hint with what JSON lacks added to it. `within` holds the aliases being looked into."""
    origin = get_origin(hint)
    if within and isinstance(hint, (str, ForwardRef)):
        raise _MentionsItself
    if origin is Annotated:
        inner, *extras = get_args(hint)
        # Whoever names a discriminator has solved the matter.
        kept = any(getattr(extra, "discriminator", None) is not None for extra in extras)
        return hint if kept else Annotated[(exact(inner, within), *extras)]
    if origin is Union or origin is types.UnionType:
        return _exact_union(hint, within)
    if hint in _READ_ONCE or origin in _READ_ONCE:
        raise DeclarationError(f"{name_of(hint)} can be read only once.", hint="Use a list.")
    if origin in _CONTAINERS:
        return _exact_container(hint, origin, within)
    if hint is float:
        return Annotated[float, _ExactFloat()]
    if isinstance(hint, NewType):
        return exact(hint.__supertype__, within)
    if type(hint).__name__ == "TypeAliasType" and origin is None:
        return _exact_alias(hint, within)
    if _is_model(hint):
        return Annotated[hint, _Instance(hint)]
    return hint


def _exact_container(hint: Any, origin: Any, within: tuple[Any, ...]) -> Any:
    parts = tuple(part if part is ... else exact(part, within) for part in get_args(hint))
    if not parts:
        return hint
    pairs = origin in (dict, Mapping, collections.abc.MutableMapping) and not _is_plain_key(get_args(hint)[0])
    made: Any = origin[parts if len(parts) > 1 else parts[0]]
    return Annotated[made, _Pairs(*parts)] if pairs else made


def _exact_alias(hint: Any, within: tuple[Any, ...]) -> Any:
    if hint in within:
        raise _MentionsItself
    try:
        return exact(hint.__value__, (*within, hint))
    except _MentionsItself:
        return hint


def _exact_union(hint: Any, within: tuple[Any, ...]) -> Any:
    members = get_args(hint)
    made: Any = Union[tuple(exact(member, within) for member in members)]  # noqa: UP007 - made at run time
    some = [member for member in members if member is not type(None)]
    if len(some) < 2 or Any in some or object in some or not _look_alike(some):
        return made
    return Annotated[made, _Tagged(some, has_none=len(some) < len(members))]


def _look_alike(members: list[Any]) -> bool:
    seen: set[str] = set()
    for member in members:
        shapes = _json_shapes(member)
        if not shapes or shapes & seen:
            return True
        seen |= shapes
    return False


def _json_shapes(hint: Any) -> set[str]:
    """The shapes that values of this hint have in JSON; none if that is unknown."""
    origin = get_origin(hint) or hint
    if origin is Annotated:
        return set() if len(get_args(hint)) > 2 else _json_shapes(get_args(hint)[0])
    if origin is Literal:
        kinds = {type(value) for value in get_args(hint)}
        return set[str]().union(*map(_json_shapes, kinds)) if kinds <= {str, int, bool, type(None)} else set()
    simple = {
        str: "string",
        bool: "boolean",
        int: "integer",
        type(None): "null",
        dict: "object",
        Mapping: "object",
    }
    if origin is float:
        return {"float", "string"}
    if origin in simple:
        return {simple[origin]}
    if origin in (list, tuple, set, frozenset):
        return {"array"}
    # Models too: their serializers may write what they please.
    return set()


def _is_model(hint: Any) -> bool:
    from pydantic import BaseModel

    return isinstance(hint, type) and get_origin(hint) is None and issubclass(hint, BaseModel)


def _is_plain_key(hint: Any) -> bool:
    if hint in _PLAIN_KEYS:
        return True
    return isinstance(hint, type) and issubclass(hint, enum.Enum) and issubclass(hint, (str, int))


def name_of(hint: Any) -> str:
    """A hint as its user wrote it, without what is annotated to it: the same in every process."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return name_of(parts[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if origin is Union or origin is types.UnionType:
        return " | ".join(map(name_of, parts))
    if origin is not None:
        return f"{name_of(origin)}[{', '.join(map(name_of, parts))}]"
    return "..." if hint is ... else getattr(hint, "__name__", str(hint))


class _Only:
    """One hint, as a whole."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.hint)


class _Named:
    """A dictionary with a value for each name. Absent names are the codec's business."""

    def __init__(self, hints: Mapping[str, Any]) -> None:
        self.hints = hints

    def __get_pydantic_core_schema__(self, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _object(
            {name: handler.generate_schema(hint) for name, hint in self.hints.items()}, required=False
        )


class _Instance:
    """A Pydantic model: callers pass the real object, only JSON holds its fields."""

    def __init__(self, model: type) -> None:
        self.model = model

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema as cs

        inner = handler(source)
        return cs.json_or_python_schema(inner, cs.chain_schema([cs.is_instance_schema(self.model), inner]))


class _ExactFloat:
    """A float: every one of them, and integers only while a float can tell them apart."""

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema as cs

        number = cs.float_schema(strict=True)
        word = cs.chain_schema([cs.literal_schema(_WORDS), cs.float_schema(strict=False)])
        integer = cs.int_schema(strict=True, ge=-_EXACT_INT_MAX, le=_EXACT_INT_MAX)
        return cs.json_or_python_schema(
            cs.union_schema([number, word], mode="left_to_right", **_message("Input should be a number")),
            cs.union_schema(
                [cs.chain_schema([cs.is_instance_schema(float), number]), cs.chain_schema([integer, number])],
                mode="left_to_right",
                **_message("Input should be a float, or an integer that a float can hold"),
            ),
            serialization=cs.simple_ser_schema("float"),
        )


def _message(text: str) -> Any:
    return {"custom_error_type": "not_a_float", "custom_error_message": text}


class _Pairs:
    """A dictionary written as a list of pairs, in its own order."""

    def __init__(self, key: Any, value: Any) -> None:
        self.key, self.value = key, value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema as cs

        pair = cs.tuple_schema([handler.generate_schema(self.key), handler.generate_schema(self.value)])
        wrapped = _object({PAIRS: cs.list_schema(pair)})
        plain = handler(source)
        return cs.json_or_python_schema(
            cs.tagged_union_schema(
                {"pairs": cs.no_info_after_validator_function(_from_pairs, wrapped), "plain": plain},
                discriminator=_pairs_or_plain,
            ),
            plain,
            serialization=cs.wrap_serializer_function_ser_schema(
                lambda value, write: write({PAIRS: list(value.items())}), schema=wrapped
            ),
        )


def _from_pairs(document: Any) -> dict[Any, Any]:
    try:
        return dict(document[PAIRS])
    except TypeError as error:
        raise ValueError(str(error)) from error


def _pairs_or_plain(document: Any) -> str:
    return "pairs" if isinstance(document, dict) and document.keys() == {PAIRS} else "plain"


class _Tagged:
    """A union written with the name of the member that was meant.

    Payloads from before the hint became such a union carry no tag; they are read as Pydantic reads unions.
    """

    def __init__(self, members: list[Any], *, has_none: bool) -> None:
        self.members = dict(zip(_distinct_names(members), members, strict=True))
        self.has_none = has_none
        self._names_by_kind: dict[Any, list[str]] = {}
        for name, member in self.members.items():
            self._names_by_kind.setdefault(_kind_of(member), []).append(name)
        self._adapters: dict[str, TypeAdapter[Any]] = {}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema as cs

        plain = handler(source)
        choices: dict[Any, CoreSchema] = {
            name: _object({MEMBER: cs.literal_schema([name]), VALUE: handler.generate_schema(made)})
            for name, made in zip(self.members, map(exact, self.members.values()), strict=True)
        }
        tagged = cs.tagged_union_schema(choices, discriminator=MEMBER)
        value = cs.no_info_after_validator_function(operator.itemgetter(VALUE), tagged)
        return cs.json_or_python_schema(
            cs.tagged_union_schema({"tagged": value, "plain": plain}, discriminator=_tagged_or_plain),
            plain,
            serialization=cs.wrap_serializer_function_ser_schema(self._write, schema=tagged),
        )

    def _write(self, value: Any, write: Any) -> Any:
        if value is None and self.has_none:
            return None
        return write({MEMBER: self._name(value), VALUE: value})

    def _name(self, value: Any) -> str:
        names = self._names_by_kind.get(type(value), ())
        if len(names) == 1:
            return names[0]
        for name, member in self.members.items():
            if name not in self._adapters:
                self._adapters[name] = adapter(member)
            if self._adapters[name].validator.isinstance_python(value):
                return name
        raise ValueError(f"the value fits none of {', '.join(self.members)}")


def _tagged_or_plain(document: Any) -> str:
    return "tagged" if isinstance(document, dict) and document.keys() == TAGGED else "plain"


def _kind_of(hint: Any) -> Any:
    origin = get_origin(hint)
    return _kind_of(get_args(hint)[0]) if origin is Annotated else origin or hint


def _distinct_names(members: list[Any]) -> list[str]:
    short = [name_of(member) for member in members]
    # All of those that share a name get a longer one, so that it does not depend on their order.
    names = [
        f"{member.__module__}.{member.__qualname__}"
        if short.count(name) > 1 and isinstance(member, type)
        else name
        for name, member in zip(short, members, strict=True)
    ]
    return [name if names.index(name) == at else f"{name}#{at}" for at, name in enumerate(names)]
