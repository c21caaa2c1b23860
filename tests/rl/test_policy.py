"""The policy: loading, temperature, entropy, chunked log-probabilities, what the sampler gets."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rl.prefix_attention
import rl.token_logprobs
from rewards.errors import ConfigError
from rl.batching import make_batch
from rl.policy import Checkpointing, load_policy
from rl.rollouts import Group, Rollout
from rl.token_logprobs import token_logprobs


class NoScale:
    """A model config without logit scale or soft cap."""


def test_token_logprobs_on_hand_numbers() -> None:
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    hidden_ME = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    # Softmax of (log 3, 0) is (3/4, 1/4); at temperature 0.5 it is (9/10, 1/10).
    predictor_T, target_T = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 1, 1, 0])
    logprobs_T, entropy_T = token_logprobs(hidden_ME, predictor_T, target_T, head, NoScale(), 1.0, True)
    assert logprobs_T.exp().tolist() == pytest.approx([0.75, 0.25, 0.5, 0.75])
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert entropy_T is not None
    assert entropy_T.tolist() == pytest.approx([expected, expected, math.log(2), expected])
    cold_T, nothing = token_logprobs(hidden_ME, predictor_T, target_T, head, NoScale(), 0.5)
    assert cold_T.exp().tolist() == pytest.approx([0.9, 0.1, 0.5, 0.9]) and nothing is None


@pytest.mark.parametrize(
    ("config", "scale"),
    [({"logit_scale": 0.5}, 0.5), ({"lm_head_multiplier": 0.25}, 0.25), ({"logits_scaling": 4}, 0.25)],
)
def test_what_a_model_multiplies_its_logits_by(config: dict[str, float], scale: float) -> None:
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    hidden_ME = torch.tensor([[math.log(3.0) / scale, 0.0]])
    settings = type("Config", (), config)()
    logprobs_T, _ = token_logprobs(hidden_ME, torch.tensor([0, 0]), torch.tensor([0, 1]), head, settings)
    assert logprobs_T.exp().tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_chunked_logprobs_equal_autograd(
    kept: bool, bias: bool, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl.token_logprobs, "CHUNK_ELEMENTS", {"cpu": 3 * 50})
    monkeypatch.setattr(rl.token_logprobs, "CHUNK_ROWS", 1)
    monkeypatch.setattr(rl.token_logprobs, "KEEP_BYTES", 2**20 if kept else 0)
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=bias)
    hidden_ME = torch.randn(7, 8, requires_grad=True)
    predictor_T, target_T = torch.randint(7, (20,)), torch.randint(50, (20,))
    config = type("Config", (), {"final_logit_softcapping": softcap})()

    logits = head(hidden_ME)[predictor_T]
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    distribution = torch.distributions.Categorical(logits=logits / 0.7)
    weights_T = torch.randn(20)
    parameters = [hidden_ME, *head.parameters()]
    expected_T = distribution.log_prob(target_T)
    expected_grads = torch.autograd.grad((expected_T * weights_T).sum(), parameters, retain_graph=True)

    ours_T, entropy_T = token_logprobs(hidden_ME, predictor_T, target_T, head, config, 0.7, True)
    grads = torch.autograd.grad((ours_T * weights_T).sum(), parameters)
    torch.testing.assert_close(ours_T, expected_T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy_T, distribution.entropy().detach(), atol=1e-5, rtol=1e-5)
    for ours, expected in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_frozen_head_costs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    head, hidden_ME = nn.Linear(8, 50, bias=False).requires_grad_(False), torch.randn(7, 8, requires_grad=True)
    ours_T, _ = token_logprobs(hidden_ME, torch.arange(7), torch.arange(7), head, type("Config", (), {})())
    expected_T = head(hidden_ME).log_softmax(-1).gather(1, torch.arange(7)[:, None])[:, 0]
    made: list[object] = []
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *args, **kwargs: made.append(args) or zeros(*args, **kwargs))
    (grad,) = torch.autograd.grad(ours_T.sum(), [hidden_ME])
    assert made == [] and head.weight.grad is None
    torch.testing.assert_close(grad, torch.autograd.grad(expected_T.sum(), [hidden_ME])[0])


def test_load_scores_like_transformers(tiny_model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy = load_policy(tiny_model_dir, "float32", "shared_prefix", gradient_checkpointing=True)
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.float32}
    prompt = policy.tokenizer.apply_chat_template(
        [{"role": "user", "content": "MILK 1L 6.50"}], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    rollouts = tuple(
        Rollout("a", ids, (-1.0,) * len(ids), "", "stop", 0, 0) for ids in ((20, 21, 2), (20, 30, 40, 2), (50, 2))
    )
    batch = make_batch([Group("a", tuple(prompt), rollouts)], torch.zeros(1, 3))
    logprobs_T, entropy_T = policy.logprobs_and_entropy(batch, temperature=0.5)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    ids = torch.tensor([[*prompt, 20, 30, 40, 2]])
    logits = model(ids).logits[0, len(prompt) - 1 : -1] / 0.5
    expected_T = logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
    assert logprobs_T.requires_grad and len(logprobs_T) == 9
    torch.testing.assert_close(logprobs_T[3:7], expected_T, atol=1e-5, rtol=1e-5)
    assert entropy_T is not None and not entropy_T.requires_grad
    torch.testing.assert_close(
        entropy_T[3:7], torch.distributions.Categorical(logits=logits).entropy(), atol=1e-5, rtol=1e-5
    )


def test_checkpointing_computes_the_layers_again_but_not_their_attention(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    attend = rl.prefix_attention._attend
    attended: list[Any] = []
    monkeypatch.setattr(rl.prefix_attention, "_attend", lambda *given: attended.append(given) or attend(*given))

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: dict[str, int] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            self.calls[name] = self.calls.get(name, 0) + 1
            return func(*args, **(kwargs or {}))

    rollouts = tuple(Rollout("a", ids, (-1.0,) * 3, "", "stop", 0, 0) for ids in ((20, 21, 2), (30, 31, 2)))
    batch = make_batch([Group("a", tuple(range(3, 30)), rollouts)], torch.zeros(1, 2))
    calls: dict[Checkpointing, dict[str, int]] = {}
    kinds: tuple[Checkpointing, ...] = (False, "products", True)
    for checkpointing in kinds:
        policy = load_policy(tiny_model_dir, "float32", "shared_prefix", checkpointing)
        policy.logprobs(batch)  # the check at first use
        attended.clear()
        with Count() as count:
            torch.autograd.backward(policy.logprobs(batch).sum())
        calls[checkpointing] = count.calls
        assert len(attended) == policy.causal_lm.config.num_hidden_layers
    assert calls[True]["mm"] > calls["products"]["mm"] == calls[False]["mm"]
    assert calls["products"]["silu"] > calls[False]["silu"]


def test_sampler_gets_the_checkpoint_s_names_without_the_tied_head(tiny_model_dir: Path) -> None:
    from safetensors.torch import load_file

    stored = load_file(tiny_model_dir / "model.safetensors")
    policy = load_policy(tiny_model_dir, "bfloat16", "shared_prefix")
    named = dict(policy.named_tensors_for_sampler())
    assert named.keys() == stored.keys() and "lm_head.weight" not in named
    assert all(tensor.dtype == torch.bfloat16 and torch.equal(tensor, stored[name]) for name, tensor in named.items())
    exact = dict(policy.named_tensors_for_sampler(torch.float32))
    assert {tensor.dtype for tensor in exact.values()} == {torch.float32}


def test_reference_policy_has_no_gradient(tiny_model_dir: Path) -> None:
    reference = load_policy(tiny_model_dir, "float32", "plain").freeze()
    group = Group("a", (5, 6), (Rollout("a", (7, 2), (-1.0, -1.0), "", "stop", 0, 0),))
    assert not reference.logprobs(make_batch([group], torch.zeros(1, 1))).requires_grad


def test_a_missing_model_is_one_line_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.path: cannot load '.*nothing'") as caught:
        load_policy(tmp_path / "nothing", "float32", "plain")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("GPTJ", {"n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 4}),
        ("Bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}),
    ],
)
def test_a_model_whose_attention_cannot_be_replaced_is_refused(
    family: str, settings: dict[str, int], tiny_model_dir: Path, tmp_path: Path
) -> None:
    """GPT-J fails as it is made, Bloom would add our mask to its scores."""
    save(family, settings, tiny_model_dir, tmp_path)
    with pytest.raises(ConfigError, match=r"^model\.path: '.*' takes no attention but its own"):
        load_policy(tmp_path, "float32", "plain")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("OPT", {"hidden_size": 32, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.3, "layerdrop": 0.5}),
        ("Starcoder2", {"residual_dropout": 0.3, "embedding_dropout": 0.3, "attention_dropout": 0.3}),
        ("Phimoe", {"num_local_experts": 2, "router_jitter_noise": 0.3, "input_jitter_noise": 0.3}),
    ],
)
def test_nothing_is_drawn_in_a_forward(
    family: str, settings: dict[str, float], tiny_model_dir: Path, tmp_path: Path
) -> None:
    """Also where a model drops in its own code and not in a layer of its own."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    save(family, sizes | {"num_hidden_layers": 3} | settings, tiny_model_dir, tmp_path)
    policy = load_policy(tmp_path, "float32", "shared_prefix")
    rollouts = tuple(Rollout("a", ids, (-1.0,) * 3, "", "stop", 0, 0) for ids in ((20, 21, 2), (30, 31, 2)))
    batch = make_batch([Group("a", tuple(range(3, 30)), rollouts)], torch.zeros(1, 2))
    assert policy.causal_lm.training and torch.equal(policy.logprobs(batch), policy.logprobs(batch))
    assert policy.attention == "shared_prefix"


def save(family: str, settings: dict[str, Any], tokenizer_of: Path, folder: Path) -> None:
    """A model of random weights, and a tokenizer."""
    import transformers

    config = getattr(transformers, f"{family}Config")(
        **{"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | settings
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
