"""Packing: what stands where, budgets, masks, denominators."""

import pytest
import torch

from rl.batching import (
    batches,
    completion_tree,
    drop_without_spread,
    make_batch,
    packed_tokens,
    plain_tokens,
    totals,
)
from rl.losses import Totals
from rl.prefix_layout import GroupSpan
from rl.rollouts import Group, Rollout


def rollout(ids: tuple[int, ...], finish_reason: str = "stop", logprob: float = -1.0) -> Rollout:
    return Rollout("d", ids, tuple(logprob - place for place in range(len(ids))), "", finish_reason, 0, 0)  # type: ignore[arg-type]


def group(prompt: tuple[int, ...], *completions: tuple[int, ...]) -> Group:
    return Group("d", prompt, tuple(rollout(ids) for ids in completions))


def test_layout_of_two_groups() -> None:
    groups = [group((5, 6), (7, 8, 2), (9, 2)), group((3,), (4, 2), (2,))]
    batch = make_batch(groups, torch.tensor([[1.0, -1.0], [0.5, -0.5]]))
    assert batch.input_ids_S.tolist() == [5, 6, 7, 8, 9, 3, 4]
    assert batch.position_ids_S.tolist() == [0, 1, 2, 3, 2, 0, 1]
    assert batch.target_T.tolist() == [7, 8, 2, 9, 2, 4, 2, 2]
    assert batch.predictor_T.tolist() == [1, 2, 3, 1, 4, 5, 6, 5]
    assert batch.sequence_T.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert batch.advantages_N.tolist() == [1.0, -1.0, 0.5, -0.5]
    assert batch.sampler_logprobs_T.tolist() == [-1.0, -2.0, -3.0, -1.0, -2.0, -1.0, -2.0, -1.0]
    assert batch.layout.spans == (GroupSpan(0, 2, 3, 2), GroupSpan(5, 1, 1, 1))
    # The tail of a row repeats its last place; a completion of one token has no input and no row.
    assert batch.layout.path_NR.tolist() == [[2, 3], [4, 4], [6, 6]]
    assert batch.layout.choice_C.tolist() == [0, 1, 2, 4]
    assert batch.layout.place_C.tolist() == [2, 3, 4, 6]


def test_common_beginnings_are_packed_once_and_scored_for_each() -> None:
    # The second completion is the first again, the third leaves it after 8, the fourth is its beginning.
    tree = group((5, 6), (7, 8, 9, 2), (7, 8, 9, 2), (7, 8, 4, 4, 2), (7, 8))
    assert completion_tree(tree).tokens == (7, 8, 9, 4, 4)
    assert completion_tree(tree).depths == (0, 1, 2, 2, 3)
    assert completion_tree(tree).paths == ((0, 1, 2), (0, 1, 2), (0, 1, 3, 4), (0,))
    batch = make_batch([tree], torch.tensor([[1.0, 1.0, -2.0, 0.5]]))
    assert batch.input_ids_S.tolist() == [5, 6, 7, 8, 9, 4, 4]
    assert batch.position_ids_S.tolist() == [0, 1, 2, 3, 4, 4, 5]
    assert batch.predictor_T.tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 5, 6, 1, 2]
    assert batch.target_T.tolist() == [7, 8, 9, 2, 7, 8, 9, 2, 7, 8, 4, 4, 2, 7, 8]
    assert batch.sequence_T.tolist() == [0] * 4 + [1] * 4 + [2] * 5 + [3] * 2
    assert batch.layout.spans == (GroupSpan(0, 2, 5, 2),)
    assert batch.layout.path_NR.tolist() == [[2, 3, 4, 4], [2, 3, 5, 6]]
    assert batch.layout.choice_C.tolist() == [0, 1, 2, 6, 7]
    assert batch.layout.place_C.tolist() == [2, 3, 4, 5, 6]
    # Plain rows hold 5, 5, 6 and 3 tokens, against 7.
    assert batch.token_ratio == pytest.approx(19 / 7)


def test_whole_groups_by_token_budget_in_order() -> None:
    groups = [group(tuple(range(10, 10 + length)), (7, 8, 2), (9, 2)) for length in (4, 5, 20, 3, 3)]
    assert [packed_tokens(item) for item in groups] == [7, 8, 23, 6, 6]
    assert [plain_tokens(item) for item in groups] == [11, 13, 43, 9, 9]
    advantages_PG = torch.arange(10.0).reshape(5, 2)
    made = batches(groups, advantages_PG, 15)
    assert [len(batch.groups) for batch in made] == [2, 1, 2]
    assert [batch.num_tokens for batch in made] == [15, 23, 12]
    assert torch.cat([batch.advantages_N for batch in made]).tolist() == list(range(10))
    assert [len(batch.groups) for batch in batches(groups, advantages_PG, 24, attention="plain")] == [2, 1, 2]
    assert batches([], advantages_PG[:0], 15) == []
    with pytest.raises(ValueError, match="5 groups"):
        batches(groups, advantages_PG[:4], 15)


def test_truncated_completions_masked_or_scored() -> None:
    cut = Group("d", (5, 6), (rollout((7, 8, 9), "length"), rollout((9, 2))))
    advantages_PG = torch.tensor([[1.0, -1.0]])
    assert make_batch([cut], advantages_PG, "mask").mask_T.tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert make_batch([cut], advantages_PG, "score").mask_T.tolist() == [1.0] * 5
    assert totals([cut, cut], "mask") == Totals(tokens=4, sequences=2)
    assert totals([cut, cut], "score") == Totals(tokens=10, sequences=4)


def test_groups_without_spread_are_dropped_and_counted() -> None:
    groups = [group((5,), (7, 2), (8, 2)), group((6,), (7, 2), (8, 2))]
    rewards_PG = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    kept, advantages_PG, dropped = drop_without_spread(groups, rewards_PG, torch.tensor([[0.0, 0.0], [-1.0, 1.0]]))
    assert kept == [groups[1]] and advantages_PG.tolist() == [[-1.0, 1.0]] and dropped == 1


def test_rollout_and_group_refuse_nonsense() -> None:
    with pytest.raises(ValueError, match="2 tokens but 1 sampler"):
        Rollout("d", (1, 2), (-1.0,), "", "stop", 0, 0)
    with pytest.raises(ValueError, match="no tokens"):
        Group("d", (), (rollout((2,)),))
    with pytest.raises(ValueError, match="no rollouts"):
        Group("d", (1,), ())
