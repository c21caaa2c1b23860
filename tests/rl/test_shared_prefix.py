"""The shared prefix against the plain forward: attention alone, then whole models, values and gradients."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import rl.branch_attention
import rl.prompt_attention
from rewards.errors import ConfigError
from rl import processor
from rl.batching import Batch, make_batch
from rl.policy import Checkpointing, Policy, PolicyModel, load_policy
from rl.prefix_attention import tiled_attention
from rl.prefix_flex import flexible_attention
from rl.prefix_layout import GroupSpan, PrefixLayout, make_layout
from rl.prompt_attention import Rules
from rl.recompute import enable_checkpointing
from rl.rollouts import Group, Rollout
from rl.shared_prefix import ATTENTION_NAME, UnsupportedAttention, attention

# Four groups: three branches that part at different depths, one branch, no completion at all, a prompt of one token.
SPANS = [GroupSpan(0, 7, 9, 3), GroupSpan(16, 4, 6, 1), GroupSpan(26, 5, 0, 0), GroupSpan(31, 1, 4, 2)]
PATHS = [
    [7, 8, 9, 10],
    [7, 8, 11, 12, 13],
    [7, 14, 15],
    [16 + 4 + depth for depth in range(6)],
    [32, 33],
    [34, 35],
]


def random_groups(seed: int = 0, vocabulary: int = 320) -> list[Group]:
    """Three groups with prompts of 30, 41 and 18 tokens and completions of 1 to 13; some are equal or begin alike."""
    rng = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, vocabulary) for _ in range(count))

    groups = []
    for document, prompt, lengths in (("a", 30, (13, 4, 9, 1)), ("b", 41, (2, 2, 11, 8)), ("c", 18, (7, 7, 1, 5))):
        completions = [ids(length) for length in lengths]
        completions[2] = completions[0][: len(completions[0]) // 2] + completions[2]
        completions[3] = completions[0]
        rollouts = [Rollout(document, tokens, (-1.0,) * len(tokens), "", "stop", 0, 0) for tokens in completions]
        groups.append(Group(document, ids(prompt), tuple(rollouts)))
    return groups


def reference_attention(
    query_SHD: Tensor, key_SKD: Tensor, value_SKD: Tensor, layout: PrefixLayout, rules: Rules
) -> Tensor:
    """A dense mask over the whole packed sequence: the definition."""
    length, repeats = query_SHD.shape[0], query_SHD.shape[1] // key_SKD.shape[1]
    mask_SS = torch.zeros(length, length, dtype=torch.bool)
    for span in layout.spans:
        mask_SS[span.start : span.stop, span.start : span.split] = True
        mask_SS[span.start : span.split, span.start : span.split].tril_()
    for path in layout.path_NR.tolist():
        for depth, place in enumerate(path):
            mask_SS[place, path[: depth + 1]] = True
    if rules.window is not None:
        mask_SS &= layout.position_S[:, None] - layout.position_S < rules.window
    query = query_SHD.transpose(0, 1)
    key, value = (tensor.transpose(0, 1).repeat_interleave(repeats, 0) for tensor in (key_SKD, value_SKD))
    scores = query @ key.mT * rules.scale
    if rules.softcap is not None:
        scores = rules.softcap * (scores / rules.softcap).tanh()
    return (scores.masked_fill(~mask_SS, -torch.inf).softmax(-1) @ value).transpose(0, 1)


WINDOWS = [None, 1, 4, 9]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize(("heads", "key_heads"), [(4, 2), (6, 1), (3, 3)])
def test_attention_equals_a_dense_mask(
    heads: int, key_heads: int, softcap: float | None, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl.prompt_attention, "MIN_ROWS", 3)
    for module in (rl.prompt_attention, rl.branch_attention):
        monkeypatch.setattr(module, "TILE_ELEMENTS", {"cpu": 60})
    generator = torch.Generator().manual_seed(1)
    length = SPANS[-1].stop
    tensors = [
        torch.randn(length, count, 16, generator=generator, requires_grad=True)
        for count in (heads, key_heads, key_heads)
    ]
    grad_SHD = torch.randn(length, heads, 16, generator=generator)
    layout, rules = make_layout(SPANS, PATHS), Rules(0.3, window, softcap)
    expected_SHD = reference_attention(*tensors, layout, rules)
    expected_grads = torch.autograd.grad(expected_SHD, tensors, grad_SHD)
    output_SHD = tiled_attention(*tensors, layout, rules)
    grads = torch.autograd.grad(output_SHD, tensors, grad_SHD)
    torch.testing.assert_close(output_SHD, expected_SHD, atol=1e-5, rtol=1e-5)
    for ours, expected in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)
    # FlexAttention has no backward on the CPU.
    flexible_SHD = flexible_attention(*(tensor.detach() for tensor in tensors), layout, rules)
    torch.testing.assert_close(flexible_SHD, expected_SHD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_long_rows_cross_the_tiles(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rl.prompt_attention, "_heads_at_once", lambda keys: at_once)
    generator = torch.Generator().manual_seed(2)
    branches = [list(range(600, 900)), [*range(600, 640), *range(900, 940)], list(range(940, 1453))]
    layout = make_layout([GroupSpan(0, 600, 853, 3)], branches)
    tensors = [torch.randn(1453, count, 16, generator=generator, requires_grad=True) for count in (6, 3, 3)]
    expected_SHD = reference_attention(*tensors, layout, Rules(0.25))
    output_SHD = tiled_attention(*tensors, layout, Rules(0.25))
    grad_SHD = torch.randn(output_SHD.shape, generator=generator)
    torch.testing.assert_close(output_SHD, expected_SHD, atol=1e-5, rtol=1e-5)
    expected_grads = torch.autograd.grad(expected_SHD, tensors, grad_SHD)
    for ours, expected in zip(torch.autograd.grad(output_SHD, tensors, grad_SHD), expected_grads, strict=True):
        torch.testing.assert_close(ours, expected, atol=5e-5, rtol=1e-4)


def test_float32_gradients_are_as_exact_as_those_of_sdpa() -> None:
    """Scores of up to 100: a query that is rounded with the scale in it has twice the error, a value five times."""
    generator = torch.Generator().manual_seed(0)
    layout = make_layout([GroupSpan(0, 300, 40, 1)], [list(range(300, 340))])
    tensors = [torch.randn(340, 2, 64, generator=generator) for _ in range(3)]
    tensors[0] *= 16
    grad_SHD = torch.randn(340, 2, 64, generator=generator)

    def plain(*given: Tensor) -> Tensor:
        heads_first = (tensor.transpose(0, 1)[None] for tensor in given)  # else it takes no flash kernel
        return scaled_dot_product_attention(*heads_first, is_causal=True)[0].transpose(0, 1)

    def gradients(attend: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
        given = [tensor.to(dtype).requires_grad_() for tensor in tensors]
        return torch.autograd.grad(attend(*given), given, grad_SHD.to(dtype))

    found = gradients(lambda *given: tiled_attention(*given, layout, Rules(1 / 8)), torch.float32)
    for ours, other, exact in zip(found, gradients(plain, torch.float32), gradients(plain, torch.float64), strict=True):
        assert (ours - exact).norm() < 2 * (other - exact).norm()


@pytest.mark.parametrize("in_bfloat16", [True, False])
@pytest.mark.parametrize(
    ("offset", "softcap", "window"), [(0, None, None), (40, None, None), (400, None, 50), (40, None, 9), (0, 2.0, None)]
)
def test_bfloat16_gradients_are_as_exact_as_its_digits(
    offset: float, softcap: float | None, window: int | None, in_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all scores of a row are large: what takes them away again is not rounded with them."""
    monkeypatch.setattr(processor, "multiplies_bfloat16_faster", lambda: in_bfloat16)
    generator = torch.Generator().manual_seed(3)
    branches = [list(range(600, 650)), [*range(600, 620), *range(650, 690)], list(range(690, 740)), [740, 741]]
    layout, rules = (
        make_layout([GroupSpan(0, 600, 142, 4)], branches),
        Rules(1 / 8 if window != 9 else 1 / 32, window, softcap),
    )
    tensors = [torch.randn(742, heads, 64, generator=generator).bfloat16() for heads in (4, 2, 2)]
    tensors[0][..., 0], tensors[1][..., 0] = 8.0, offset
    grad_SHD = torch.randn(742, 4, 64, generator=generator).bfloat16()
    wide = [tensor.double().requires_grad_() for tensor in tensors]
    expected = torch.autograd.grad(reference_attention(*wide, layout, rules), wide, grad_SHD.double())
    narrow = [tensor.requires_grad_() for tensor in tensors]
    found = torch.autograd.grad(tiled_attention(*narrow, layout, rules), narrow, grad_SHD)
    for ours, right in zip(found, expected, strict=True):
        ours, right = ours[..., 1:].double(), right[..., 1:]  # the constant channel's gradients are sums of nothing
        assert (ours - right).norm() <= (6e-3 if in_bfloat16 else 3e-3) * right.norm()


def test_autocast_does_not_narrow_float32_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "multiplies_bfloat16_faster", lambda: False)
    generator = torch.Generator().manual_seed(4)
    tensors = [torch.randn(SPANS[-1].stop, 2, 16, generator=generator).bfloat16() for _ in range(3)]
    layout, rules = make_layout(SPANS, PATHS), Rules(0.25)
    outside_SHD = tiled_attention(*tensors, layout, rules)
    with torch.autocast("cpu", torch.bfloat16):
        inside_SHD = tiled_attention(*tensors, layout, rules)
    assert torch.equal(inside_SHD, outside_SHD)


def tiny_model(family: str, **changes: Any) -> PolicyModel:
    import transformers

    config_class = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    settings: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "attn_implementation": ATTENTION_NAME,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 2,
        "initializer_range": 0.1,
    }
    config = config_class(**(settings | changes))
    torch.manual_seed(5)
    return PolicyModel(getattr(transformers, f"{family}ForCausalLM")(config).float(), "float32")


def gradients(
    model: PolicyModel, batch: Batch, attention: Any, temperature: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    logprobs_T, _ = model(batch, attention, temperature)
    weights_T = torch.linspace(-1, 1, len(logprobs_T))
    (logprobs_T * weights_T).sum().backward()
    return logprobs_T.detach(), {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Qwen3", {"tie_word_embeddings": True}),
        ("Qwen3", {"tie_word_embeddings": False}),
        ("Qwen2", {}),
        ("Llama", {}),
        ("Mistral", {"sliding_window": None}),
        ("Mistral", {"sliding_window": 8}),
        ("Qwen3", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}),
        ("Gemma", {}),
        ("Gemma2", {"sliding_window": 16, "query_pre_attn_scalar": 16}),
        ("Gemma3", {"sliding_window": 12, "query_pre_attn_scalar": 16}),
        ("Phi3", {"sliding_window": None}),
        ("Cohere", {"logit_scale": 0.5}),
        ("Granite", {"logits_scaling": 4.0}),
    ],
)
@pytest.mark.parametrize("checkpointing", [False, True, "products"])
def test_models_give_the_plain_forward_s_values_and_gradients(
    family: str, changes: dict[str, Any], checkpointing: Checkpointing
) -> None:
    model = tiny_model(family, **changes)
    model.train()
    groups = random_groups()
    batch = make_batch(groups, torch.zeros(3, 4))
    plain_T, plain_gradients = gradients(model, batch, "plain", temperature=0.8)
    if checkpointing:
        enable_checkpointing(model.causal_lm, checkpointing == "products")
    ours_T, our_gradients = gradients(model, batch, "shared_prefix", temperature=0.8)
    assert model.longest_packed is None
    # And the model's own full forward, one completion at a time, nothing packed and nothing padded.
    model.causal_lm.set_attn_implementation("eager")
    with torch.no_grad():
        alone = []
        for group in groups:
            for rollout in group.rollouts:
                ids = torch.tensor([[*group.prompt_ids, *rollout.completion_ids]])
                logits = model.causal_lm(input_ids=ids, use_cache=False).logits[0, len(group.prompt_ids) - 1 : -1]
                targets = ids[0, len(group.prompt_ids) :, None]
                alone.append((logits / 0.8).log_softmax(-1).gather(1, targets)[:, 0])
    torch.testing.assert_close(ours_T, torch.cat(alone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain_T, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert ours_T.std() > 0.2
    assert our_gradients.keys() == plain_gradients.keys() and len(our_gradients) == len(list(model.parameters()))
    for name, gradient in our_gradients.items():
        size = plain_gradients[name].abs().max().item()
        assert size > 0, name
        torch.testing.assert_close(gradient, plain_gradients[name], atol=1e-5 * max(size, 1.0), rtol=1e-4)


def test_float32_gradients_are_as_near_to_the_exact_ones_as_plain_ones() -> None:
    generator = random.Random(4)
    rollouts = tuple(
        Rollout("a", tuple(generator.randrange(3, 320) for _ in range(40)), (-1.0,) * 40, "", "stop", 0, 0)
        for _ in range(6)
    )
    prompt = tuple(generator.randrange(3, 320) for _ in range(400))
    batch, model = make_batch([Group("a", prompt, rollouts)], torch.zeros(1, 6)), tiny_model("Qwen3")
    (_, ours), (_, plain) = (gradients(model, batch, attention) for attention in ("shared_prefix", "plain"))
    model.causal_lm.double()
    _, exact = gradients(model, batch, "plain")

    def apart(found: dict[str, Tensor]) -> float:
        return sum((found[name].double() - exact[name]).norm().item() ** 2 for name in exact) ** 0.5

    size = sum(gradient.norm().item() ** 2 for gradient in exact.values()) ** 0.5
    assert apart(ours) < 2 * apart(plain) and apart(ours) < 1e-5 * size


@pytest.mark.parametrize("checkpointing", [False, "products"])
def test_adapters_get_the_plain_forward_s_gradients(checkpointing: Checkpointing) -> None:
    """LoRA layers inside the model: what flows to them is the same, and nothing flows to the frozen weights."""
    import peft

    model = tiny_model("Qwen3")
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    peft.get_peft_model(model.causal_lm, settings)
    batch = make_batch(random_groups(), torch.zeros(3, 4))
    plain_T, plain = gradients(model, batch, "plain")
    if checkpointing:
        enable_checkpointing(model.causal_lm, keep_products=True)
    ours_T, ours = gradients(model, batch, "shared_prefix")
    torch.testing.assert_close(ours_T, plain_T, atol=1e-5, rtol=1e-5)
    assert ours.keys() == plain.keys() and ours and all("lora_" in name for name in ours)
    for name, gradient in ours.items():
        size = plain[name].abs().max().item()
        assert size > 0, name
        torch.testing.assert_close(gradient, plain[name], atol=1e-5 * max(size, 1.0), rtol=1e-4)


def test_the_first_update_has_the_plain_forward_s_gradient() -> None:
    """The whole gradient of a step's loss, in float32: relative distance below 1e-5."""
    from rl.batching import totals
    from rl.bench_update import METHOD
    from rl.config import MethodConfig
    from rl.methods import METHODS

    groups, model = random_groups(), tiny_model("Qwen3")
    batch = make_batch(groups, torch.tensor([[1.0, -0.5, 0.2, -0.7], [0.3, -0.3, 1.1, -1.1], [0.9, 0.1, -1.4, 0.4]]))
    flat = []
    for attention_name in ("shared_prefix", "plain"):
        model.zero_grad()
        logprobs_T, _ = model(batch, attention_name)
        loss, _ = METHODS["grpo"].loss(logprobs_T, batch, totals(groups), MethodConfig.model_validate(METHOD))
        loss.backward()
        flat.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))  # type: ignore[union-attr]
    assert flat[1].norm() > 1e-3
    assert (flat[0] - flat[1]).norm() < 1e-5 * flat[1].norm()


def test_bfloat16_is_as_close_to_float32_as_the_plain_forward_is() -> None:
    batch = make_batch(random_groups(), torch.zeros(3, 4))
    model = tiny_model("Qwen3")
    exact_T, exact = gradients(model, batch, "plain")
    model.dtype = "bfloat16"
    ours_T, ours = gradients(model, batch, "shared_prefix")
    plain_T, plain = gradients(model, batch, "plain")
    assert (ours_T - exact_T).abs().mean() < 1.3 * (plain_T - exact_T).abs().mean() < 0.05

    def distance(gradients: dict[str, Tensor]) -> float:
        squares = sum((gradients[name] - exact[name]).square().sum() for name in exact)
        return float((squares / sum(gradient.square().sum() for gradient in exact.values())) ** 0.5)

    assert distance(ours) < 1.3 * distance(plain) < 0.05


def test_bitwise_repeatable(tiny_model_dir: Path) -> None:
    policies = [load_policy(tiny_model_dir, "bfloat16", "shared_prefix") for _ in range(2)]
    batch = make_batch(random_groups(), torch.zeros(3, 4))
    (first_T, first), (second_T, second) = (
        gradients(policy.model, batch, "shared_prefix")  # type: ignore[arg-type]
        for policy in policies
    )
    assert torch.equal(first_T, second_T)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_unsupported_model_falls_back_with_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    policy.model.eval()
    batch = make_batch(random_groups(), torch.zeros(3, 4))
    monkeypatch.setattr("rl.shared_prefix.tiled_attention", unsupported)
    for _ in range(2):
        assert policy.choose_attention(batch) == "plain"
    assert len(caplog.records) == 1 and "cannot do that" in caplog.text and "plain forward" in caplog.text


def unsupported(*_: object) -> None:
    raise UnsupportedAttention("cannot do that")


@pytest.mark.parametrize("name", ["s_aux", "dropout", "position_bias"])
def test_what_the_shared_prefix_does_not_do_is_said(name: str) -> None:
    query, key, value = (torch.randn(1, 2, SPANS[-1].stop, 8) for _ in range(3))
    with pytest.raises(UnsupportedAttention, match=f"Module uses {name}"):
        attention(torch.nn.Module(), query, key, value, None, make_layout(SPANS, PATHS), scaling=0.5, **{name: 0.1})


def test_a_window_that_stands_in_the_masks_alone_ends_the_shared_prefix_where_it_hides_something(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Phi 3.5 MoE does not tell attention of its window; sequences within it are right, and one beyond it is not."""
    experts: dict[str, Any] = {"sliding_window": 50, "num_local_experts": 2, "router_jitter_noise": 0.0}
    policy = Policy(tiny_model("Phimoe", **experts), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    policy.model.eval()
    groups = random_groups()
    within = make_batch([groups[0], groups[2]], torch.zeros(2, 4))
    assert within.longest == 44 and policy.choose_attention(within) == "shared_prefix" and not caplog.records
    beyond = make_batch(groups, torch.zeros(3, 4))
    ours_T, plain_T = (policy.model(beyond, attention)[0] for attention in ("shared_prefix", "plain"))
    assert (ours_T - plain_T).abs().max() > 1e-2
    assert beyond.longest == 52 and policy.choose_attention(beyond) == "plain" == policy.attention
    assert "sequences of 52 tokens" in caplog.text and "within 50 tokens in its masks alone" in caplog.text


def test_a_wrong_attention_is_caught_and_a_low_ratio_steps_aside(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    groups = random_groups()
    alone = make_batch(
        [Group(group.document_id, group.prompt_ids, group.rollouts[:1]) for group in groups], torch.zeros(3, 1)
    )
    assert alone.token_ratio == 1.0 and policy.choose_attention(alone) == "plain"
    batch = make_batch(groups, torch.zeros(3, 4))
    assert policy.choose_attention(batch) == "shared_prefix"

    monkeypatch.setattr("rl.shared_prefix.tiled_attention", lambda query, key, value, layout, rules: query * 0.5)
    broken = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    assert broken.choose_attention(batch) == "plain" and broken.attention == "plain"
    assert [record.message.split(":")[0] for record in caplog.records] == ["plain forward"] * 2
    assert "token ratio below 1.3" in caplog.text and "differ from the plain ones by up to" in caplog.text


def test_a_wrong_gradient_is_caught(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rl.shared_prefix.tiled_attention",
        lambda query, key, value, *rest: tiled_attention(query, key.detach(), value, *rest),
    )
    batch = make_batch(random_groups(), torch.zeros(3, 4))
    frozen = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix").freeze()  # type: ignore[arg-type]
    assert frozen.choose_attention(batch) == "shared_prefix"  # nothing but values is asked of a reference
    policy = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    assert policy.choose_attention(batch) == "plain" and "gradients differ from the plain ones" in caplog.text
    assert all(p.grad is None for p in policy.model.parameters())


def test_a_full_memory_says_nothing_about_the_shared_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("rl.shared_prefix.tiled_attention", full)
    policy = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    with pytest.raises(torch.OutOfMemoryError):
        policy.choose_attention(make_batch(random_groups(), torch.zeros(3, 4)))
    assert policy.attention == "shared_prefix"


@pytest.mark.parametrize("asked", ["shared_prefix", "plain"])
def test_a_model_with_logits_of_its_own_is_refused(asked: Any) -> None:
    policy = Policy(tiny_model("Qwen3"), None, "float32", asked)  # type: ignore[arg-type]
    batch = make_batch(random_groups(), torch.zeros(3, 4))
    forward = policy.causal_lm.forward

    def halved(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output

    policy.causal_lm.forward = halved  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"^model\.path: Qwen3ForCausalLM makes other log-probabilities"):
        policy.choose_attention(batch)


def test_a_decoder_without_hidden_states_is_refused() -> None:
    policy = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    policy.causal_lm.get_decoder = lambda: policy.causal_lm  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ConfigError, match=r"^model\.path: the decoder of Qwen3ForCausalLM gives no hidden states"):
        policy.choose_attention(make_batch(random_groups(), torch.zeros(3, 4)))


def test_a_mistake_of_ours_is_no_reason_to_step_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*_: object) -> None:
        raise TypeError("ours")

    monkeypatch.setattr("rl.shared_prefix.tiled_attention", mistaken)
    policy = Policy(tiny_model("Qwen3"), None, "float32", "shared_prefix")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ours"):
        policy.choose_attention(make_batch(random_groups(), torch.zeros(3, 4)))


def test_attention_sinks_have_no_plain_forward() -> None:
    query, key, value = (torch.randn(1, 4, 5, 8) for _ in range(3))
    with pytest.raises(ConfigError, match="attention sinks"):
        attention(torch.nn.Module(), query, key, value, None, scaling=0.5, s_aux=torch.zeros(4))


def test_without_a_layout_it_is_plain_attention() -> None:
    query, key, value = (torch.randn(2, 4, 5, 8) for _ in range(3))
    output, _ = attention(torch.nn.Module(), query, key, value, None, scaling=0.5)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.5).transpose(1, 2)
    torch.testing.assert_close(output, expected)
