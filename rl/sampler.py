"""The sampler: vLLM in process behind a small adapter, on CPU and GPU. Token ids in, groups of rollouts out.

Seeds. Completion i of a document is drawn with seed `rollout_seed(run seed, step, document id) + i`: vLLM gives the
i-th of n completions its request's seed + i, so that `replay` can draw one completion of a group again, alone. With the
same weights and thread count a call repeats bit for bit. A completion drawn in another batch composition sees the same
random numbers, and differs only where the rounding of a larger or smaller matrix product turns a choice.

Log-probabilities. At temperature 1 they are vLLM's `raw_logprobs`, the log-softmax of the logits. At any other
temperature they are `processed_logprobs`, of the scaled logits, which is what the trainer computes too; with
speculative decoding that mode returns wrong numbers, so the two together are refused. So is top_p below 1: the trainer
does not renormalise over vLLM's nucleus. With a `structured` other than "text" they are of the constrained
distribution: vLLM masks the logits before it reads them.

Drafting. Completions drawn with drafts do not repeat bit for bit, and on the CPU only greedy ones are right: see
rl/drafting.py.
"""

import hashlib
import os
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rewards.errors import ConfigError, DataError, InfraError
from rl.config import SamplerConfig
from rl.constraint import Constraint
from rl.drafting import refuse_on_cpu
from rl.engine_arguments import check_engine_arguments, check_sampling
from rl.rollouts import FinishReason, Group, Rollout
from rl.weights import checkpoint_names, load_weights

Prompt: TypeAlias = tuple[str, Sequence[int]]
"""(document id, token ids of the prompt with the chat template applied)"""

CPU_ENGINE: Mapping[str, Any] = {
    "enforce_eager": True,  # compiling costs half a minute and gains nothing on a CPU
    "block_size": 32,  # the default of 128 makes every completion read up to 127 shared prompt tokens again
    "kv_cache_memory_bytes": 2**30,  # otherwise vLLM takes nearly all of the memory
}
"""Engine arguments for the CPU where the config names none."""


def rollout_seed(run_seed: int, step: int, document_id: str, sample: int = 0) -> int:
    """Seed of one completion, below 2**63."""
    key = f"{run_seed}/{step}/{document_id}".encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little") >> 2) + sample


def logprob_gap(sampler_logprobs: Sequence[float] | Tensor, trainer_logprobs: Sequence[float] | Tensor) -> float:
    """Mean absolute difference of two [T] log-probabilities of the same tokens, in nats; 0.0 for no tokens."""
    ours = torch.as_tensor(sampler_logprobs, dtype=torch.float64).detach().cpu()
    theirs = torch.as_tensor(trainer_logprobs, dtype=torch.float64).detach().cpu()
    if ours.shape != theirs.shape:
        raise ValueError(f"log-probabilities of {tuple(ours.shape)} and {tuple(theirs.shape)} tokens do not compare")
    return (ours - theirs).abs().mean().item() if ours.numel() else 0.0


TRAINER_TOO = 0.4
"""`gpu_share` beside a trainer: its weights, gradients, optimizer and activations need the rest."""


class Sampler:
    """vLLM's engine, the version of the policy it holds, and the tokenizer that turns completions into text."""

    def __init__(
        self,
        model_path: str | Path,
        config: SamplerConfig,
        *,
        max_model_len: int,
        dtype: Literal["float32", "bfloat16"],
        threads: int | None = None,
        seed: int = 0,
        constraint: Constraint | None = None,
        gpu_share: float = 0.9,
    ) -> None:
        """Start the engine (about 3 s on a CPU, after an import of 5 s). One engine a process.

        `threads`: torch threads while vLLM runs; None keeps the present number. `constraint`: what
        sampler.structured allows. `gpu_share`: of the GPU's memory, where the engine's own arguments do not say. Raises
        ConfigError for engine arguments and sampling settings that cannot work, InfraError when the engine does not
        start.
        """
        check_engine_arguments(config.engine)
        check_sampling(config)
        self.config = config
        self.max_model_len = max_model_len
        self.model_path = model_path
        self.version = 0
        self.threads = threads or torch.get_num_threads()
        self.drafting = config.drafting is not None
        self._constraint = constraint
        self._dtype, self._seed, self._gpu_share = dtype, seed, gpu_share
        self._expected_names = checkpoint_names(model_path)
        self._start()

    def _start(self) -> None:
        config = self.config
        # One process, so that weights are handed over in memory and nothing but OUR logs speaks.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        on_cpu = not torch.cuda.is_available()
        drafting = self.drafting or "speculative_config" in config.engine
        self._own_noise = on_cpu and config.temperature == 1 and not drafting
        engine: dict[str, Any] = {"enable_prefix_caching": True, "use_tqdm_on_load": False}
        if on_cpu:
            engine |= CPU_ENGINE
            if not self._own_noise:
                # vLLM's per-request generators break on a half-read prompt: "CPU Generator does not use offset".
                engine["enable_chunked_prefill"] = False
        else:
            engine["gpu_memory_utilization"] = self._gpu_share
        engine |= config.engine
        if self.drafting and config.drafting is not None:
            engine["speculative_config"] = {
                "method": "ngram",
                "num_speculative_tokens": config.drafting.tokens,
                "prompt_lookup_min": config.drafting.shortest,
                "prompt_lookup_max": config.drafting.longest,
            }
        self._eager = on_cpu and bool(engine["enforce_eager"])
        engine["logprobs_mode"] = "raw_logprobs" if config.temperature == 1 else "processed_logprobs"
        self._owns_process_group = not torch.distributed.is_initialized()
        with self._vllm():
            try:
                from vllm import LLM

                if self._own_noise:
                    from rl.sampling_noise import SeededSampling

                    engine["logits_processors"] = [SeededSampling]
                self._llm: Any = LLM(
                    str(self.model_path),
                    dtype=self._dtype,
                    max_model_len=self.max_model_len,
                    seed=self._seed,
                    **engine,
                )
            except ImportError as error:
                raise InfraError(f"vllm cannot be imported ({_first_line(error)}): run bash launch/setup.sh") from error
            except (ValueError, TypeError) as error:
                raise ConfigError(f"sampler.engine: vLLM refuses its arguments: {_first_line(error)}") from error
            except RuntimeError as error:
                raise InfraError(f"vLLM does not start: {_first_line(error)}") from error
            self.tokenizer: Any = self._llm.get_tokenizer()

    def rollout(self, prompts: Sequence[Prompt], group_size: int, *, run_seed: int, step: int) -> list[Group]:
        """`group_size` completions of each prompt, in the order of the prompts, stamped with the policy's version.

        Raises DataError for a prompt that leaves no room for sampler.max_tokens.
        """
        if self.drafting:
            refuse_on_cpu("this")
        seeds = [rollout_seed(run_seed, step, document_id) for document_id, _ in prompts]
        params = [self._seeded(prompt[0], seed, group_size) for prompt, seed in zip(prompts, seeds, strict=True)]
        drawn = self._generate(prompts, params, seeds)
        return [
            Group(document_id, tuple(prompt_ids), rollouts)
            for (document_id, prompt_ids), rollouts in zip(prompts, drawn, strict=True)
        ]

    def replay(self, prompt: Prompt, sample: int, *, run_seed: int, step: int) -> Rollout:
        """Completion `sample` of a document's group once more, alone; the weights must be those of the first time."""
        seed = rollout_seed(run_seed, step, prompt[0], sample)
        return self._generate([prompt], [self._seeded(prompt[0], seed, 1)], [seed])[0][0]

    def greedy(self, prompts: Sequence[Prompt], max_tokens: int) -> list[Rollout]:
        """The most likely completion of each prompt, token by token, with its log-probabilities at temperature 1."""
        params = [self._params(document_id, max_tokens, temperature=0.0) for document_id, _ in prompts]
        return [rollouts[0] for rollouts in self._generate(prompts, params, [0] * len(prompts))]

    def bare_generate(self, prompts: Sequence[Prompt], group_size: int) -> tuple[int, float]:
        """(tokens, seconds) of vLLM alone on these prompts, as one would call it without this class: for the bench."""
        from vllm import SamplingParams

        inputs = [{"prompt_token_ids": list(ids)} for _, ids in prompts]
        params = SamplingParams(n=group_size, temperature=self.config.temperature, max_tokens=self.config.max_tokens)
        with self._vllm(eager=False):
            self._llm.reset_prefix_cache()
            start = time.perf_counter()
            outputs = self._llm.generate(inputs, params, use_tqdm=False)
            seconds = time.perf_counter() - start
        return sum(len(completion.token_ids) for output in outputs for completion in output.outputs), seconds

    def load(self, named_tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Replace the weights, all tensors in one call, and stamp rollouts with `version` from here on."""
        with self._vllm():
            load_weights(self._llm, named_tensors, self._expected_names)
        self.version = version

    def stop_drafting(self) -> None:
        """Start another engine, without drafts and with the weights of the model's folder: load the policy again."""
        self.close()
        self.drafting = False
        self._start()

    def close(self) -> None:
        """Shut the engine down and free its memory. Closing twice is allowed.

        vLLM's shutdown destroys torch's process group, also one that it found: under torchrun, where that is the
        trainer's, the engine stays and ends with the process.
        """
        if self._llm is None or not self._owns_process_group:
            return
        from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

        llm, self._llm = self._llm, None
        with self._vllm():
            llm.llm_engine.engine_core.shutdown()
            destroy_model_parallel()
            destroy_distributed_environment()

    def _generate(
        self, prompts: Sequence[Prompt], params: Sequence[Any], seeds: Sequence[int]
    ) -> list[tuple[Rollout, ...]]:
        for (document_id, prompt_ids), param in zip(prompts, params, strict=True):
            if not prompt_ids or len(prompt_ids) + param.max_tokens > self.max_model_len:
                raise DataError(
                    f"document {document_id}: {len(prompt_ids)} prompt tokens and {param.max_tokens} to complete do "
                    f"not fit model.max_positions={self.max_model_len}; leave it out or lower sampler.max_tokens"
                )
        # Longest first: a long prompt that starts last would decode alone at the end. A stable sort repeats.
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i][1]))
        inputs = [{"prompt_token_ids": list(prompts[i][1])} for i in order]
        with self._vllm():
            # What an evaluation left in the cache must not decide how these prompts are read: a resumed run has none.
            self._llm.reset_prefix_cache()
            try:
                outputs = self._llm.generate(inputs, [params[i] for i in order], use_tqdm=False)
            except Exception as error:
                if self._constraint is not None and "grammar" in str(error).lower():
                    structured = self.config.structured
                    raise ConfigError(
                        f"sampler.structured={structured}: vLLM refuses it: {_first_line(error)}"
                    ) from error
                if self.drafting:  # its kernels depend on what else is installed
                    raise ConfigError(f"sampler.drafting: vLLM cannot draft here: {_first_line(error)}") from error
                raise
            texts = iter(self._decode([completion for output in outputs for completion in output.outputs]))
        drawn: list[tuple[Rollout, ...]] = [()] * len(prompts)
        for i, output in zip(order, outputs, strict=True):
            drawn[i] = tuple(
                Rollout(
                    document_id=prompts[i][0],
                    completion_ids=tuple(completion.token_ids),
                    sampler_logprobs=tuple(completion.logprobs.logprobs),
                    text=next(texts),
                    finish_reason=_finish_reason(prompts[i][0], completion),
                    policy_version=self.version,
                    seed=seeds[i] + completion.index,
                )
                for completion in output.outputs
            )
        return drawn

    def _decode(self, completions: Sequence[Any]) -> list[str]:
        """Special tokens are left out, as `vllm serve` does."""
        ids = [list(completion.token_ids) for completion in completions]
        if not ids:
            return []
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        texts: list[str] = self.tokenizer.batch_decode(ids, **options)
        return texts

    def _params(self, document_id: str, max_tokens: int, **kwargs: Any) -> Any:
        from vllm import SamplingParams

        if self._constraint is not None:
            from vllm.sampling_params import StructuredOutputsParams

            kwargs["structured_outputs"] = StructuredOutputsParams(**self._constraint(document_id))
        # logprobs=0 is the drawn token alone; flat_logprobs spares an object a token; decoding at the end is cheaper.
        return SamplingParams(max_tokens=max_tokens, logprobs=0, flat_logprobs=True, detokenize=False, **kwargs)

    def _seeded(self, document_id: str, seed: int, n: int) -> Any:
        params = self._params(document_id, self.config.max_tokens, n=n, seed=seed, temperature=self.config.temperature)
        if self._own_noise:
            # Greedy over logits in which SeededSampling has marked the drawn token. vLLM forbids n > 1 for greedy
            # requests, whose completions would be equal; these are not, so this comes after the check, and skip_clone
            # keeps vLLM from building the parameters, and checking, once more.
            params.temperature = 0.0
            params.skip_clone = True
        return params

    @contextmanager
    def _vllm(self, eager: bool = True) -> Iterator[None]:
        """vLLM replaces torch.set_num_threads, changes the thread count, draws from the global generators: undo it."""
        set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
        python_state, numpy_state = random.getstate(), np.random.get_state()
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        # vLLM compiles small helpers even when told to be eager: 3 to 10 s at the first token, and a crash without g++.
        stance: AbstractContextManager[object] = nullcontext()
        if self._eager and eager:
            stance = torch.compiler.set_stance("force_eager")
        with torch.random.fork_rng(devices=devices), stance:
            try:
                set_num_threads(self.threads)
                yield
            finally:
                torch.set_num_threads = set_num_threads
                set_num_threads(threads)
                random.setstate(python_state)
                np.random.set_state(numpy_state)


def _finish_reason(document_id: str, completion: Any) -> FinishReason:
    reason: str | None = completion.finish_reason
    if reason == "stop":
        return "stop"
    if reason == "length":
        return "length"
    raise InfraError(f"document {document_id}: vLLM ended a completion with {reason!r}; look for its error above")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic's first line only counts the faults; the reason stands in the third.
    return (": ".join(lines[1:3]) if "validation error" in lines[0] else lines[0]) if lines else type(error).__name__
