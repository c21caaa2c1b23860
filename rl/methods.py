"""The methods by name: how rewards become advantages, and which loss they enter."""

from dataclasses import dataclass

from torch import Tensor

from rl.advantages import AdvantageFunction, group_advantages, leave_one_out_advantages
from rl.batching import Batch
from rl.config import MethodConfig
from rl.losses import (
    LossFunction,
    LossInputs,
    Totals,
    cispo_loss,
    dapo_loss,
    dr_grpo_loss,
    grpo_loss,
    gspo_loss,
    rloo_loss,
)


@dataclass(frozen=True, slots=True)
class Method:
    """An advantage and a loss.

    Example:
        Method(advantage_function=group_advantages, loss_function=grpo_loss)
    """

    advantage_function: AdvantageFunction
    loss_function: LossFunction

    def advantage(self, rewards_PG: Tensor, config: MethodConfig) -> Tensor:
        """Rewards [P, G], NaN where there is none, to advantages [P, G]."""
        return self.advantage_function(rewards_PG, config.scale_rewards)

    def loss(
        self,
        logprobs_T: Tensor,
        batch: Batch,
        totals: Totals,
        config: MethodConfig,
        *,
        old_logprobs_T: Tensor | None = None,
        ref_logprobs_T: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of one micro-batch and its metrics; both add up over micro-batches and processes to those of the step.

        `totals` counts the whole step. `old_logprobs_T` is left out when the batch is used for one update only: the
        policy's own log-probabilities are the old ones then, and no second forward is needed.
        """
        inputs = LossInputs(
            logprobs_T=logprobs_T,
            old_logprobs_T=logprobs_T.detach() if old_logprobs_T is None else old_logprobs_T,
            advantages_N=batch.advantages_N,
            sequence_T=batch.sequence_T,
            mask_T=batch.mask_T,
            sampler_logprobs_T=batch.sampler_logprobs_T,
            ref_logprobs_T=ref_logprobs_T,
        )
        return self.loss_function(inputs, totals, config)


METHODS: dict[str, Method] = {
    "grpo": Method(group_advantages, grpo_loss),
    "dr_grpo": Method(group_advantages, dr_grpo_loss),
    "dapo": Method(group_advantages, dapo_loss),
    "gspo": Method(group_advantages, gspo_loss),
    "cispo": Method(group_advantages, cispo_loss),
    "rloo": Method(leave_one_out_advantages, rloo_loss),
}
