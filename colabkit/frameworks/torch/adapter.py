"""PyTorch behind the loop's one protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from colabkit.checkpoint import NOTED, Cutter, Section, TensorBackend, TensorSpec
from colabkit.frameworks.base import Feed, Owned
from colabkit.frameworks.batch_watches import BatchWatch, Watch
from colabkit.frameworks.code_marks import code_of
from colabkit.frameworks.estimators import EstimatorState
from colabkit.frameworks.processes import process_count, speaks_for_all
from colabkit.frameworks.second_names import SecondNames
from colabkit.frameworks.small_copies import few_weights, small_copies
from colabkit.frameworks.torch import pieces
from colabkit.frameworks.torch.backend import TorchBackend
from colabkit.frameworks.torch.carried import carried
from colabkit.frameworks.torch.compare import note, record
from colabkit.frameworks.torch.device import environment_on
from colabkit.frameworks.torch.evaluating import evaluation_mark, weights_mark
from colabkit.frameworks.torch.modules_beside import ModulesBeside
from colabkit.frameworks.torch.optimizer_hooks import OptimizerHooks, put_back
from colabkit.frameworks.torch.own_states import BESIDE_PIECES, digests_of, own_states
from colabkit.frameworks.torch.passed_settings import PassedSettings
from colabkit.frameworks.torch.prepared import gathers_gradients
from colabkit.frameworks.torch.randomness import seed_everything
from colabkit.frameworks.torch.replayed import copies_for_later, tolerating_known_groups
from colabkit.frameworks.torch.shared_memory import Tensors
from colabkit.frameworks.torch.small_state import SmallState, put_small
from colabkit.frameworks.torch.sources import feed_of
from colabkit.frameworks.torch.state import TorchState
from colabkit.frameworks.torch.trained import holds, is_made_of
from colabkit.frameworks.torch.trial import try_restoring
from colabkit.frameworks.torch.world import World, join
from colabkit.frameworks.torch.wrapped import (
    device_of,
    hooks_of_sums,
    reasons_against,
    require_public_sharding,
    require_wrapped,
    unwrapped,
    weights_digest,
    with_names_of_wrappers,
)
from colabkit.storage import Bytes


class TorchAdapter:
    """What the loop needs of a framework, for PyTorch."""

    def __init__(self, objects: Mapping[str, Any], *, save_base: bool = False) -> None:
        self._given = objects
        for name, value in objects.items():
            if isinstance(value, torch.nn.Module):
                require_public_sharding(name, value)
        hooks = hooks_of_sums(objects)
        objects = {name: unwrapped(value) for name, value in objects.items()}
        self.device = device_of(objects)
        self.backend: TensorBackend = TorchBackend(self.device)
        self._state = TorchState(objects, save_base=save_base, hooks=hooks)
        self.filled = self._state.filled
        self._passed = PassedSettings(self._state.optimizers, self._state.others)
        self._beside = ModulesBeside([*self._given.values(), *objects.values()])
        self._hooks: OptimizerHooks | None = None
        # What is known of the gradients that steps leave, from one opening to the next.
        self._leftovers: Mapping[str, Any] = {}
        # A loop that was once caught writing past the optimizers does so in every session.
        self._writes_unseen = False
        # A restore has shown what a trial would, and a trial is made but once.
        self._was_restored = self._is_as_restored = False
        self._returning: tuple[str, ...] = ()
        # Sections that were taken where the next save takes them.
        self._at_hand: list[Section] | None = None
        # What the newest sections hold that was put together of pieces.
        self._wholes: list[torch.Tensor] = []
        self.leaves_pieces = False
        """Whether sections hold this process's pieces as they are, where that can be."""
        # Until the first step, what was restored, and from which settings changes were taken.
        self._again: Mapping[str, Any] | None = None
        self._taken_from: Mapping[str, Any] | None = None
        self._settings: Mapping[str, Any] | None = None
        self._groups = ExitStack()

    def join_processes(self) -> World | None:
        """Returns the processes that train the objects together.

        Raises:
            ArgumentError: A module is not wrapped, so that each would train for itself.
            ProcessLostError: They do not come together.
        """
        require_wrapped(self._given)
        return join(self.device)

    def with_names_of_wrappers(self) -> tuple[str, ...]:
        """Returns which objects only as many processes find again, a phrase each."""
        return with_names_of_wrappers(self._given)

    def reshard(self) -> None:
        """Gives back whole weights that a forward has left in the place of pieces.

        The next one gathers them anew, which all processes must do.
        """
        for module in self._state.modules.values():
            pieces.reshard(module)

    def weights_digest(self) -> str:
        """Returns a hash of all weights, which must be the same in each process."""
        return weights_digest(self._given)

    def sections_here(self, *, are_saved: bool = False) -> list[Section]:
        """Returns what a checkpoint holds of the objects here, without their optimizers' states.

        Args:
            are_saved: Whether the sections asked for next are those of a save at this very place,
                for which nothing is then looked at twice: the optimizers' states are among them.
        """
        sections = self._state.sections(of_optimizers=are_saved)
        self._at_hand = sections if are_saved else None
        return sections

    def own_states(
        self,
        sections: Sequence[Section],
        *,
        shares_buffers: Collection[str],
        shares_gradients: bool,
    ) -> dict[tuple[str | int, ...], Any]:
        """Returns what of ``sections_here`` each process may have for itself, by where it lies."""
        pending = {} if shares_gradients or self._hooks is None else self._hooks.pending()
        return own_states(self._state, sections, shares_buffers, pending)

    def digests_of(self, states: Mapping[Any, Any]) -> dict[Any, str]:
        """Returns hashes of what ``own_states`` gave."""
        return digests_of(states)

    def copies_of(self, states: Mapping[Any, Any]) -> dict[Any, Any]:
        """Returns copies of those that are small and can be put back, in host memory."""
        states = {path: each for path, each in states.items() if path[-1] != BESIDE_PIECES}
        none = {name: None for name, each in states.items() if each is None}
        return none | small_copies(states, torch.is_tensor, in_host=True)

    def gathers(self) -> bool:
        """Whether gradients wait for a step, of which each process may have its own."""
        return self.holds_unsummed() or (self._hooks is not None and self._hooks.has_gathered())

    def holds_unsummed(self) -> bool:
        """Whether gradients wait where no checkpoint can hold them."""
        return self._state.is_sharded and any(
            map(pieces.holds_unsummed, self._state.modules.values())
        )

    def open(self, before_optimizer_step: Callable[[], None]) -> None:
        """Hooks the optimizers, so that a snapshot under way is finished before they step."""
        self._hooks = OptimizerHooks(
            self._state.optimizers, before_optimizer_step, self._state.trained_by_hand
        )
        self._hooks.restore_leftovers(self._leftovers)
        self._state.begin()
        if not self._was_restored:
            self._was_restored = True
            self._returning = try_restoring(self._state, self.backend)

    def close(self) -> None:
        """Takes the hooks away."""
        if self._hooks is not None:
            self._leftovers = self._hooks.leftovers()
            self._hooks.close()
            self._hooks = None

    def begin_step(self) -> None:
        """Marks a step boundary."""
        self._at_hand = None
        if self._is_as_restored:
            self._is_as_restored = False
            self._forget_restored()
        if self._hooks is not None:
            self._hooks.begin_step()

    def has_stepped(self) -> bool:
        """Whether an optimizer has stepped since the boundary; True where there is none."""
        return self._hooks is None or self._hooks.has_stepped()

    def is_mid_group(self) -> bool:
        """Whether gradients are gathered by a count that a checkpoint cannot hold."""
        if self._hooks is None or not gathers_gradients() or self.has_stepped():
            return False
        # The count is one for the process, and an earlier loop may have left it.
        return self._hooks.has_gathered()

    def evaluation_mark(self, *, at_end: bool = False) -> object | None:
        """Returns what is equal while a loop that only evaluates goes on, None of any other."""
        is_unknown = at_end or self._writes_unseen or self.gathers()
        return None if is_unknown else evaluation_mark(self._state)

    def weights_mark(self) -> object | None:
        """Returns what is equal while all weights are the same; None where nobody trains."""
        return weights_mark(self._state)

    def sections(self) -> list[Section]:
        """Returns all that a checkpoint holds of the user's objects."""
        at_hand, self._at_hand = self._at_hand, None
        sections = self._state.sections() if at_hand is None else at_hand
        pending = self._hooks.pending() if self._hooks is not None else {}
        leftovers = self._hooks.leftovers() if self._hooks is not None else self._leftovers
        watch = {"writes_unseen": self._writes_unseen, "leftovers": dict(leftovers)}
        found = [
            *sections,
            Section(name="gradients", state=pending, weights=False),
            Section(name="watch", state=watch, weights=False),
        ]
        return self._put_together(found) if self._state.is_sharded else found

    @property
    def is_sharded(self) -> bool:
        """Whether all processes must take the sections together: each holds pieces of them."""
        return self._state.is_sharded

    def cutter(self) -> Cutter:
        """Returns what this process needs of tensors that a checkpoint holds in pieces."""
        return pieces.cutter(self._state.modules, self._state.optimizers)

    def _put_together(self, sections: list[Section]) -> list[Section]:
        """Returns sections with whole tensors, in the process that writes them, or with pieces."""
        pieces.require_form_of_weights(self._state.optimizers)
        self._wholes = []

        def put(tensor: torch.Tensor) -> torch.Tensor | None:
            if not speaks_for_all():
                return None
            self._wholes.append(tensor.cpu())
            return self._wholes[-1]

        take = pieces.left if self.leaves_pieces else pieces.whole
        taken = ((each, take(each.state, put)) for each in sections)
        return [dataclasses.replace(each, state=state, form=None) for each, state in taken]

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts a checkpoint back into the user's objects."""
        self._again, self._taken_from = copies_for_later(sections), None
        self._restore(sections)
        self._settings = self._passed.now()
        self._groups.close()
        self._groups = tolerating_known_groups(self._state.optimizers.values())

    def _restore(self, sections: Mapping[str, Any]) -> None:
        self._state.restore(sections)
        self._was_restored = self._is_as_restored = True
        others = self._state.trained_by_hand()
        put_back(self._state.optimizers, others, sections["gradients"])
        watch = sections.get("watch", {})
        self._writes_unseen = watch.get("writes_unseen", False)
        self._leftovers = watch.get("leftovers", {})
        if self._hooks is not None:
            self._hooks.restore_leftovers(self._leftovers)

    # A validation under torch.inference_mode() asks within it, and what is made there cannot train.
    @torch.inference_mode(mode=False)
    def restore_again(self, *, all_of_it: bool = False) -> None:
        """Puts modes, switches and numbers of modules back, which a loop sets as it begins.

        Where a step has been taken since, they are what they are.

        Args:
            all_of_it: Whether to put everything back: what the head of an epoch does to the
                objects, and what stands between two loops, they have in them already.
        """
        if not self._is_as_restored:
            return
        if all_of_it and self._again is not None:
            sections, taken_from = self._again, self._taken_from
            self._forget_restored()
            self._restore(sections)
            if taken_from is not None:
                self._passed.take(taken_from, self._state.schedules)
            if self._hooks is not None:
                self._state.begin()
        self._state.restore_again()

    def small_state(self, *, with_weights: bool = False) -> dict[str, Any]:
        """Returns copies of what a loop may read between two passes and change in any."""
        small = SmallState.of(self._state, self._state.small_sections()).state_dict()
        if with_weights and not self._state.is_sharded:
            weights = {each.name: each.state for each in self._state.sections() if each.weights}
            small["weights"] = few_weights(weights, self.backend.is_tensor)
        return small

    @torch.inference_mode(mode=False)
    def put_small(self, state: Mapping[str, Any]) -> None:
        """Puts what ``small_state`` gave into the objects, until all is put back."""
        if self._is_as_restored and self._again is not None:
            put_small(self._state, state)
            if weights := state.get("weights"):
                self._state.restore_weights(weights)

    def begin_epoch(self) -> tuple[str, ...]:
        """Returns which settings were changed behind a restore, and will come back."""
        settings, self._settings = self._settings, None
        if settings is None or not self._is_as_restored:
            return ()
        return self._passed.undone(settings)

    def _forget_restored(self) -> None:
        self._again = self._taken_from = None
        self._groups.close()

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        """Takes what fits; returns how many tensors did, of how many."""
        return self._state.restore_weights(sections)

    def guard(self) -> Callable[[TensorSpec], bool]:
        """Returns which tensors only an optimizer's step changes: none, where others were seen."""
        addresses = frozenset() if self._writes_unseen else self._state.guarded.addresses()
        addresses |= {each.data_ptr() for each in self._wholes}
        return lambda spec: spec.address in addresses

    def unchanged(self) -> Callable[[Mapping[int, Bytes]], bool]:
        """Returns a check that nothing changed those tensors since now, nor their copies."""
        wholes, self._wholes = self._wholes, []
        if self._writes_unseen:
            return lambda _: True
        watch = self._state.guarded.watch(wholes, in_pieces=self.leaves_pieces)

        def is_unchanged(copies: Mapping[int, Bytes]) -> bool:
            is_whole = watch.is_unchanged(copies)
            self._writes_unseen = self._writes_unseen or not is_whole
            return is_whole

        return is_unchanged

    def feed(self, data: Any, *, batch_size: int = 32, shuffle: bool = True) -> Feed:
        """Returns the source of batches for whatever the user passed."""
        return feed_of(data, batch_size=batch_size, shuffle=shuffle, device=self.device)

    def watch(self, *, first: int = 0) -> Watch:  # noqa: ARG002  # it is asked for the newest
        """Returns what takes down the batches of one pass."""
        return BatchWatch(note, record)

    def seed(self, seed: int) -> None:
        """Puts every global random stream where a seed names."""
        seed_everything(seed)

    def to_floats(self, values: Sequence[Any]) -> list[float]:
        """Reads scalars; those on a device in one transfer."""
        # Apple's GPU knows no double, and its values are read one by one.
        is_far = self.device.type not in {"cpu", "mps"}
        if is_far and all(isinstance(v, torch.Tensor) for v in values):
            stacked = torch.stack([v.detach().reshape(()).double() for v in values])
            floats: list[float] = stacked.tolist()
            return floats
        return [v.item() if isinstance(v, torch.Tensor) else float(v) for v in values]

    def fingerprint(self) -> dict[str, Any]:
        """Returns what must be the same for a checkpoint to fit."""
        return self._state.fingerprint()

    def parts(self) -> dict[str, str]:
        """Returns what is trained, by whom, in phrases."""
        return self._state.parts()

    def owned(self) -> Owned:
        """Returns the objects that tell one call from another by which they are."""
        modules = self._state.modules.values()
        with_weights = tuple(m for m in modules if next(m.parameters(), None) is not None)
        return Owned(with_weights, tuple(self._state.optimizers.values()))

    def unwritten_bytes(self) -> int:
        """Returns how much of the weights is only noted by hash."""
        return self._state.unwritten_bytes()

    def changed_base(self, sections: Mapping[str, Any]) -> dict[str, tuple[object, object]]:
        """Returns, as name: (then, now), the weights that a checkpoint noted and are others."""
        return self._state.changed_base(sections.get(NOTED, {}))

    def holds_weights(self, sections: Mapping[str, Any]) -> bool:
        """Whether the modules hold the weights of a checkpoint, bit for bit."""
        return holds(self._state.modules, sections) and not self.changed_base(sections)

    def passed(self) -> dict[str, Any]:
        """Returns the settings of optimizers and schedulers as the user made them."""
        return self._passed.values

    def left(self) -> dict[str, Any]:
        """Returns these settings as they are now."""
        return PassedSettings(self._state.optimizers, self._state.others).values

    def take_changes(self, then: Mapping[str, Any]) -> tuple[str, ...]:
        """Takes what is passed otherwise than ``then`` into the restored objects; says it."""
        self._taken_from = then
        taken = self._passed.take(then, self._state.schedules)
        self._settings = self._passed.now()
        return (*taken, *self._state.changed)

    def begin_schedule_at(self, name: str, steps: int) -> None:
        """Moves a schedule, as it was made, to the place after so many steps of its own."""
        self._passed.begin_at(name, steps)

    def told(self) -> dict[str, Any]:
        """Returns marks of the code of the user's own classes within each module."""
        modules = self._state.modules.items()
        return {f"the {name}'s code": code_of(module.modules()) for name, module in modules}

    def environment(self) -> dict[str, Any]:
        """Returns what must be the same for the same bits."""
        return environment_on(self.device, in_pieces=self._state.is_sharded)

    def reasons(self) -> tuple[str, ...]:
        """Returns what of the framework's settings stands against exactness."""
        found = list(self._state.reasons())
        if self.device.type not in {"cpu", "cuda"}:
            found.append(f"nobody has seen whether {self.device.type} repeats its sums bit for bit")
        if self.device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
            found.append(
                "GPU kernels may add in any order"
                " (torch.use_deterministic_algorithms(True) makes them exact)"
            )
        return (*found, *reasons_against(self._given, process_count()))

    def carried(
        self, variables: Mapping[str, Any], decisive: Mapping[str, Any], taken: Collection[str]
    ) -> tuple[str, ...]:
        """Returns which variables hold tensors or arrays from step to step: a hidden state, say."""
        return carried(self._state, variables, decisive, taken)

    def watch_beside(self, reached: Mapping[str, Any], kept: Sequence[Any]) -> None:
        """Takes down modules, optimizers and schedules that the run has not."""
        self._beside.watch(reached, kept)

    def trained_apart(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of those that are not made of the run's own weights alone."""
        return tuple(n for n, e in values.items() if not is_made_of(e, self._state.modules))

    def second_names(self) -> SecondNames:
        """Returns what keeps second names for the run's objects, and for what shares memory."""
        return SecondNames(self._state.shareable, Tensors())

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to change and no checkpoint can hold."""
        others = [o for o in self._state.others.values() if isinstance(o, EstimatorState)]
        lost = (reason for each in others for reason in each.unsaved())
        return (*self._returning, *self._state.unsaved(), *lost, *self._beside.reasons())
