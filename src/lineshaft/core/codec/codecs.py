"""The two codecs: for the arguments of one function, and for one value such as a result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Union

from lineshaft.core.bounds import PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX
from lineshaft.core.codec.canonical import is_deeper_than, with_sets_in_order
from lineshaft.core.codec.comparison import HAS_SETS, NO_EQUALITY, Differs, compare, compare_named
from lineshaft.core.codec.hints import adapter, arguments_adapter
from lineshaft.core.codec.wording import cause_of, cut, extract, path_text, validation_problems
from lineshaft.core.errors import (
    DeclarationError,
    InvalidArguments,
    LineshaftError,
    NotEncodable,
    PayloadTooLarge,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_EMPTY = inspect.Parameter.empty
_TYPE_HINT = "Annotate it with the type that is sent, or pass one that the hint describes."
_BYTES_HINT = (
    "Bytes inside a Pydantic model need "
    "model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')."
)
_UNCHANGEABLE = (type(None), bool, int, float, str, bytes)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ArgumentsCodec:
    """Validates, encodes and decodes the arguments of one function.

    `task` is its name in messages. `parameters` are those that callers fill (injected ones left out), each
    with its resolved annotation (`typing.get_type_hints(..., include_extras=True)`); one without annotation
    takes what JSON can carry as it is: None, bool, int, finite float, str, list, and dict with str keys.

    Validation is strict: `"5"` is no int, a dict no model, and a tuple no list.
    Raises `DeclarationError` at once for `*args` and `**kwargs`, and at first use or in `build` for hints that
    cannot be encoded and for defaults that do not fit.
    """

    def __init__(
        self,
        task: str,
        parameters: Sequence[inspect.Parameter],
        *,
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    ) -> None:
        self.task = task
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self._names = tuple(self.parameters)
        self._by_position = tuple(
            parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        )
        self._only_by_position = tuple(
            parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        )
        self._payload_bytes_max = payload_bytes_max
        for parameter in parameters:
            if parameter.kind in _VARIADIC:
                raise DeclarationError(
                    f"Task {task!r} has the variadic parameter {parameter}, which has no place in a payload.",
                    hint="Give it a list or dict parameter instead.",
                )

    def build(self) -> None:
        """Make ready now what would be made at first use, so that faults in hints and defaults show early."""
        _ = self._wire, self._defaults_payload

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The validated values by parameter name, in declared order, defaults filled in.

        Raises `InvalidArguments` that lists all problems.
        """
        if not kwargs and len(args) == len(self._by_position) == len(self._names):
            given = dict(zip(self._names, args))  # noqa: B905 - counted above; naming it costs a tenth
        else:
            given = self._assign(args, kwargs)
        try:
            values: dict[str, Any] = self._wire.validator.validate_python(given)
        except LineshaftError:
            raise
        except Exception as error:
            self._wire.refuse_values(error, self._missing(given))
        return values if len(values) == len(self._names) else self._filled(values)

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """A JSON object by parameter name. `values` are what `bind` returned.

        Raises `NotEncodable` when a value would not come back as it is, and `PayloadTooLarge`.
        """
        return self._wire.encode(values)

    def decode(self, payload: bytes) -> dict[str, Any]:
        """The values by name. Raises `InvalidArguments` when the present function refuses them.

        A parameter that the payload does not know yet gets its default.
        """
        values: dict[str, Any] = self._wire.decode(payload)
        return values if len(values) == len(self._names) else self._filled(values)

    def call_arguments(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`(args, kwargs)` to call the function with."""
        if not self._only_by_position:
            return (), values
        kwargs = dict(values)
        return tuple(kwargs.pop(name) for name in self._only_by_position), kwargs

    @cached_property
    def _wire(self) -> _Wire:
        hints = {}
        for name, parameter in self.parameters.items():
            hint = Any if parameter.annotation is _EMPTY else parameter.annotation
            hints[name] = Union[hint, None] if parameter.default is None and hint is not Any else hint  # noqa: UP007 - made at run time
        what = f"the arguments of task {self.task!r}"
        return _Wire(
            what, _declared(what, lambda: arguments_adapter(hints)), self._payload_bytes_max, compare_named
        )

    @cached_property
    def _defaults_payload(self) -> bytes:
        given = {name: p.default for name, p in self.parameters.items() if p.default is not _EMPTY}
        wire = self._wire
        try:
            return wire.encode(wire.validator.validate_python(given))
        except LineshaftError as error:
            raise DeclarationError(f"The defaults of task {self.task!r} cannot be used: {error}") from error
        except Exception as error:
            reasons = "; ".join(_problems(error))
            raise DeclarationError(f"The defaults of task {self.task!r} do not fit: {reasons}.") from error

    @cached_property
    def _fixed_defaults(self) -> dict[str, Any] | None:
        """The defaults, if nobody can change them."""
        defaults: dict[str, Any] = self._wire.decode(self._defaults_payload)
        return defaults if all(type(value) in _UNCHANGEABLE for value in defaults.values()) else None

    def _assign(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        problems = []
        if len(args) > len(self._by_position):
            problems.append(f"takes {len(self._by_position)} arguments by position, got {len(args)}")
        given = dict(zip(self._by_position, args, strict=False))
        for name, value in kwargs.items():
            if name not in self.parameters:
                problems.append(f"{cut(name)}: there is no such parameter")
            elif name in self._only_by_position:
                problems.append(f"{name}: can only be given by position")
            elif name in given:
                problems.append(f"{name}: given twice, by position and by name")
            given[name] = value
        if problems:
            raise self._wire.refusal(problems + self._missing(given))
        return given

    def _missing(self, given: Mapping[str, Any]) -> list[str]:
        return [f"{n}: missing" for n, p in self.parameters.items() if n not in given and p.default is _EMPTY]

    def _filled(self, values: dict[str, Any]) -> dict[str, Any]:
        missing = self._missing(values)
        if missing:
            raise self._wire.refusal(missing)
        defaults = self._fixed_defaults
        if defaults is None:  # each run gets a list or a model of its own
            defaults = self._wire.decode(self._defaults_payload)
        both = {**defaults, **values}
        return {name: both[name] for name in self._names}


class ValueCodec:
    """Validates, encodes and decodes values of one hint: a result, one item of a batch, a message.

    `what` names the value in messages, such as `the result of task 'charge'`.
    """

    def __init__(self, what: str, annotation: Any, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self.what = what
        self.annotation = annotation
        self._payload_bytes_max = payload_bytes_max

    def build(self) -> None:
        """Make ready now what would be made at first use. Raises `DeclarationError` for hints that do not work."""
        _ = self._wire

    def validate(self, value: Any) -> Any:
        """The value as the hint has it, an integer for a float converted. Raises `InvalidArguments`."""
        wire = self._wire
        try:
            return wire.validator.validate_python(value)
        except Exception as error:
            wire.refuse_values(error, [])

    def encode(self, value: Any) -> bytes:
        """JSON. Raises `NotEncodable` when the value would not come back as it is, and `PayloadTooLarge`."""
        return self._wire.encode(value)

    def decode(self, payload: bytes) -> Any:
        """The value. Raises `InvalidArguments` when the present hint refuses it."""
        return self._wire.decode(payload)

    @cached_property
    def _wire(self) -> _Wire:
        hint = Any if self.annotation is _EMPTY else self.annotation
        return _Wire(self.what, _declared(self.what, lambda: adapter(hint)), self._payload_bytes_max, compare)


class _Wire:
    """Validator and serializer of one hint, with every failure turned into one of ours."""

    __slots__ = (
        "_payload_bytes_max",
        "_to_json",
        "_from_json",
        "_what",
        "_compare",
        "validator",
    )

    def __init__(
        self,
        what: str,
        made: TypeAdapter[Any],
        payload_bytes_max: int,
        compare_whole: Callable[[Any, Any, set[str]], None],
    ) -> None:
        self.validator = made.validator
        self._to_json = made.serializer.to_json
        self._from_json = made.validator.validate_json
        self._what = what[:1].upper() + what[1:]
        self._payload_bytes_max = payload_bytes_max
        self._compare = compare_whole

    def encode(self, value: Any) -> bytes:
        payload = self._dump(value)
        if len(payload) > self._payload_bytes_max:
            raise PayloadTooLarge(
                f"{self._what}: encoded in {len(payload):,} bytes; the bound is {self._payload_bytes_max:,}.",
                hint="Store the data elsewhere and pass a reference to it.",
            )
        if len(payload) > 2 * PAYLOAD_DEPTH_MAX and is_deeper_than(payload, PAYLOAD_DEPTH_MAX):
            raise NotEncodable(
                f"{self._what}: cannot be stored: nested deeper than {PAYLOAD_DEPTH_MAX} levels.",
                hint="Flatten the data, or store it elsewhere and pass a reference.",
            )
        notes: set[str] = set()
        try:
            self._compare(value, arrived := self._load(payload), notes)
            if not notes:
                return payload
            return self._noted(value, arrived, payload, notes)
        except Differs as difference:
            raise self._not_the_same(difference) from None
        except Exception as error:
            raise self._not_encodable(error) from error

    def decode(self, payload: bytes) -> Any:
        try:
            return self._load(payload)
        except Exception as error:
            self.refuse_values(error, [])

    def refuse_values(self, error: Exception, more: list[str]) -> NoReturn:
        """Raise `InvalidArguments` for what a validator raised."""
        raise self.refusal(_problems(error) + more, error) from error

    def refusal(self, problems: list[str], error: Exception | None = None) -> InvalidArguments:
        """The error that lists these problems."""
        hint = "Pass the object itself, not its fields." if _wants_instance(error) else ""
        return InvalidArguments(f"{self._what}: refused: {'; '.join(problems)}.", hint=hint)

    def _dump(self, value: Any) -> bytes:
        # By field name: an alias may lead one way only. `round_trip` leaves out computed fields.
        try:
            return self._to_json(value, by_alias=False, round_trip=True, warnings=False)
        except Exception as error:
            raise self._not_encodable(error) from error

    def _load(self, payload: bytes) -> Any:
        return self._from_json(payload, by_alias=False, by_name=True)

    def _noted(self, value: Any, arrived: Any, payload: bytes, notes: set[str]) -> bytes:
        """What the comparison left open: order of sets, objects that equal only themselves."""
        from pydantic_core import from_json, to_json

        if HAS_SETS in notes:
            payload = to_json(with_sets_in_order(value, from_json(payload)))
            arrived = self._load(payload)
            self._compare(value, arrived, notes)
        if NO_EQUALITY in notes:
            again = self._dump(arrived)
            if HAS_SETS in notes:
                again = to_json(with_sets_in_order(arrived, from_json(again)))
            if again != payload:
                raise Differs(value, arrived, "its encoding changes on the way")
        return payload

    def _not_the_same(self, difference: Differs) -> NotEncodable:
        where = cut(path_text(difference.path))
        sent, arrived = extract(difference.sent), extract(difference.arrived)
        reason = f"{sent} would come back {f'as {arrived}' if sent != arrived else 'changed'}"
        why = f" ({difference.why})" if difference.why else ""
        place = f"{where}: " if where else ""
        return NotEncodable(
            f"{self._what}: cannot be stored exactly: {place}{reason}{why}.",
            hint=difference.hint or _TYPE_HINT,
        )

    def _not_encodable(self, error: Exception) -> NotEncodable:
        reasons = "; ".join(_problems(error))
        in_text = "UnicodeDecodeError" in reasons or "utf-8 sequence" in reasons
        return NotEncodable(
            f"{self._what}: cannot be stored: {reasons}.", hint=_BYTES_HINT if in_text else ""
        )


def _problems(error: Exception) -> list[str]:
    from pydantic import ValidationError

    return validation_problems(error) if isinstance(error, ValidationError) else [cause_of(error)]


def _wants_instance(error: Exception | None) -> bool:
    return error is not None and "[type=is_instance_of" in cause_of(error)


def _declared(what: str, make: Any) -> TypeAdapter[Any]:
    try:
        made: TypeAdapter[Any] = make()
    except DeclarationError as error:
        raise DeclarationError(
            f"The type hints for {what} cannot be used: {error.message}", hint=error.hint
        ) from error
    except Exception as error:
        raise DeclarationError(
            f"The type hints for {what} cannot be used: {cause_of(error)}",
            hint="Use Pydantic models, dataclasses, and the types of the standard library.",
        ) from error
    return made
