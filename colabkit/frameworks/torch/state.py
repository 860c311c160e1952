"""Everything of a PyTorch run that a checkpoint holds, captured and put back."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.checkpoint import NOTED, Section
from colabkit.frameworks.attributes import Attributes
from colabkit.frameworks.generators import find_generators, is_unseedable
from colabkit.frameworks.second_names import SecondNames
from colabkit.frameworks.torch import orphans
from colabkit.frameworks.torch.code_memory import memory_of_code
from colabkit.frameworks.torch.frozen_base import FrozenBase
from colabkit.frameworks.torch.guarded import Guarded
from colabkit.frameworks.torch.held_objects import (
    HeldObjects,
    inner_optimizers,
    is_users_scheduler,
    of_optimizer,
    of_scheduler,
)
from colabkit.frameworks.torch.layer_settings import LayerSettings
from colabkit.frameworks.torch.metrics import has_metrics, keep_sums
from colabkit.frameworks.torch.module_tree import Trees
from colabkit.frameworks.torch.passed_settings import Schedule, exchanged_in, kinds_of
from colabkit.frameworks.torch.pieces import cut_like, has_pieces
from colabkit.frameworks.torch.prepared import plain_optimizer, scaler_of
from colabkit.frameworks.torch.python_attributes import PythonAttributes
from colabkit.frameworks.torch.randomness import (
    generators_in,
    own_generator_state,
    restore_own_generator,
)
from colabkit.frameworks.torch.replaced import groups_of_strangers, states_of
from colabkit.frameworks.torch.restoring import (
    load_other,
    restore_optimizers,
    restore_tensors,
    state_of,
)
from colabkit.frameworks.torch.savable import check_can_be_saved
from colabkit.frameworks.torch.shared_memory import Tensors, shareable
from colabkit.frameworks.torch.structure import (
    gone_since,
    left_out,
    load_what_fits,
    made_in_training,
    parameters_of,
    shapes_of,
    trained_module,
)
from colabkit.frameworks.torch.tensor_values import TensorValues
from colabkit.frameworks.torch.users_hooks import UsersHooks

_NAMED_MAX = 3


class TorchState:
    """The objects of a run, by name: modules, optimizers, and all with a ``state_dict``.

    Args:
        objects: By name.
        save_base: Whether frozen weights that come from elsewhere are written like others.
        hooks: Functions upon the objects beside those that are found in them.
    """

    def __init__(
        self,
        objects: Mapping[str, Any],
        *,
        save_base: bool = False,
        hooks: Collection[Any] = (),
    ) -> None:
        for name, value in objects.items():
            check_can_be_saved(name, value)
            keep_sums(value)
        self.modules = {
            n: trained_module(v) for n, v in objects.items() if isinstance(v, nn.Module)
        }
        self._trees = Trees(self.modules)
        self._values = {n: PythonAttributes(m, self._trees[n]) for n, m in self.modules.items()}
        self._with_metrics = [n for n, module in self.modules.items() if has_metrics(module)]
        self.is_sharded = any(map(has_pieces, self.modules.values()))
        # Nobody hashes a piece of a weight: in pieces all is written.
        is_saved = save_base or self.is_sharded
        self._bases = {n: FrozenBase(m, is_saved=is_saved) for n, m in self.modules.items()}
        self._keys_at_start: dict[str, frozenset[str]] = {}
        self._shapes_at_start = {n: shapes_of(tree.parameters) for n, tree in self._trees.items()}
        self._gone: dict[str, list[str]] = {}
        # By module what is the same as long as its tree is plain and of one version.
        self._known: dict[str, tuple[int | None, dict[str, Any]]] = {}
        self._known_forms: dict[str, tuple[tuple[int, int] | None, dict[str, Any]]] = {}
        self._forms: dict[str, Any] | None = None
        self._parts: dict[str, str] | None = None
        given = {n: v for n, v in objects.items() if isinstance(v, torch.optim.Optimizer)}
        self.optimizers = {name: plain_optimizer(optimizer) for name, optimizer in given.items()}
        self._given = dict(self.optimizers)
        self.optimizers |= inner_optimizers(self.optimizers)
        self._groups: Mapping[str, Sequence[Sequence[str]]] = {}
        self._groups_at_start = {n: len(o.param_groups) for n, o in self.optimizers.items()}
        self._beside = {name: of_optimizer(each) for name, each in self.optimizers.items()}
        self._beside |= {n: of_scheduler(o) for n, o in objects.items() if is_users_scheduler(o)}
        self.others = {
            n: v
            for n, v in objects.items()
            if n not in self.modules and n not in given and v is not None
        }
        self.others |= memory_of_code(
            [*self.modules.values(), *self.optimizers.values(), *self.others.values()], hooks
        )
        scalers = {f"{name} scaler": scaler_of(optimizer) for name, optimizer in given.items()}
        self.others |= {name: scaler for name, scaler in scalers.items() if scaler is not None}
        known = (each for module in self.modules.values() for each in module.modules())
        everything = [*objects.values(), *known, *self.optimizers.values(), *self.others.values()]
        self._held = HeldObjects(everything)
        self._hooks = UsersHooks(self._trees, self.optimizers)
        self.guarded = Guarded(self.optimizers, self._trees, in_pieces=self.is_sharded)
        self.large: set[str] = set()
        self.exchanged: frozenset[str] = frozenset()  # schedules of another kind than was restored
        self._layers = {n: LayerSettings(module) for n, module in self.modules.items()}
        self.changed: tuple[str, ...] = ()
        """What of the modules is made otherwise than in the session before, a phrase each."""
        self.schedules: dict[str, Schedule] | None = None
        """The schedules of the checkpoint that was restored; None where it does not say."""
        trained = (p for o in self.optimizers.values() for p in parameters_of(o))
        held = (p for module in self.modules.values() for p in module.parameters())
        weights = {id(p): p for p in (*held, *trained)}
        of_run = {id(each): each for each in self.shareable().values()}
        for memory in self._memories().values():
            memory.values.of_run = of_run
            if isinstance(memory.values, TensorValues):
                memory.values.weights = weights
        self._names = SecondNames(self.shareable, Tensors())

    def sections(self, *, of_optimizers: bool = True) -> list[Section]:
        """Returns the weights of each module and everything else, by reference.

        Args:
            of_optimizers: Whether also what their ``state_dict`` gives.
        """
        weights, rest, trained = [], {}, self.guarded.weights()
        forms: dict[str, Any] = {}
        self._trees.look()
        for name in self.modules:
            tree = self._trees[name]
            state = tree.state_dict()
            tensors = state
            if not tree.is_plain:
                tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
            noted = self._bases[name].noted(state)
            if tensors:
                written = {k: v for k, v in tensors.items() if k not in noted} if noted else tensors
                form = None if noted else tree.form
                weights.append(
                    Section(
                        name=name,
                        state=written,
                        weights=True,
                        noted=noted,
                        form=form,
                        trained=trained,
                    )
                )
            forms |= self._forms_seen(name, tensors)
            rest[name] = {
                "generators": [own_generator_state(g) for g in generators_in(*tree.searched())],
                "python": self._values[name].state_dict(),
                "noted": list(noted),
                "layers": self._layers[name].state_dict(),
                **self._beside_weights(name, state, tensors),
            }
        state = {
            "modules": rest,
            "beside": {n: changed for n, a in self._beside.items() if (changed := a.state_dict())},
            "lies_as_it_did": True,
            "others": {n: state_of(o) for n, o in self.others.items()},
            "schedules": kinds_of(self.others),
        }
        self._hooks.look()
        if of_optimizers:
            state |= states_of(self.optimizers, self._trees.names)
            state["orphans"] = orphans.values_of(self._trees, self.optimizers)
            state["groups"] = self._groups = self._trees.groups(self.optimizers)
            self._forms, self._parts = forms, self._trees.parts(self.optimizers)
        # The memories have looked at their objects by now.
        state["held"] = self._held.state_dict(self._memories(all_of_them=False))
        state["names"] = self._names_now()
        return [*weights, Section("objects", state, weights=False, moments="optimizers.")]

    def _beside_weights(
        self, name: str, state: Mapping[str, Any], tensors: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns what a checkpoint holds of a module's tensors beside those that it saves."""
        tree = self._trees[name]
        version, known = self._known.get(name, (None, {}))
        if tree.is_plain and version == tree.version:
            return known
        at_start = self._keys_at_start.setdefault(name, frozenset(tensors))
        shapes, before = shapes_of(tree.parameters), self._shapes_at_start[name]
        others = [key for key, shape in shapes.items() if before.get(key, shape) != shape]
        self._gone[name] = [*gone_since(state, at_start), *others]
        found = {
            "extra": {k: v for k, v in state.items() if k not in tensors},
            "buffers": {key: b for key, b in tree.buffers.items() if key not in state},
            "left_out": left_out(tree.parameters, state),
            "tied": tree.tied,
            "made": made_in_training(self.modules[name], tensors, at_start),
        }
        self._known[name] = (tree.version, found)
        return found

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts back what ``sections`` gave, each tensor to where the object lives now."""
        self._forms, self.changed, objects = None, (), sections["objects"]
        self.part_names(objects.get("names", ""))
        for name, module in self.modules.items():
            kept = objects["modules"].get(name)
            if kept is None:  # a module without tensors is no part of the fingerprint
                continue
            restore_tensors(name, module, sections.get(name, {}), kept)
            self._values[name].load_state_dict(kept["python"])
            if "layers" in kept:
                self.changed += self._layers[name].take(kept["layers"], name)
            own = generators_in(list(module.modules()))
            for generator, state in zip(own, kept["generators"], strict=False):
                restore_own_generator(generator, state)
        restore_optimizers(self.optimizers, self.modules, objects)
        self._trees.look()
        orphans.restore(self._trees, self.optimizers, objects.get("orphans", {}))
        for name, changed in objects.get("beside", {}).items():
            if name in self._beside:
                self._beside[name].load_state_dict(changed)
        kinds, others = objects.get("schedules"), objects["others"]
        self.schedules = kinds and {
            n: Schedule.of_state(kind, others[n]) for n, kind in kinds.items()
        }
        self.exchanged = exchanged_in(self.others, kinds or {})
        for name, value in self.others.items():
            # The state of one schedule says nothing to another, but the place.
            if name in others and name not in self.exchanged:
                kept = others[name]
                load_other(value, cut_like(state_of(value), kept) if self.is_sharded else kept)
        self._held.load_state_dict(objects.get("held", {}))
        self._names.join(self._memories())
        self._trees.look()

    def buffers_of(self, name: str) -> Iterable[str]:
        """Returns the names of a module's buffers, as of the last look."""
        return self._trees[name].buffers

    def small_sections(self) -> list[Section]:
        """Returns what is small of the sections, and looks at no module that has no metrics."""
        weights, modules = [], {}
        for name in self._with_metrics:
            self._trees[name].look()
            state = self._trees[name].state_dict()
            tensors = {k: v for k, v in state.items() if torch.is_tensor(v)}
            weights.append(Section(name, tensors, weights=True))
            rest = {k: v for k, v in state.items() if k not in tensors}
            modules[name] = {"extra": rest, "python": self._values[name].state_dict()}
        others = {n: state_of(o) for n, o in self.others.items() if n not in self.large}
        memories = self._memories(all_of_them=False)
        state = {"modules": modules, "others": others, "held": self._held.states(memories)}
        state["names"] = self._names_now()
        return [*weights, Section("objects", state, weights=False)]

    def _names_now(self) -> str:
        memories = {} if self.is_sharded else self._memories(all_of_them=False)
        return self._names.state_dict(memories)

    def part_names(self, names: str) -> None:
        """Parts what is not to share anything, before attributes are put back."""
        self._names.part(names, self._memories())

    def filled(self) -> list[object]:
        """Returns the objects whose attributes a checkpoint has changed, and what was put there."""
        return [each for memory in self._memories().values() for each in memory.filled]

    def put_attributes(self, name: str, changed: Mapping[str, Any]) -> None:
        """Puts plain attributes into a module and those within it, by path and name."""
        self._values[name].put(changed)

    def put_held(self, states: Mapping[str, Any]) -> None:
        """Puts states into what the objects keep as attributes, by path, and joins what shared."""
        if states:
            self._held.load_state_dict(states)
            self._held.load_waiting(self._memories())
        self._names.join(self._memories())

    def trained_by_hand(self) -> dict[str, torch.Tensor]:
        """Returns, by name, the parameters of modules that no optimizer of the run trains.

        Those that modules had at the last look, which taking the sections is.
        """
        return self._trees.without(self.optimizers)

    def begin(self) -> None:
        """Loads what could not be loaded before callbacks had begun."""
        self._held.load_waiting(self._memories())
        self._names.join(self._memories())
        self._names.begin(self._memories(all_of_them=False))
        self._trees.look()
        self._hooks.begin()
        for values in self._values.values():
            values.begin()

    def restore_again(self) -> None:
        """Puts back once more what training had changed of modules' switches and numbers."""
        for values in self._values.values():
            values.restore_again()

    def parts(self) -> dict[str, str]:
        """Returns what is trained, by whom, in phrases."""
        # A save asks right after it has taken the state, when they are known.
        parts, self._parts = self._parts, None
        if parts is None:
            self._trees.look()
            parts = self._trees.parts(self.optimizers)
        return parts

    def shareable(self) -> dict[str, Any]:
        """Returns by name what others may keep a second name for."""
        held = self._held.tensors(self._memories(all_of_them=False))
        return shareable(self._trees, {**self.others, **self.optimizers, **held})

    def _memories(self, *, all_of_them: bool = True) -> dict[str, Attributes]:
        """Returns what is known of attributes, by the names of the objects.

        Args:
            all_of_them: Whether also of modules in which nothing was found to hold or to say.
        """
        found = {
            f"{name}.{path}".rstrip("."): memory
            for name, values in self._values.items()
            for path, memory in (values.every() if all_of_them else values.with_more()).items()
        }
        found |= self._beside
        others = ((n, o) for n, o in self.others.items() if isinstance(o, Attributes))
        return found | {name.removeprefix("attributes of "): memory for name, memory in others}

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to change and no checkpoint can hold."""
        memories = self._memories(all_of_them=False).items()
        lost = {f"{n}.{path}": kind for n, each in memories for path, kind in each.lost.items()}
        lost |= {path.replace(":", "."): kind for path, kind in self._held.lost.items()}
        changed = [
            f"{path} ({kind}) changes in training and cannot be saved"
            for path, kind in lost.items()
        ]
        changed += self._names.said()
        moved = [f"{n}.{each}" for n, values in self._values.items() for each in values.moved]
        moved += [f"{n}.{each}" for n, keys in self._gone.items() for each in keys]
        moved += groups_of_strangers(self._groups, self._groups_at_start)
        moved += [f"a hook of {place}" for place in self._hooks.moved]
        if moved:
            what = ", ".join(moved[:_NAMED_MAX])
            changed.append(
                f"{what} was put in or taken out in mid-run: it must be so before the run is made"
                " where it goes on"
            )
        return tuple(changed)

    def unwritten_bytes(self) -> int:
        """Returns how much of the weights is only noted by hash."""
        return sum(base.nbytes for base in self._bases.values())

    def changed_base(
        self, noted: Mapping[str, Mapping[str, str]]
    ) -> dict[str, tuple[object, object]]:
        """Returns, as name: (then, now), the frozen weights that are not those noted."""
        return {
            f"{name}.{key}": pair
            for name, base in self._bases.items()
            for key, pair in base.changed(noted.get(name, {})).items()
        }

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        """Copies the tensors whose name and shape fit; returns how many did, of how many."""
        fitted = total = 0
        for name, module in self.modules.items():
            own = module.state_dict()
            kept = sections.get(name, {})
            fits = {k: v for k, v in kept.items() if k in own and own[k].shape == v.shape}
            load_what_fits(module, cut_like(own, fits))
            noted = sections.get(NOTED, {}).get(name, {})
            there = len(noted.keys() & own.keys()) - len(self._bases[name].changed(noted))
            fitted, total = fitted + len(fits) + there, total + len(own)
        return fitted, total

    def reasons(self) -> tuple[str, ...]:
        """Returns which objects draw random numbers anew, or train what is not saved."""
        self._trees.look()
        held = {
            name: find_generators(value, (torch.Generator,)) for name, value in self.others.items()
        }
        held |= {name: generators_in(list(m.modules())) for name, m in self.modules.items()}
        draws = [
            f"{name} draws from {type(generator).__name__}, which cannot be replayed"
            for name, generators in held.items()
            for generator in generators
            if is_unseedable(generator)
        ]
        unsaved = orphans.said_of(self._trees, self.optimizers, self.others.values())
        return (*draws, *unsaved)

    def _tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        states = ((name, module.state_dict()) for name, module in self.modules.items())
        return {
            name: {key: each for key, each in state.items() if isinstance(each, torch.Tensor)}
            for name, state in states
        }

    def _forms_of(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
        for name, state in tensors.items():
            # Asked for the first time before anything is restored.
            self._keys_at_start.setdefault(name, frozenset(state))
        return {
            f"{name}.{key}": _form_of(tensor.dtype, tensor.shape)
            for name, state in tensors.items()
            for key, tensor in state.items()
        }

    def _forms_seen(self, name: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Returns the forms of a module's tensors as of the last look."""
        seen, (then, forms) = self._trees[name].form, self._known_forms.get(name, (None, {}))
        if seen is None or then != seen:
            forms = self._forms_of({name: tensors})
            self._known_forms[name] = (seen, forms)
        return forms

    def fingerprint(self) -> dict[str, Any]:
        """Returns what must be the same for a checkpoint to fit."""
        # A save asks right after it has taken the state, whose tensors are known then.
        forms, self._forms = self._forms, None
        parts = dict(forms or self._forms_of(self._tensors()))
        for name, optimizer in self._given.items():
            parts[f"{name} class"] = type(optimizer).__name__
            parts[f"{name} groups"] = [len(g["params"]) for g in optimizer.param_groups]
        return parts


@functools.cache
def _form_of(dtype: torch.dtype, shape: torch.Size) -> str:
    return f"{dtype} {list(shape)}"
