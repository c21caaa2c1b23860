"""The configuration of a run: types, ranges and units. YAML under configs/ holds every value; there is no default here.

An unknown key and a forgotten key are therefore both faults, and nothing that decides a run is hidden from its record.
A configuration is read with `model_validate_json`, either from Hydra's composed YAML (launch/compose.py) or from the
config.json of a run, so that every rank reads the same JSON. This module imports no torch.

    config = RunConfig.model_validate_json(Path("runs/demo/config.json").read_text())
"""

import json
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9._=,+-]*$")]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
Count: TypeAlias = Annotated[int, Field(ge=1)]
CountOrZero: TypeAlias = Annotated[int, Field(ge=0)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0)]


class Strict(BaseModel):
    """Frozen, no unknown keys, no coercion ("16" is not 16), no NaN and no infinity."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class RunSettings(Strict):
    name: Name
    """Name of the run and of its folder."""
    dir: Text
    """The run's own folder, such as runs/demo."""
    seed: Seed
    steps: Count
    """Optimizer steps in all, those before a resume included."""
    resume: Literal["auto", "never", "must"]
    """auto: go on from the last whole checkpoint, or start; never: the folder must be new; must: go on."""
    threads: Count | None
    """torch threads of each process; null leaves torch's choice (results repeat bit for bit only with a number)."""
    world_size: Count
    """Processes that train together; the launcher sets it, and every rank checks it."""
    max_seconds: Positive | None
    """Stop after so many seconds of training, evaluations not counted; null: after run.steps."""
    max_tokens: Count | None
    """Stop after so many tokens, prompts and completions, have gone through updates; null: after run.steps."""
    driver: Literal["on_policy", "ahead"]
    """ahead: sample the next step's attempts during an update, with the weights of before it (rl/ahead.py)."""


class SyntheticDocs(Strict):
    """Documents made in code from a seed, with exact gold."""

    kind: Literal["synthetic"]
    part: Literal["seen", "held_out", "all"]
    """Layout families: those of pre-training, those that it never saw, or both."""
    seed: Seed
    train: CountOrZero
    """Documents to train on."""
    test: CountOrZero
    """Documents to evaluate on; their vendors are not those of train."""


class JsonlDocs(Strict):
    """Documents in files, one JSON object a line."""

    kind: Literal["jsonl"]
    path: Text
    extra: tuple[Text, ...]
    """More files to train on, with or without gold; never evaluated on."""
    test_path: Text | None
    """File to evaluate on; null holds out `test_fraction` of `path`, by group."""
    test_fraction: Share
    split_seed: Seed
    max_bad: CountOrZero
    """Bad lines tolerated in each file; they go to a quarantine file beside the run."""
    limit: Count | None
    """Read at most so many documents of each file; null reads all."""
    train_documents: Count | None
    """Train on at most so many, drawn by split_seed from the training side; the held-out side stays. null: all."""


class HfColumns(Strict):
    """Names of the columns of a `datasets` table; null where it has none."""

    id: Text | None
    text: Text
    group: Text | None
    gold: Text | None


class HfDocs(Strict):
    """Documents in a `datasets` dataset: a hub name, a folder made by `save_to_disk`, or local data files."""

    kind: Literal["hf"]
    path: Text
    name: Text | None
    """Configuration of the dataset, for hub datasets that have several."""
    split: Text
    test_split: Text | None
    """Split to evaluate on; null holds out `test_fraction` of `split`, by group."""
    columns: HfColumns
    test_fraction: Share
    split_seed: Seed
    max_bad: CountOrZero
    limit: Count | None


DocsConfig: TypeAlias = Annotated[SyntheticDocs | JsonlDocs | HfDocs, Field(discriminator="kind")]


class ModelConfig(Strict):
    path: Text
    """A folder, or a name on the Hugging Face hub."""
    dtype: Literal["bfloat16", "float32"]
    """Type of the forward pass and of the sampler; master weights and optimizer state are float32. `${fast_dtype:}`, as
    in configs/model, is bfloat16 where this machine has instructions for it, else float32."""
    attention: Literal["shared_prefix", "plain"]
    """shared_prefix computes the prompt once for its group; plain is the model's own forward."""
    max_positions: Annotated[int, Field(ge=32)]
    """Longest prompt plus completion, in tokens; a document that does not fit is left out, named and counted."""
    gradient_checkpointing: Literal[True, False, "products"]
    """What a layer computes again in the backward, for less memory: nothing (false), all but its attention (true), all
    but its attention and its matrix products (products: less memory saved, less time lost)."""
    schema_in_prompt: bool
    """Append the task's JSON Schema to the prompt, for models that were not trained on the task."""


class MethodConfig(Strict):
    kind: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"]
    scale_rewards: Literal["group", "batch", "none"]
    """What the centred reward is divided by: the spread of its group, of the batch, or nothing."""
    clip_low: Annotated[float, Field(gt=0, le=1)]
    """The probability ratio is clipped below at 1 - clip_low."""
    clip_high: Positive
    """The probability ratio is clipped above at 1 + clip_high (cispo: the weight's cap itself is 1 + clip_high)."""
    kl_coef: NotNegative
    """Weight of the KL divergence to the frozen first policy; 0 keeps no reference policy in memory."""
    tis_cap: Positive | None
    """Cap of the truncated importance weight against the sampler's log-probabilities; null turns it off."""
    truncated: Literal["mask", "score"]
    """A completion cut by max_tokens: leave it out of the loss, or train on its score."""
    max_completion_length: Count
    """Tokens; the constant denominator of dr_grpo."""


class FineTuneConfig(Strict):
    """What the methods share that learn from a fixed set of answers; run.steps is the most updates they make."""

    passes: Positive
    """Passes over the labelled documents."""


class SftConfig(FineTuneConfig):
    """Supervised fine-tuning on gold: human labels."""

    kind: Literal["sft"]
    holes: Literal["fill", "skip"]
    """Documents whose gold lacks a required key: fill it with the policy's own answer, without loss, or skip them."""


class DistillConfig(FineTuneConfig):
    """Supervised fine-tuning on a teacher's answers, unchecked."""

    kind: Literal["distill"]
    traces: tuple[Text, ...]
    """JSONL files of what the teacher answered; see envs/documents.py. Of several answers the last one counts."""


class GradedSftConfig(FineTuneConfig):
    """Supervised fine-tuning on the best recorded answers, as the task's rubric grades them."""

    kind: Literal["graded_sft"]
    traces: tuple[Text, ...]
    """JSONL files of answers, several a document if there are: production traces, or samples of a teacher."""
    own_samples: CountOrZero
    """Answers of the policy itself to add for each document, drawn at sampler.temperature."""
    min_reward: Share
    """Answers with less are left out."""
    weight_power: NotNegative
    """The loss of a document is weighted by reward ** weight_power; 0 weighs all alike."""
    prune: bool
    """Null a value where the rubric gives more for a null."""


class DpoConfig(FineTuneConfig):
    """Direct preference optimisation (Rafailov et al. 2023) on answers that the task's rubric has ranked."""

    kind: Literal["dpo"]
    traces: tuple[Text, ...]
    own_samples: CountOrZero
    """Answers of the policy itself to rank for each document, drawn at sampler.temperature."""
    pairs_per_document: Count
    min_margin: Share
    """Pairs whose rewards are closer are left out."""
    beta: Positive
    """How far the policy may move from the first one: less moves further."""
    sft_coef: NotNegative
    """Weight of the chosen answers' own log-likelihood loss beside the preference (Pang et al. 2024)."""


class OnPolicyDistillationConfig(FineTuneConfig):
    """The policy's own samples, pulled towards a local teacher token by token (Agarwal et al. 2024)."""

    kind: Literal["on_policy_distill"]
    teacher: Text
    """Folder or hub name of the teacher; it must share the policy's tokenizer."""
    divergence: Share
    """0: forward KL, 1: reverse KL, between: generalised Jensen-Shannon."""


MethodChoice: TypeAlias = Annotated[
    MethodConfig | SftConfig | DistillConfig | GradedSftConfig | DpoConfig | OnPolicyDistillationConfig,
    Field(discriminator="kind"),
]


class LoraConfig(Strict):
    """Low-rank adapters (Hu et al. 2022) in place of training all weights; merged into the model that is kept."""

    rank: Count
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: tuple[Text, ...]
    """Names of the modules that get adapters; ("all-linear",) is every linear one but the head."""


class OptimConfig(Strict):
    lr: Positive
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    eps: Positive
    weight_decay: NotNegative
    warmup_steps: CountOrZero
    decay: Literal["constant", "linear", "cosine"]
    """From the end of the warm-up to the last step."""
    max_grad_norm: Positive


class BatchConfig(Strict):
    documents_per_step: Count
    group_size: Annotated[int, Field(ge=2)]
    """Completions of each document; one alone has no advantage."""
    tokens_per_batch: Count
    """Token budget of a micro-batch; groups stay whole."""
    resample_rounds: CountOrZero
    """Further rounds of documents to sample in a step in place of groups without spread; 0 only drops them."""


class DraftingConfig(Strict):
    """Drafts of the next tokens, looked up in the prompt (vLLM's n-gram speculative decoding)."""

    tokens: Count
    """Tokens of a draft."""
    shortest: Count
    longest: Count
    """Tokens in a row that must stand in the prompt already, for a draft to follow them."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"shortest={self.shortest} is more than longest={self.longest}")
        return self


class SamplerConfig(Strict):
    engine: dict[str, JsonValue]
    """Arguments of vLLM's engine, passed through."""
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Count
    """Longest completion, in tokens."""
    logprob_gap_max: Positive
    """Nats; a larger mean |log-probability gap| between sampler and trainer stops the run."""
    structured: Literal["text", "schema", "grounded"]
    """schema: only tokens that keep to the task's JSON Schema; grounded: and only values that the document prints
    (envs/grounded_grammar.py); text: any token."""
    drafting: DraftingConfig | None
    """null drafts nothing."""


class RewardsConfig(Strict):
    workers: Count
    """Processes that score."""
    deadline_s: Positive
    """Seconds for one document's completions; a worker that takes longer is killed and its scores are errors."""


class EvalConfig(Strict):
    every_steps: CountOrZero
    """0 evaluates only at the end (and at the start, with at_start)."""
    at_start: bool
    documents: Count | None
    """At most so many held-out documents; null takes all."""
    max_tokens: Count
    metric: Literal["reward", "documents_exact", "header_exact", "field_f1"]
    """Decides which checkpoint is the best one."""
    bootstrap: Annotated[int, Field(ge=100)]
    """Resamples of the documents for the 95 % intervals."""


class CheckpointConfig(Strict):
    every_steps: Count
    keep: Count
    """Newest checkpoints kept; the best one by eval.metric stays as well."""


class WandbConfig(Strict):
    enabled: bool
    project: Text
    group: Text | None
    """Runs of one comparison share it."""
    table_rows: Annotated[int, Field(ge=0, le=32)]
    """Completions in the table of a logged step."""
    timeout_s: Annotated[float, Field(gt=0, le=5)]
    """Longest wait for W&B's server before the mirror goes offline."""


class RecordConfig(Strict):
    rollouts: bool
    """Write each step's rollouts as parquet."""
    wandb: WandbConfig


class MonitorConfig(Strict):
    """When the hacking monitor warns; see rl/monitor.py."""

    enabled: bool
    window: Annotated[int, Field(ge=2)]
    """Steps: the first so many are the reference, the last so many are compared with it."""
    z: Positive
    """Standard errors that a fingerprint must have moved by."""
    reward_rise: NotNegative
    """The reward must have risen by so much as well."""
    effects: dict[str, float]
    """Fingerprint -> the smallest move that matters, its sign the bad direction; `entropy` is that of every field."""
    truth_fall: Positive
    """A held-out metric against gold must have fallen by so much, and its interval below the first one."""


class RubricConfig(Strict):
    """A rubric in place of the task's own: see RubricSpec in rewards/task.py. It cannot name a function."""

    gates: dict[Literal["parses", "schema"], Share]
    rewards: dict[str, NotNegative]
    abstain: Share


class LaunchConfig(Strict):
    kind: Literal["local", "torchrun"]
    processes: Count
    backend: Literal["auto", "gloo", "nccl"]
    timeout_s: Positive
    """Seconds after which a collective that a peer does not join is an error."""

    @model_validator(mode="after")
    def _local_is_one_process(self) -> "LaunchConfig":
        if self.kind == "local" and self.processes != 1:
            raise ValueError(f"processes={self.processes} needs launch=torchrun")
        return self


class TrainConfig(Strict):
    """Everything that decides a training run, by whichever method."""

    run: RunSettings
    task: Text
    """A name in configs/task, or the path of a task file."""
    rubric: RubricConfig | None
    """null: the task's own."""
    docs: DocsConfig
    model: ModelConfig
    method: MethodChoice
    lora: LoraConfig | None
    """null trains all weights."""
    optim: OptimConfig
    batch: BatchConfig
    sampler: SamplerConfig
    rewards: RewardsConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    record: RecordConfig
    monitor: MonitorConfig
    launch: LaunchConfig

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.sampler.max_tokens >= self.model.max_positions:
            raise ValueError(
                f"sampler.max_tokens={self.sampler.max_tokens} leaves no room for a prompt in "
                f"model.max_positions={self.model.max_positions}"
            )
        if self.optim.warmup_steps > self.run.steps:
            raise ValueError(f"optim.warmup_steps={self.optim.warmup_steps} is more than run.steps={self.run.steps}")
        if self.run.world_size != self.launch.processes:
            raise ValueError(f"run.world_size={self.run.world_size} but launch.processes={self.launch.processes}")
        if self.run.driver == "ahead" and self.method.kind not in REINFORCEMENT:
            raise ValueError(f"run.driver=ahead: method={self.method.kind} does not sample as it trains; use on_policy")
        return self


class RunConfig(TrainConfig):
    """A run of GRPO or one of its kin: rl/grpo.py."""

    method: MethodConfig

    @model_validator(mode="after")
    def _ahead_is_corrected(self) -> Self:
        if self.run.driver == "ahead":
            if self.method.tis_cap is None:
                raise ValueError("run.driver=ahead: the attempts are a version old; set method.tis_cap, such as 2.0")
            if self.run.world_size > 1:
                raise ValueError("run.driver=ahead: works in one process only; set launch=local")
        return self

    @model_validator(mode="after")
    def _sampler_speaks_of_the_policy(self) -> Self:
        if self.sampler.structured != "text" and self.method.tis_cap is not None:
            raise ValueError(
                f"sampler.structured={self.sampler.structured}: the sampler's log-probabilities are of the constrained "
                "policy, and method.tis_cap weighs by them; set method.tis_cap=null, or sampler.structured=text"
            )
        if self.sampler.drafting is not None and (self.run.driver == "ahead" or self.run.world_size > 1):
            raise ValueError("sampler.drafting: works with run.driver=on_policy in one process only; set it to null")
        return self


REINFORCEMENT = frozenset(get_args(MethodConfig.model_fields["kind"].annotation))
"""Kinds of method that rl/grpo.py trains."""


def config_of_run(kind: object) -> type[TrainConfig]:
    """The model of a run's configuration, by its method.kind."""
    return RunConfig if kind in REINFORCEMENT else TrainConfig


LATER_KEYS: dict[str, dict[str, JsonValue]] = {
    "run": {"driver": "on_policy"},
    "sampler": {"structured": "text", "drafting": None},
}
"""Keys that runs of earlier versions lack in their config.json, and what those runs did."""


def with_later_keys(values: Any) -> Any:
    """The values of a config.json, completed by LATER_KEYS."""
    if not isinstance(values, dict):
        return values
    later = {name: keys | values[name] for name, keys in LATER_KEYS.items() if isinstance(values.get(name), dict)}
    return values | later


def read_config(text: str | bytes) -> TrainConfig:
    """The configuration of a run from its JSON; a RunConfig where rl/grpo.py trains it. Raises ValidationError."""
    text = json.dumps(with_later_keys(json.loads(text)))
    config = TrainConfig.model_validate_json(text)
    return config_of_run(config.method.kind).model_validate_json(text)


class EvaluateConfig(Strict):
    """Everything that decides an evaluation on its own."""

    task: Text
    rubric: RubricConfig | None
    """null: the task's own."""
    docs: DocsConfig
    part: Literal["all", "train", "test"]
    """Which documents of `docs`: all, or one side of its split."""
    seen: Text | None
    """Training documents (JSONL), or a run, whose groups count as seen; null takes the run that made the model."""
    model: ModelConfig
    """model.path may also be a run's folder: its best checkpoint is taken."""
    sampler: SamplerConfig
    rewards: RewardsConfig
    documents: Count | None
    """At most so many documents; null takes all."""
    best_of: Count
    """Answers a document: the greedy one and so many less one at sampler.temperature. The best by the rubric, which
    reads no gold, is judged."""
    bootstrap: Annotated[int, Field(ge=100)]
    seed: Seed
    threads: Count | None
    output: Text | None
    """Write one JSON line a document here; null writes none."""
    baseline: Text | None
    """What another evaluation wrote to its `output`: the paired difference to it is shown, document by document."""


class PretrainConfig(Strict):
    """How the starter policy is made: a tokenizer and a Qwen3 of random weights, trained on synthetic documents."""

    out: Text
    """Folder of the model: tokenizer, bf16 safetensors and its log."""
    init: Text | None
    """Folder of a model to go on from (its tokenizer and shape are kept); null starts from random weights."""
    seed: Seed
    tasks: dict[str, Positive]
    """Share of each task's documents, by weight."""
    layouts: Literal["seen", "all"]
    """seen: the held-out layout families stay out."""
    vocabulary: Annotated[int, Field(ge=300, le=65536)]
    tokenizer_documents: Count
    layers: Count
    hidden: Count
    intermediate: Count
    heads: Count
    key_value_heads: Count
    max_positions: Count
    steps: Count
    minutes: Positive
    """Wall-clock budget: the schedule follows steps or minutes, whichever is further on."""
    tokens_per_step: Count
    pool_documents: Count
    """Documents drawn at once and sorted by length, so that batches have little padding."""
    short_first: Share
    """Share of the run over which the cap on a document's length grows from short_tokens to long_tokens."""
    short_tokens: Count
    long_tokens: Count
    muon_lr: Positive
    """Muon's rate for the hidden matrices (matched to AdamW's update size)."""
    adam_lr: Positive
    """AdamW's rate for embeddings and norms."""
    weight_decay: NotNegative
    warmup_steps: CountOrZero
    decay_share: Share
    """Last share of the run, over which the rates fall to 0."""
    max_grad_norm: Positive
    evaluate_every: Count
    evaluate_documents: Count
    save_every: Count
    threads: Count | None
