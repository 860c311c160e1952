"""How many bytes a later checkpoint writes when 1 % of 100 M parameters are trained."""

from __future__ import annotations

import shutil
import tempfile

import torch
from torch import nn

import colabkit
from benchmarks.measuring import show


class Adapted(nn.Module):
    """A frozen body of 99 M parameters and a head of 1 M that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*[nn.Linear(3146, 3146, bias=False) for _ in range(10)])
        self.body.requires_grad_(requires_grad=False)
        self.head = nn.Linear(3146, 318, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def main() -> None:
    folder = tempfile.mkdtemp(dir=".")
    try:
        model = Adapted()
        x = torch.randn(4, 3146)
        written: list[int] = []

        def note(event: object) -> None:
            if event.name == "batch_end":  # type: ignore[attr-defined]
                event.run.flush()  # type: ignore[attr-defined]
                written.append(event.run.save_status.timings.nbytes)  # type: ignore[attr-defined]

        colabkit.fit(
            model,
            [(x, torch.zeros(4, 318))] * 8,
            folder,
            loss="mse",
            callbacks=[note],
            save_every=1,
            progress=False,
            device="cpu",
        )
    finally:
        shutil.rmtree(folder)
    # The trained part is the head's weights and AdamW's two moments of them.
    trained = 3 * model.head.weight.nbytes
    show(
        "incremental: 100 M parameters, 1 % trained",
        [
            ("first checkpoint", f"{written[0] / 1e6:.1f} MB", ""),
            ("a later one", f"{written[-1] / 1e6:.1f} MB", ""),
            ("  over the trained part", f"{written[-1] / trained:.2f}", "wanted <= 1.2"),
        ],
    )


if __name__ == "__main__":
    main()
