"""Every error says what happened, where, and what to do next."""

from __future__ import annotations

from colabkit.errors import ArgumentError


def test_words_of_others_at_the_end_of_a_message_get_their_full_stop():
    assert str(ArgumentError("It said: no", argument="x", hint="Go.")) == "It said: no. Go."
    assert str(ArgumentError("It said no.", argument="x", hint="Go.")) == "It said no. Go."
    assert str(ArgumentError("It said: no", argument="x")) == "It said: no"
