"""What the steps of a loop go by and hand on by themselves, read in its code."""

from __future__ import annotations

import collections
import dis
import itertools
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import FrameType, FunctionType
from typing import Any

from colabkit.runs.leaving import accesses, body_of, carried_in, frames_over, value_of

_Place = tuple[int, int | None]

_ROWS = (list, set, collections.deque)
_GROWING = frozenset({"add", "append", "appendleft", "extend", "push", "remember", "store"})
# Of objects that give back what they took before, and of environments.
_ANSWERING = frozenset({"push_and_pop", "query", "step"})
_LONE = frozenset({bool, float, int, type(None)})
_NUMBERS = frozenset({"float", "item", "len", "tolist"})


def handed_on(loop: weakref.ref[Any]) -> dict[str, Any]:
    """Returns the variables that steps of a loop change and later ones go by, by name.

    Pools that they put something into and read; arrays that they write into and read;
    environments; numbers that they compare, or count and read; what is None before the first step.
    Sums and lists of single numbers are for the eye. Asked from within the loop's generator, at the
    head of a ``for`` statement.
    """
    found: dict[str, Any] = {}
    for frame in frames_over(loop()):
        if body := body_of(frame):
            found |= dict(_in_body(frame, body))
    return found


def _in_body(frame: FrameType, body: Sequence[dis.Instruction]) -> Iterator[tuple[str, Any]]:
    first: dict[str, str] = {}
    for each in body:
        for verb, own in accesses(each):
            first.setdefault(own, verb)
    from_before = {name: value_of(name, frame) for name, verb in first.items() if verb == "LOAD"}
    for name in carried_in(frame):
        if name not in frame.f_locals:
            continue
        value = from_before[name]
        is_lone = type(value) in _LONE and value is not None
        goes_by = _is_compared(name, body) or _is_count(name, body)
        if goes_by if is_lone else value is None or isinstance(value, _ROWS):
            yield name, value
    written = {_beginning_of(each) for each in body if each.opname == "STORE_SUBSCR"} - {None}
    seen = ((place, _changed_at(place, body, written)) for place in range(len(body)))
    changing = {place: name for place, name in seen if name is not None}
    read = {own for n, each in enumerate(body) if n not in changing for own in _reads(each)}
    read |= {used for own in read for used in _names_in(value_of(own, frame))}
    for place, name in changing.items():
        value = from_before.get(name)
        verb = body[place + 1].argval
        if verb in _ANSWERING:
            if _is_pool(value) or _is_environment(value):
                yield name, value
        elif name in read and (_is_pool(value) if verb in _GROWING else _is_array(value)):
            yield name, value


def _changed_at(
    place: int, body: Sequence[dis.Instruction], written: Collection[_Place | None]
) -> str | None:
    """Returns which name an instruction loads to change what it stands for.

    Args:
        place: Number of the instruction in the body.
        body: The instructions of the loop's body.
        written: Where in the source something is written into by its index.
    """
    loads = _reads(body[place])
    if not loads or place + 1 == len(body):
        return None
    if body[place + 1].argval in _ANSWERING:
        return loads[-1]
    if body[place + 1].argval in _GROWING:
        return None if _takes_number(place, body) else loads[-1]
    # Of two names that one instruction reads, its place is that of the first: of ``v`` and ``bank``
    # in ``bank[i] = v``, the second is written into right behind the index.
    if _beginning_of(body[place]) in written:
        return loads[0]
    is_second = len(loads) > 1 and [e.opname for e in body[place + 2 : place + 3]] == [
        "STORE_SUBSCR"
    ]
    return loads[-1] if is_second else None


def _takes_number(place: int, body: Sequence[dis.Instruction]) -> bool:
    made, begins = [], _beginning_of(body[place])
    for each in itertools.islice(body, place + 2, None):
        if each.opname.startswith("CALL") and _beginning_of(each) == begins:
            break
        made.append(each)
    is_number = any(isinstance(e.argval, str) and e.argval in _NUMBERS for e in made)
    return is_number and not any(e.opname.startswith("BUILD") for e in made)


def _beginning_of(each: dis.Instruction) -> _Place | None:
    at = each.positions
    return None if at is None or at.lineno is None else (at.lineno, at.col_offset)


def _is_compared(name: str, body: Sequence[dis.Instruction]) -> bool:
    compared = [each for each in body if each.opname == "COMPARE_OP"]
    return any(
        name in _reads(each) and any(_lies_in(each, whole) for whole in compared) for each in body
    )


def _lies_in(one: dis.Instruction, whole: dis.Instruction) -> bool:
    a, b = one.positions, whole.positions
    if a is None or b is None:
        return False
    places = (b.lineno, b.col_offset, a.lineno, a.col_offset, a.end_lineno, a.end_col_offset)
    if None in (*places, b.end_lineno, b.end_col_offset):
        return False
    begins: Any = ((b.lineno, b.col_offset), (a.lineno, a.col_offset))
    ends: Any = ((a.end_lineno, a.end_col_offset), (b.end_lineno, b.end_col_offset))
    return bool(begins[0] <= begins[1] and ends[0] <= ends[1])


def _is_count(name: str, body: Sequence[dis.Instruction]) -> bool:
    """Whether a number grows by a constant, and is read beside that."""
    adds = [
        n
        for n, each in enumerate(body[:-2])
        if name in _reads(each)
        and body[n + 1].opname in {"LOAD_CONST", "LOAD_SMALL_INT"}
        and body[n + 2].opname.startswith("BINARY_OP")
        and body[n + 2].argrepr == "+="
    ]
    return bool(adds) and sum(name in _reads(each) for each in body) > len(adds)


def _reads(each: dis.Instruction) -> list[str]:
    return [name for verb, name in accesses(each) if verb == "LOAD"]


def _names_in(value: object) -> tuple[str, ...]:
    """Returns what a function of the notebook's uses besides its own."""
    if not isinstance(value, FunctionType):
        return ()
    return (*value.__code__.co_names, *value.__code__.co_freevars)


def _is_pool(value: object) -> bool:
    if isinstance(value, _ROWS):
        return True
    if hasattr(type(value), "state_dict"):
        return False
    return any(isinstance(each, _ROWS) for each in _attributes_of(value).values())


def _is_environment(value: object) -> bool:
    return all(callable(getattr(type(value), each, None)) for each in ("reset", "step"))


def _is_array(value: object) -> bool:
    return all(hasattr(type(value), each) for each in ("shape", "dtype")) and bool(
        getattr(value, "shape", ())
    )


def _attributes_of(value: object) -> dict[str, Any]:
    """Returns what an object carries, without its own ``__getattr__``, which may raise anything."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def not_held(values: Mapping[str, Any], held: Iterable[Any]) -> dict[str, Any]:
    """Returns the variables that are none of the objects which a run holds."""
    # Lone numbers are alike wherever they stand.
    ids = {id(each) for each in held if type(each) not in _LONE}

    def is_held(value: object) -> bool:
        # An environment of whose parts one is kept was seen to.
        return not ids.isdisjoint(map(id, (value, *_attributes_of(value).values())))

    return {name: each for name, each in values.items() if not is_held(each)}
