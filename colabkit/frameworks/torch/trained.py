"""What of a run's modules is trained, by whom, and whether they hold a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.checkpoint import NOTED
from colabkit.frameworks.begun_anew import is_row_of
from colabkit.frameworks.differences import digest_of
from colabkit.frameworks.torch.pieces import whole
from colabkit.frameworks.torch.structure import is_same


def parts_of(
    trainable: Mapping[str, Mapping[str, bool]],
    kinds: Mapping[str, str],
    groups_of: Mapping[str, Sequence[Sequence[str]]],
) -> dict[str, str]:
    """Returns a phrase for each module and optimizer, which other parts do not share.

    Args:
        trainable: By module, whether each parameter is trained.
        kinds: By optimizer, the name of its class.
        groups_of: By optimizer, the names of the parameters in its groups.
    """
    parts = {}
    for name, named in trainable.items():
        trained = sorted(key for key, is_trained in named.items() if is_trained)
        if named:
            parts[name] = f"{len(trained)} of {len(named)} parameters ({digest_of(trained)})"
    for name, groups in groups_of.items():
        # A checkpoint finds moments by these names: in which order they stand matters to nobody.
        flat = [f"{number} {key}" for number, keys in enumerate(groups) for key in sorted(keys)]
        of_groups = f" in {len(groups)} groups" if len(groups) > 1 else ""
        parts[name] = f"{kinds[name]} of {len(flat)} parameters{of_groups} ({digest_of(flat)})"
    return parts


def holds(modules: Mapping[str, nn.Module], sections: Mapping[str, Any]) -> bool:
    """Whether the modules have, bit for bit, the tensors that a checkpoint has written of them."""
    for name, module in modules.items():
        kept, noted = sections.get(name, {}), sections.get(NOTED, {}).get(name, {})
        for key, tensor in module.state_dict().items():
            if isinstance(tensor, torch.Tensor) and key not in noted:
                there = kept.get(key)
                if there is None or there.shape != tensor.shape:
                    return False
                # All processes come to one answer: each looks at the whole of a tensor in pieces.
                if not is_same(*whole([tensor, there], lambda each: each)):
                    return False
    return True


def is_made_of(value: Any, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a module, or list of tensors, is made of these modules' own weights alone."""
    own = {id(each) for m in modules.values() for each in (*m.parameters(), *m.buffers())}
    own |= {id(part) for m in modules.values() for part in m.modules()}
    if isinstance(value, nn.Module):
        return all(id(each) in own for each in (*value.parameters(), *value.buffers()))
    return is_row_of(value, own)
