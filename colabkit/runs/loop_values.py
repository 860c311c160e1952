"""What the variables of a loop stand for, asked without running anything of the user's."""

from __future__ import annotations

import collections
import contextlib
import dis
import functools
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import CellType, FrameType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

from colabkit.frameworks.bystanders import is_cached
from colabkit.frameworks.users_own import (
    attributes_of,
    carries_attributes,
    is_of_users_class,
)
from colabkit.runs.leaving import reads_loop
from colabkit.runs.loop_paths import MISSING, followed, in_class, owner_of, prefixes_of, root_of

_ROWS = (list, set, dict, collections.deque)
_DEPTH_MAX, _SHORT_MAX = 4, 64
# What those of Keras have, and those of NNX and TorchMetrics.
_METRICS = (("update_state", "result", "reset_state"), ("update", "compute", "reset"))
# The frame's, the variable's that asks, and the counting call's.
_ITS_OWN_REFERENCES = 3
_ADDING = frozenset({"+=", "-="})
_GENERATORS = {
    ("numpy", "Generator"),
    ("numpy", "RandomState"),
    ("random", "Random"),
    ("torch", "Generator"),
}

_TAKING_UP = ("add", "add_item", "add_items", "append", "extend", "push", "put")

LEARNING = frozenset({"learn_many", "learn_one", "partial_fit"})

# What a program calls on a model without making anything of its weights.
NEUTRAL = frozenset({
    "children", "compile", "cpu", "cuda", "double", "eval", "float", "half", "modules",
    "named_children", "named_modules", "register_forward_hook", "requires_grad_",
    "summary", "to", "train", "zero_grad",
})  # fmt: skip


class Held:
    """What a checkpoint holds.

    Args:
        objects: What the run was given, and the run itself.
        lasting: Those of them that it has for good.
        kept: What it keeps of the loop's variables.
        weights: Those of the objects that hold the weights.
        run: The run.
    """

    def __init__(
        self,
        objects: Iterable[Any],
        *,
        lasting: Iterable[Any] = (),
        kept: Iterable[Any] = (),
        weights: Iterable[Any] = (),
        run: Any = None,
    ) -> None:
        self.run, self.weights, self._lasting = run, tuple(weights), tuple(lasting)
        # Lone numbers are alike wherever they stand.
        self._kept = [each for each in kept if not is_lone(each)]
        self._objects = [*self._kept, *(each for each in objects if not is_lone(each))]

    def __contains__(self, value: object) -> bool:
        return any(value is each for each in self._objects)

    def goes_on_with(self, value: object) -> bool:
        """Whether it is an object that the run was given for good."""
        is_object = not (is_lone(value) or is_row(value) or is_array(value))
        return is_object and any(value is each for each in self._lasting)

    def owns(self, value: object) -> bool:
        """Whether one of the objects has it as an attribute, and sees to it."""
        # A schedule knows its optimizer, and saves nothing of it.
        owners = [each for each in self._objects if not is_stepping(each) or is_around(each)]
        return any(value is part for each in owners for part in attributes_of(each).values())

    def has_part_of(self, value: object) -> bool:
        """Whether one of its parts is kept: then it was seen to."""
        parts = list(map(id, attributes_of(value).values()))
        return any(id(each) in parts for each in self._kept)


class Values:
    """The values of paths such as ``best`` and ``self.best``.

    Args:
        frame: Where the loop stands.
        held: What a checkpoint holds.
    """

    def __init__(self, frame: FrameType, held: Held) -> None:
        self._locals, self._globals = variables_of(frame), frame.f_globals
        self.held = held
        self._of_functions: dict[str, Any] = {}
        self._aliases: dict[tuple[int, str], str] = {}
        self._places: dict[str, tuple[object, str]] = {}

    def knows(self, name: str, function: FunctionType) -> bool:
        """Whether a name stands for the same in a function of the user's as in the loop."""
        return self._at(name) is _of_function(name, function)

    def add(self, name: str, function: FunctionType) -> str:
        """Takes up what a function knows by a name, under another one, which is returned.

        Functions that share a variable know it by one.
        """
        cells = _cells_of(function)
        place = (id(cells.get(name, function.__globals__)), name)
        alias = self._aliases.setdefault(place, f"{function.__name__}:{name}")
        self._places[alias] = place
        self._of_functions[alias] = _of_function(name, function)
        return alias

    def add_default(self, name: str, function: FunctionType, value: Any) -> str:
        """Takes up what an argument is where none is given, under a name that is returned."""
        alias = f"{function.__name__}:{name}"
        self._of_functions[alias] = value
        return alias

    def has(self, path: str) -> bool:
        """Whether it is there."""
        return self._at(path) is not MISSING or any(map(self.is_answer, prefixes_of(path)))

    def of(self, path: str) -> Any:
        """Returns its value, None for what is not there or nobody can tell without asking it."""
        value = self._at(path)
        return None if value is MISSING else value

    def _at(self, path: str) -> Any:
        root = root_of(path)
        value = self._of_functions.get(root, MISSING)
        if value is MISSING:
            value = self._locals.get(root, self._globals.get(root, MISSING))
        return followed(value, path)

    def is_object(self, path: str) -> bool:
        """Whether an object is there that others can hold as well."""
        value = self._at(path)
        is_plain = is_lone(value) or isinstance(value, str | bytes | type | ModuleType)
        return value is not MISSING and not is_plain

    def are_one(self, path: str, other: str) -> bool:
        """Whether two paths lead to one object, or to one attribute of it."""
        return self._place_of(path) == self._place_of(other)

    def _place_of(self, path: str) -> tuple[object, str]:
        if path not in self._places:
            owner, dot, name = path.rpartition(".")
            if dot and not self.is_object(path):
                self._places[path] = self._in_owner(owner, name) or (path, "")
            elif self.is_object(path):
                self._places[path] = (id(self._at(path)), "")
            else:
                is_own = path in self._locals and self._locals is not self._globals
                self._places[path] = (path, "") if is_own else (id(self._globals), path)
        return self._places[path]

    def _in_owner(self, owner: str, name: str) -> tuple[object, str] | None:
        """Returns where an attribute lies: in an object, in a class of it, or in a module."""
        value = self._at(owner)
        if isinstance(value, ModuleType):
            return id(vars(value)), name
        is_known = value is not MISSING and not (is_lone(value) or isinstance(value, str | bytes))
        return (id(owner_of(value, name)), name) if is_known else None

    def attribute(self, path: str, name: str) -> str:
        """Returns the path of an attribute: of the loop's own module, the variable itself."""
        value = self._at(path)
        is_hidden = name in self._locals and self._locals is not self._globals
        is_own = isinstance(value, ModuleType) and vars(value) is self._globals
        return name if is_own and not is_hidden else f"{path}.{name}"

    def parts(self, owner: str) -> list[str]:
        """Returns the paths of an object's attributes, of the globals for ""; none of code."""
        found = attributes_of(self._at(owner)) if owner else self._globals
        others = ((n, v) for n, v in found.items() if not n.startswith("__"))
        data = (n for n, v in others if not (callable(v) or isinstance(v, ModuleType)))
        return [f"{owner}.{name}" if owner else name for name in data]

    def paths_to(self, read: Mapping[int, Collection[str]], closed: Mapping[str, int]) -> list[str]:
        """Returns the variables, and attributes, that lead to what code reads.

        Args:
            read: The names that it asks for, by the identity of the object, class or namespace.
            closed: The identities of what its closed-over variables stand for, by name.
        """
        ways = [*{**self._globals, **self._locals}]
        for path in ways:  # longer as it goes
            value = self._at(path)
            is_way = path in self._locals or (id(value) in read and path.count(".") < _DEPTH_MAX)
            ways += [f"{path}.{name}" for name in attributes_of(value)] if is_way else []
        found = [path for path in ways if id(self._at(path)) in read]
        parts = [f"{path}.{each}" for path in found for each in read[id(self._at(path))]]
        parts += read.get(id(self._globals), ())
        parts += [n for n, each in self._locals.items() if closed.get(n) == id(each)]
        # Of the user's own objects no more is read than they are asked for.
        whole = [
            each for each in found if not attributes_of(self._at(each)) or is_row(self._at(each))
        ]
        return list(dict.fromkeys([*whole, *(each for each in parts if self._is_data(each))]))

    def _is_data(self, path: str) -> bool:
        value = self._at(path)
        return value is not MISSING and not isinstance(value, ModuleType | type | FunctionType)

    def is_yet_to_be_set(self, path: str) -> bool:
        """Whether it is an attribute that an object may be given, and has not."""
        owner, dot, name = path.rpartition(".")
        is_attribute = bool(dot) and not path.endswith(("]", ")")) and self.is_object(owner)
        if not is_attribute or self.has(path):
            return False
        value = self._at(owner)
        return carries_attributes(value) and in_class(type(value), name) is MISSING

    def is_answer(self, path: str) -> bool:
        """Whether it is what a function gives that remembers it, be it yet to be made."""
        return path.endswith("()") and is_cached(self.of(path.removesuffix("()")))

    def plain_name(self, path: str) -> str:
        """Returns a variable that is the same object, or the path itself where there is none."""
        value = self._at(path)
        own = (n for each in (self._locals, self._globals) for n, v in each.items() if v is value)
        return next(own, path)

    def is_held(self, path: str) -> bool:
        """Whether a checkpoint holds it, or what it belongs to."""
        values = [self._at(each) for each in prefixes_of(path)]
        if is_stepping(values[-1]) and self.held.owns(values[-1]):
            return True
        return any(each in self.held for each in values) or self.held.has_part_of(values[-1])

    def is_around_held(self, path: str) -> bool:
        """Whether it is an optimizer around one that a checkpoint holds."""
        value = self.of(path)
        return is_around(value) and any(each in self.held for each in attributes_of(value).values())

    def is_weights(self, path: str) -> bool:
        """Whether it is a model of the run's."""
        return any(self._at(path) is each for each in self.held.weights)

    def is_run(self, path: str) -> bool:
        """Whether it is the run itself, or what has it."""
        value = self._at(path)
        return any(each is self.held.run for each in (value, *attributes_of(value).values()))


def _of_function(name: str, function: FunctionType) -> Any:
    cells = _cells_of(function)
    try:
        return cells[name].cell_contents
    except (KeyError, ValueError):  # it is a global, or yet to be set
        return function.__globals__.get(name, MISSING)


def _cells_of(function: FunctionType) -> dict[str, CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))


def closed_over_by(function: FunctionType) -> dict[str, Any]:
    """Returns the variables of the functions around one that it uses, by name."""
    found = {}
    for name, cell in _cells_of(function).items():
        with contextlib.suppress(ValueError):  # it is yet to be set
            found[name] = cell.cell_contents
    return found


def variables_of(frame: FrameType) -> Mapping[str, Any]:
    """Returns the variables of a frame by name, without a trace of having been asked.

    Before Python 3.13 the frame itself would keep what they held until it is asked again.
    """
    found = frame.f_locals
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return found  # those of a module or cell are no copy
    own = dict(found)
    if type(found) is dict and sys.getrefcount(found) <= _ITS_OWN_REFERENCES:
        found.clear()  # nobody holds on to what its locals() gave
    return own


def counts_itself(owner: object, name: str) -> bool:
    """Whether a library's object counts by itself in an attribute: tqdm's ``bar.n``."""
    kind: Any = type(owner)
    if isinstance(owner, type | ModuleType) or is_of_users_class(kind):
        return False
    return type(attributes_of(owner).get(name)) in {int, float} and _is_counted(kind, name)


def counted_by(owner: object, method: str) -> list[str]:
    """Returns the attributes in which a method of a library's object counts: a meter's ``avg``."""
    kind: Any = type(owner)
    if isinstance(owner, type | ModuleType) or is_of_users_class(kind) or has_state(owner):
        return []
    own, found = attributes_of(owner), in_class(kind, method)
    names = _counted_in(found) if isinstance(found, FunctionType) else ()
    return [name for name in names if type(own.get(name)) in {int, float}]


@functools.lru_cache(maxsize=64)
def _is_counted(kind: type, name: str) -> bool:
    """Whether a method of a class adds to an attribute, or makes it of one that it adds to."""
    own = (e for base in kind.__mro__ for n, e in vars(base).items() if n != "__init__")
    return any(name in _counted_in(e) for e in own if isinstance(e, FunctionType))


@functools.lru_cache(maxsize=256)
def _counted_in(function: FunctionType) -> tuple[str, ...]:
    """Returns the attributes that a function sets, where it adds to one of them."""
    found = list(dis.get_instructions(function))
    stores = [n for n, each in enumerate(found) if each.opname == "STORE_ATTR"]
    adds = any(e.argrepr in _ADDING for n in stores for e in found[max(0, n - 3) : n])
    return tuple(dict.fromkeys(found[n].argval for n in stores)) if adds else ()


def is_lone(value: object) -> bool:
    """Whether it is a number, or none at all."""
    return type(value) in {bool, float, int, type(None)}


def is_row(value: object) -> bool:
    """Whether it is a list, dict or the like."""
    return isinstance(value, _ROWS)


def is_iterator(value: object) -> bool:
    """Whether it gives one thing after another and cannot tell where it stands; no loop of ours."""
    if not issubclass(type(value), Iterator) or hasattr(type(value), "state_dict"):
        return False
    return not reads_loop(value)


def is_table(value: object) -> bool:
    """Whether it is a frame or series of pandas, written into by ``loc`` and the like."""
    return hasattr(type(value), "iloc")


def is_learner(value: object) -> bool:
    """Whether a library's object learns from one batch after another."""
    is_one = any(callable(getattr(type(value), each, None)) for each in LEARNING)
    return is_one and not is_of_users_class(type(value))


def is_trained(value: Any) -> bool:
    """Whether an array is one of those that training changes."""
    return bool(getattr(value, "requires_grad", False))


def is_pool(value: object) -> bool:
    """Whether it is made to take things up."""
    if is_row(value):
        return True
    if hasattr(type(value), "state_dict") or isinstance(value, type | ModuleType):
        return False
    return any(map(is_row, attributes_of(value).values())) or _is_closed_pool(value)


def _is_closed_pool(value: object) -> bool:
    """Whether it is of compiled code, shows nothing of what it holds, and is made to take it up.

    A queue, an array of Python's, an index of neighbours.
    """
    if is_array(value):
        return False
    is_wrapped = type(attributes_of(value).get("this")).__name__ == "SwigPyObject"
    methods = (in_class(type(value), name) for name in _TAKING_UP)
    return is_wrapped or any(isinstance(each, MethodDescriptorType) for each in methods)


def has_state(value: object) -> bool:
    """Whether it has a state that it gives and takes: a module, an optimizer, a metric."""
    kind = type(value)
    return hasattr(kind, "state_dict") and hasattr(kind, "load_state_dict")


def is_generator(value: object) -> bool:
    """Whether it draws random numbers, from a place of its own."""
    kinds = {(each.__module__.partition(".")[0], each.__name__) for each in type(value).__mro__}
    return not kinds.isdisjoint(_GENERATORS)


def is_environment(value: object) -> bool:
    """Whether it is acted upon step by step."""
    return all(callable(getattr(type(value), each, None)) for each in ("reset", "step"))


def is_stepping(value: object) -> bool:
    """Whether it is an optimizer, a schedule or a gradient scaler that is switched on."""
    is_one = all(callable(getattr(type(value), each, None)) for each in ("step", "state_dict"))
    return is_one and bool(attributes_of(value).get("_enabled", True))


def is_metric(value: Any) -> bool:
    """Whether it sums up what it is given until it is set back; or a row of such."""
    if is_row(value):
        parts = value.values() if isinstance(value, dict) else value
        return any(is_metric(each) for each in parts if not is_row(each))
    kind = type(value)
    return any(all(callable(getattr(kind, n, None)) for n in names) for names in _METRICS)


def is_waiting(value: object) -> bool:
    """Whether it is a library's callback that waits for something to get better."""
    is_one = callable(getattr(type(value), "on_epoch_end", None)) and "wait" in attributes_of(value)
    return is_one and not is_of_users_class(type(value))


def is_around(value: object) -> bool:
    """Whether it is an optimizer around another, whose groups are its own."""
    return hasattr(type(value), "param_groups")


def is_single(value: object) -> bool:
    """Whether it is a lone number of any library's: an array or tensor without dimensions."""
    has_form = all(hasattr(type(value), each) for each in ("shape", "dtype"))
    return has_form and getattr(value, "shape", None) == ()


def is_array(value: object) -> bool:
    """Whether it is an array or tensor of any library, and no lone number."""
    return all(hasattr(type(value), each) for each in ("shape", "dtype")) and bool(
        getattr(value, "shape", ())
    )


def arrays_in(value: object) -> list[Any]:
    """Returns the arrays that a value is, or holds as a short row of such."""
    if not isinstance(value, list | tuple | dict):
        return [value] if is_array(value) else []
    row = list(value.values() if isinstance(value, dict) else value)
    return [each for each in row if is_array(each)] if len(row) <= _SHORT_MAX else []
