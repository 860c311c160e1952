"""What becomes of what the statements of a loop read: whether anything but the eye goes by it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Sequence
from types import ModuleType

from colabkit.frameworks.users_own import package_of
from colabkit.runs.loop_events import Reader
from colabkit.runs.loop_gradients import is_backward_of, other_reads
from colabkit.runs.loop_paths import ANY, container_of, is_part, prefixes_of, root_of
from colabkit.runs.loop_rooms import Room, begins_pass, done_by
from colabkit.runs.loop_syntax import set_at, verb_of
from colabkit.runs.loop_values import Values, counted_by, counts_itself, is_row
from colabkit.runs.loop_writes import CHANGING, Event, Verb

_SHOWING = frozenset({
    "critical", "debug", "display", "dump", "error", "exception", "info", "print", "savefig",
    "set_description", "set_description_str", "set_postfix", "set_postfix_str", "to_csv", "to_json",
    "to_parquet", "warning", "write", "writerow", "writerows",
})  # fmt: skip
_OF_THE_EYE = frozenset({
    "IPython", "aim", "clearml", "comet_ml", "logging", "matplotlib", "mlflow", "neptune", "rich",
    "seaborn", "tensorboardX", "torch.utils.tensorboard", "tqdm", "trackio", "wandb", "warnings",
})  # fmt: skip
_PURE = frozenset({
    "abs", "all", "any", "bool", "dict", "enumerate", "float", "format", "getattr", "hasattr", "id",
    "int", "isinstance", "iter", "len", "list", "max", "min", "next", "range", "repr", "reversed",
    "round", "set", "sorted", "str", "sum", "tuple", "type", "zip",
})  # fmt: skip
_NUMERIC = frozenset({"math", "numpy", "operator", "statistics", "time"})
# Modules whose functions only give back; of those of frameworks some.
_TABLES = frozenset({"json", "pandas", "polars"})
_FRAMEWORKS = frozenset({"jax", "keras", "tensorflow", "torch"})
_GATHERING = frozenset({
    "array", "as_tensor", "asarray", "cat", "concat", "concatenate", "max", "mean", "median", "min",
    "sqrt", "stack", "std", "sum", "tensor", "var",
})  # fmt: skip


class Uses:
    """Tells whether what is read goes on to anything but the eye.

    Args:
        reader: What has read the statements.
        values: What the names stand for.
        is_returned_on: Asks whether what the loop's function returns goes on to anything.
        loop: The loop, where other statements have been read as well.
    """

    def __init__(
        self,
        reader: Reader,
        values: Values,
        is_returned_on: Callable[[], bool] = lambda: False,
        loop: ast.stmt | None = None,
    ) -> None:
        self._reader, self._values, self._is_returned_on = reader, values, is_returned_on
        self._loop = loop
        self._known: dict[tuple[str, ast.AST | None], bool] = {}
        self._asked: list[tuple[str, ast.AST | None]] = []
        # What is taken for granted to be gone by.
        self._certain: str | None = None
        # Functions of which is asked what their early ends decide.
        self._cut: list[Room] = []
        # Calls of which is asked what they run.
        self._run: list[ast.AST] = []
        self._trained: frozenset[str] | None = None

    def decide(self, path: str, setter: ast.AST | None = None) -> bool:
        """Whether anything but what is shown, and it itself, follows from a variable.

        Args:
            path: It.
            setter: Where it was set to what is asked of; None asks of all that it may be.
        """
        asked = path, setter
        if path == self._certain:
            return True
        if asked in self._known:
            return self._known[asked]
        begun = len(self._asked)
        self._known[asked] = False  # while it is asked, for it may lead back to itself
        self._asked.append(asked)
        # What holds it may be handed on, too: the object whose attribute it is.
        read = (e for e in self._reader.events if e.verb is Verb.READ and self._is_of(e, path))
        seen = (e for e in read if setter is None or self._may_see(e, setter))
        found = any(self.leads_on(e.node, e.room, path) for e in seen)
        if found:
            # What was found to lead to nothing meanwhile may lead here.
            for each in self._asked[begun:]:
                del self._known[each]
            self._known[asked] = True
        if found or not begun:
            del self._asked[begun:]
        return found

    def _may_see(self, event: Event, setter: ast.AST) -> bool:
        """Whether what is read may be what was set at a node: code that is run later sees any."""
        is_later = event.room.is_run_later(event.node)
        return is_later or self._reader.may_see(event.node, event.path, setter)

    def decide_but(self, path: str, settled: Container[ast.AST]) -> bool:
        """Whether anything follows from a variable where it is read, but at some nodes.

        What goes into it itself goes on with it to these.
        """
        its = (e for e in self._reader.events if e.verb is Verb.READ and self._is_of(e, path))
        others = (e for e in its if e.node not in settled and not self._is_counted_over(e, path))
        return any(self.leads_on(each.node, each.room, "") for each in others)

    def _is_counted_over(self, event: Event, path: str) -> bool:
        """Whether an event is that a loop is over what counts its turns itself."""
        around = event.room.source.around(event.node)
        loops = (each for each in around if isinstance(each, ast.For))
        return any(
            event.node in ast.walk(each.iter) and self._counts_turns(each.iter, event.room, path)
            for each in loops
        )

    def decide_behind(self, path: str) -> bool:
        """Whether anything but what is shown follows from a variable behind the loop."""
        events = self._reader.events
        its = [n for n, each in enumerate(events) if each.node is self._loop]
        others = [*events[: min(its, default=0)], *events[max(its, default=0) :]]
        read = (e for e in others if e.verb is Verb.READ and self._is_of(e, path))
        return any(self.leads_on(each.node, each.room, path) for each in read)

    def _is_of(self, event: Event, path: str) -> bool:
        """Whether a variable is read by its path, or by another that leads to the same."""
        if is_part(event.path, path):
            return True
        return any(self._values.are_one(each, path) for each in prefixes_of(event.path))

    def leads_on(self, node: ast.AST, room: Room, path: str) -> bool:
        """Whether anything but what is shown follows from what a node stands for.

        Args:
            node: It.
            room: Where it stands.
            path: What it names; what goes into that alone leads on to nothing.
        """
        if node in self._reader.followed:
            return False
        acts = False
        child = part = node
        for parent in room.source.around(node):
            if isinstance(parent, ast.Call):
                answer = self._through(parent, child, room, path)
                if answer is not None:
                    return answer
                acts |= child is parent.func
            elif isinstance(parent, ast.Yield | ast.YieldFrom) or (
                isinstance(parent, ast.Lambda) and room.is_definition(parent)
            ):
                return self._is_answer_used(room, path)
            elif isinstance(parent, ast.NamedExpr):
                if self._goes_into(parent.target, room, path):
                    return True
            elif isinstance(parent, ast.stmt):
                if isinstance(parent, ast.Assign):
                    targets = (_taken_by(each, parent.value, part) for each in parent.targets)
                    return any(self._goes_into(each, room, path) for each in targets)
                return self._ends_in(parent, child, room, path, acts=acts)
            acts |= any(not self._shows(each, room) for each in _calls_chosen(parent, child))
            child, part = parent, child
        return True

    def _through(self, call: ast.Call, child: ast.AST, room: Room, path: str) -> bool | None:
        """Returns whether a read decides something by a call; None where its result is to tell."""
        if self._shows(call, room):
            return False
        if is_backward_of(call, room, path) and self._only_adds(call, room, path):
            return False
        if child is call.func or self._is_pure(call, room):
            return None
        into = self._taken_up_by(call, room)
        return into is None or self._leads_on_from(into, path)

    def _only_adds(self, call: ast.Call, room: Room, path: str) -> bool:
        """Whether what a sum was before is no part of its gradient, nor of what a step adds."""
        others = other_reads(call, room, path, self._reader.events)
        if others is None:
            return False
        uses = Uses(self._reader, self._values, self._is_returned_on)
        uses._certain = path
        return not any(uses.leads_on(each.node, each.room, path) for each in others)

    def _taken_up_by(self, call: ast.Call, room: Room) -> str | None:
        """Returns the path of a list or the like that takes up what the call is given."""
        done = done_by(call, room)
        if (attribute := done.sets()) is not None:
            return attribute
        into = done.path
        if into is None:
            return None
        value = self._values.of(into)
        is_plain = done.verb in CHANGING and (is_row(value) or not self._values.has(into))
        return into if is_plain or counted_by(value, done.verb) else None

    def _ends_in(
        self, statement: ast.stmt, child: ast.AST, room: Room, path: str, *, acts: bool
    ) -> bool:
        match statement:
            case ast.Expr():
                return acts and not self._is_for_eye(statement, room, path)
            case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
                return _is_part_of_row(target, room) or self._goes_into(target, room, path)
            case ast.If(test=test, body=body, orelse=orelse) if child is test:
                return not self._are_for_eye([*body, *orelse], room, path)
            case ast.For(iter=row, body=body, orelse=orelse) if child is row:
                is_counted = self._counts_turns(row, room, path)
                return not (is_counted or self._are_for_eye([*body, *orelse], room, path))
            case ast.With(items=items) | ast.AsyncWith(items=items):
                return any(self._is_entered_by(e, room, path) for e in items if e is child)
            case ast.Return():
                return self._is_answer_used(room, path)
            case ast.Delete():
                return False
        return True

    def _counts_turns(self, row: ast.expr, room: Room, path: str) -> bool:
        """Whether a loop is over what counts its turns itself, and goes by that no more."""
        owner, _, name = path.rpartition(".")
        is_over = any(room.path(e) == owner for e in ast.walk(row) if isinstance(e, ast.Name))
        return is_over and counts_itself(self._values.of(owner), name)

    def _is_entered_by(self, item: ast.withitem, room: Room, path: str) -> bool:
        if item.context_expr not in self._reader.rooms:
            return True
        target = item.optional_vars
        return target is not None and self._goes_into(target, room, path)

    def _is_answer_used(self, room: Room, path: str) -> bool:
        """Whether anything but what is shown follows from what a function gives back."""
        if room.call is None or room.outer is None:
            return self._is_returned_on()
        return self.leads_on(room.call, room.outer, path)

    def _goes_into(self, target: ast.expr, room: Room, path: str) -> bool:
        if isinstance(target, ast.Tuple | ast.List):
            return any(self._goes_into(each, room, path) for each in target.elts)
        into = room.path(container_of(target))
        if into is None:
            return True
        if isinstance(target, ast.Name):
            return self.decide(into, target)
        if _is_part_of_row(_root_of(target), room):
            return True
        is_plain = isinstance(target, ast.Attribute) or is_row(self._values.of(into))
        if package_of(type(self._values.of(root_of(into)))) in _TABLES:
            into, is_plain = root_of(into), True  # ``frame.loc[...]`` is of all of it
        return self._leads_on_from(into, path) if is_plain else not is_part(into, path)

    def _leads_on_from(self, into: str, path: str) -> bool:
        """Whether anything follows from what has come from one variable into another."""
        if is_part(into, path):
            return False
        return self._values.is_held(into) or self.decide(into)

    def _are_for_eye(self, statements: Sequence[ast.stmt], room: Room, path: str) -> bool:
        """Whether statements do nothing but for the eye, in a mode that they leave again."""
        modes = [self._mode_set_at(each, room) for each in statements]
        for number, statement in enumerate(statements):
            is_left = any(modes[number]) and not self._stays(modes, number)
            if not (is_left or self._is_for_eye(statement, room, path)):
                return False
        return True

    def _stays(self, modes: Sequence[tuple[str, str]], number: int) -> bool:
        """Whether a mode that a statement sets is left neither by those around it nor by a turn."""
        verb, model = modes[number]
        if verb == "train":
            return ("eval", model) not in modes[:number]
        if verb == "eval":
            return not (("train", model) in modes[number:] or model in self._trained_each_turn())
        return False

    def _mode_set_at(self, node: ast.AST, room: Room) -> tuple[str, str]:
        """Returns ``("eval", "model")`` for ``model.eval()``, and nothing for anything else."""
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            verb, model = call.func.attr, call.func.value
            if verb == "train" or (verb == "eval" and not call.args):
                return verb, room.path(model) or ast.unparse(model)
        return "", ""

    def _trained_each_turn(self) -> frozenset[str]:
        """Returns the models that each turn over a run's batches puts into training mode."""
        if self._trained is None:
            loops = {
                (each, event.room)
                for event in self._reader.events
                for each in event.room.source.around(event.node)
                if isinstance(each, ast.For) and begins_pass(each.iter, event.room)
            }
            modes = {self._mode_set_at(e, room) for each, room in loops for e in each.body}
            self._trained = frozenset(model for verb, model in modes if verb == "train")
        return self._trained

    def _is_for_eye(self, statement: ast.stmt, room: Room, path: str) -> bool:
        head = getattr(statement, "test", getattr(statement, "iter", statement))
        if not (isinstance(statement, ast.With) or self._runs_for_eye(head, path)):
            return False
        match statement:
            case ast.Expr(value=ast.Call() as call):
                if self._shows(call, room) or call in self._reader.rooms:
                    return True
                into = self._taken_up_by(call, room)
                return into is not None and not self._leads_on_from(into, "")
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Import() | ast.ImportFrom():
                return True
            case ast.Return():
                return not self._cuts_short(statement, room, path)
            case ast.Assign(targets=targets):
                return not any(self._goes_into(each, room, path) for each in targets)
            case ast.AugAssign(target=target):
                return not self._goes_into(target, room, path)
            case ast.If(body=body, orelse=rest) | ast.For(body=body, orelse=rest):
                return self._are_for_eye([*body, *rest], room, path)
            case ast.With(body=body):
                return self._are_for_eye(body, room, path)
        return False

    def _runs_for_eye(self, node: ast.AST, path: str) -> bool:
        """Whether the functions of the user's that are called in a node train nothing."""
        for call in ast.walk(node):
            inner = self._reader.rooms.get(call)
            if inner is None or call in self._run:
                continue
            self._run.append(call)
            is_all = isinstance(node, ast.Expr) and node.value is call
            is_for_eye = self._trains_nothing(inner, path)
            if is_all and is_for_eye:
                is_for_eye = self._are_for_eye(inner.statements(), inner, path)
            self._run.pop()
            if not is_for_eye:
                return False
        return True

    def _trains_nothing(self, room: Room, path: str) -> bool:
        """Whether a function changes nothing that is held or leads on, and no mode for good."""
        events = (e for e in self._reader.events if e.room is room and e.verb is not Verb.READ)
        outer = {e.path for e in events if not room.is_own(e.path)}
        if any(self._values.is_held(each) or self.decide(each) for each in outer - {""}):
            return False
        for node in ast.walk(ast.Module(room.statements(), [])):
            if isinstance(node, ast.Call) and verb_of(node) == "backward":
                return False
            for name in ("body", "orelse", "finalbody"):
                rows = getattr(node, name, ())
                modes = [self._mode_set_at(e, room) for e in (rows if type(rows) is list else ())]
                if any(self._stays(modes, number) for number in range(len(modes))):
                    return False
        return all(self._runs_for_eye(each, path) for each in room.statements())

    def _cuts_short(self, statement: ast.Return, room: Room, path: str) -> bool:
        """Whether anything but what is shown depends on that a function returns at a statement."""
        around = [statement, *room.source.around(statement)]
        if room.call is None:  # the loop's own function
            is_in_loop = any(isinstance(each, ast.For | ast.While) for each in around)
            return is_in_loop or self._is_returned_on()
        if room in self._cut:
            return False
        self._cut.append(room)
        body = room.statements()
        begins = next((n for n, each in enumerate(body) if each in around), 0)
        is_for_eye = self._are_for_eye(body[begins:], room, path)
        self._cut.pop()
        return not is_for_eye or self._is_answer_used(room, path)

    def _shows(self, call: ast.Call, room: Room) -> bool:
        if verb_of(call) in _SHOWING and call not in self._reader.rooms:
            return True
        return any(self._is_of_package(call, room, each) for each in _OF_THE_EYE)

    def _is_pure(self, call: ast.Call, room: Room) -> bool:
        if isinstance(call.func, ast.Name):
            return call.func.id in _PURE
        if verb_of(call) == "format" or self._package_of(call, room) in _NUMERIC:
            return True
        module = self._values.of(root_of(room.path(call.func) or ""))
        if not isinstance(module, ModuleType):
            return False
        name = module.__name__.partition(".")[0]
        return name in _TABLES or (name in _FRAMEWORKS and verb_of(call) in _GATHERING)

    def _is_of_package(self, call: ast.Call, room: Room, package: str) -> bool:
        return f"{self._module_of(call, room)}.".startswith(f"{package}.")

    def _package_of(self, call: ast.Call, room: Room) -> str:
        return self._module_of(call, room).partition(".")[0]

    def _module_of(self, call: ast.Call, room: Room) -> str:
        path = room.path(call.func)
        value = None if path is None else self._values.of(root_of(path))
        is_plain = value is None or isinstance(value, int | float | str)
        name = value.__name__ if isinstance(value, ModuleType) else type(value).__module__
        return "" if is_plain else str(name)


def _taken_by(target: ast.expr, value: ast.expr, part: ast.AST) -> ast.expr:
    """Returns what takes a part of a value: of ``a, b = 1, 2`` one of the two."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and part in value.elts:
        is_alike = len(target.elts) == len(value.elts)
        is_starred = any(isinstance(e, ast.Starred) for e in (*target.elts, *value.elts))
        return target if is_starred or not is_alike else target.elts[value.elts.index(part)]
    return target


def _root_of(target: ast.expr) -> ast.expr:
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target


def _is_part_of_row(target: ast.expr, room: Room) -> bool:
    """Whether a name is what a loop over a row gives, and may be written into: a weight.

    Of one that is known, the name stands for any part.
    """
    if not isinstance(target, ast.Name) or (room.path(target) or "").endswith(ANY):
        return False
    loops = (each for each in room.source.around(target) if isinstance(each, ast.For))
    return any(target.id in set_at(e) for each in loops for e in ast.walk(each.target))


def _calls_chosen(parent: ast.AST, child: ast.AST) -> list[ast.Call]:
    """Returns the calls that are made or not by what a part of an expression is."""
    chosen: list[ast.expr] = []
    if isinstance(parent, ast.IfExp) and child is parent.test:
        chosen = [parent.body, parent.orelse]
    elif isinstance(parent, ast.BoolOp):
        chosen = parent.values[parent.values.index(child) + 1 :]  # type: ignore[arg-type]
    return [e for each in chosen for e in ast.walk(each) if isinstance(e, ast.Call)]
