"""Processes answer shares of what is asked; a question that stands there often is not answered alike by all of them."""

from kit import ranks
from kit.generation.engine import Completion, Sampling
from kit.training import shared_engine


class FakeEngine:
    """Says with which seed and at which place it was asked, of which an engine makes its random numbers."""

    def generate(self, conversations, sampling):
        yield [
            (place, Completion(f"{prompt} {sampling.seed + place}", 1, "stop"))
            for place, prompt in enumerate(conversations)
        ]


def test_no_two_processes_draw_the_same(monkeypatch):
    helpers = []
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "help_with", helpers.append)
    monkeypatch.setattr(shared_engine, "answering", lambda _: shared_engine.same_random_numbers())
    shared_engine.engine_of_all(FakeEngine, policy=None, at_once=4)
    answers = {}
    for rank in (0, 1):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        answers |= dict(helpers[0]((["9 + 9?"] * 8, Sampling(10, 1.0, seed=1))))
    assert sorted(answers) == list(range(8))
    assert len({answer.text for answer in answers.values()}) == 8
