from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from colabkit.projects.masking import MaskedText, masked, secrets_of

SECRETS = ("hunter2hunter3", "geheim")


def test_only_variables_that_tell_of_a_secret_are_hidden():
    environ = {
        "HF_TOKEN": "hf_abcdef",
        "WANDB_API_KEY": "0123456789",
        "AWS_SECRET_ACCESS_KEY": "abcdefghij",
        "KAGGLE_KEY": "k" * 10,
        "PATH": "/usr/local/bin",
        "KEYBOARD": "american",
        "SHORT_TOKEN": "abc",
    }
    assert set(secrets_of(environ)) == {"hf_abcdef", "0123456789", "abcdefghij", "k" * 10}


@given(st.lists(st.sampled_from(["geheim", "hunter2hunter3", "ge", "hun", "é", "x\n"])), st.data())
def test_however_the_text_is_cut_no_secret_is_shown_and_nothing_else_is_lost(words, data):
    text = "".join(words)
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)))))
    stream = MaskedText(SECRETS)
    edges = [0, *cuts, len(raw)]
    pieces = [stream.feed(raw[a:b]) for a, b in itertools.pairwise(edges)]
    shown = "".join([*pieces, stream.end()])
    assert "geheim" not in shown
    assert "hunter2hunter3" not in shown
    if not any(secret in text for secret in SECRETS):
        assert shown == text
    assert shown == masked(text, SECRETS)
