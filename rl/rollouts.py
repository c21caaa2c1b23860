"""Rollouts and groups: what the sampler hands to the trainer, as frozen plain data."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion of one document.

    Example:
        Rollout(
            document_id="receipt-0007",
            completion_ids=(90, 17, 233, 2),        # ends with EOS because finish_reason is "stop"
            sampler_logprobs=(-0.01, -0.3, -0.02, 0.0),
            text='{"total":"12.50"}',
            finish_reason="stop",
            policy_version=3,
            seed=1234,
        )
    """

    document_id: str
    """Id of the document that was extracted."""
    completion_ids: tuple[int, ...]
    """[R] token ids the sampler drew; the final EOS included when finish_reason is "stop"."""
    sampler_logprobs: tuple[float, ...]
    """[R] log-probability of each drawn token under the sampler, in nats."""
    text: str
    """The completion decoded, special tokens left out."""
    finish_reason: FinishReason
    """"stop": the policy ended it. "length": the token limit cut it."""
    policy_version: int
    """Number of updates the sampler's weights had seen."""
    seed: int
    """Seed this completion was drawn with."""

    def __post_init__(self) -> None:
        if len(self.completion_ids) != len(self.sampler_logprobs):
            raise ValueError(
                f"rollout of {self.document_id}: {len(self.completion_ids)} tokens but "
                f"{len(self.sampler_logprobs)} sampler log-probabilities"
            )

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Group:
    """The G rollouts of one document, and the prompt they share.

    Example:
        Group(document_id="receipt-0007", prompt_ids=(1, 5, 9, 2), rollouts=(rollout_1, rollout_2))
    """

    document_id: str
    """Id of the document; the same in every rollout."""
    prompt_ids: tuple[int, ...]
    """[P] token ids of the prompt, chat template applied."""
    rollouts: tuple[Rollout, ...]
    """[G] completions of that prompt."""

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError(f"group of {self.document_id}: the prompt has no tokens")
        if not self.rollouts:
            raise ValueError(f"group of {self.document_id}: no rollouts")

    @property
    def num_tokens(self) -> int:
        """Distinct tokens: the prompt once, then every completion."""
        return len(self.prompt_ids) + sum(len(rollout.completion_ids) for rollout in self.rollouts)
