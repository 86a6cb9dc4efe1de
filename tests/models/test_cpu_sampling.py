"""Tokens sampled cheaply are sampled as torch samples them."""

import torch
from scipy.stats import chisquare

from kit.models.cpu_sampling import draw_one, sampling_cheaply

LIKELY = torch.tensor([0.0, 0.05, 0.0, 0.6, 0.3, 0.05, 0.0])
ROWS = 200_000


def test_each_token_is_drawn_as_often_as_it_is_likely():
    torch.manual_seed(1)
    for scale in (1.0, 7.0):  # rows need not sum to 1
        drawn = torch.bincount(draw_one((scale * LIKELY).expand(ROWS, -1))[:, 0], minlength=len(LIKELY)).double()
        assert drawn[LIKELY == 0].sum() == 0
        possible = LIKELY > 0
        expected = LIKELY.double()[possible] / LIKELY.double()[possible].sum() * ROWS
        assert chisquare(drawn[possible].numpy(), expected.numpy()).pvalue > 0.001


def test_transformers_samples_that_way_and_only_inside(monkeypatch):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = Qwen2ForCausalLM(Qwen2Config(num_attention_heads=2, num_key_value_heads=2, **sizes))
    asked = []
    monkeypatch.setattr(
        "kit.models.cpu_sampling.draw_one", lambda p: asked.append(p.shape) or torch.full((len(p), 1), 7)
    )
    prompt = torch.ones(3, 2, dtype=torch.long)
    replies = sampling_cheaply(model.generate)(prompt, do_sample=True, max_new_tokens=4, top_k=0)
    assert replies[:, 2:].tolist() == [[7] * 4] * 3
    assert asked == [(3, 50)] * 4
    model.generate(prompt, do_sample=True, max_new_tokens=4, top_k=0)
    assert len(asked) == 4
    several = sampling_cheaply(lambda: torch.multinomial(LIKELY, 3))()
    assert sorted(several.tolist()) != [7, 7, 7]
    assert len(asked) == 4
