"""The configuration of a comparison: types, ranges and units, as rl/config.py has them for a run. Imports no torch."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from rl.config import Count, DocsConfig, Name, NotNegative, Positive, Seed, Share, Strict, Text

MethodName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\+[a-z0-9_]+)*(@([2-9]|[1-9][0-9]+))?$")]
Override: TypeAlias = Annotated[str, Field(pattern=r"^[~+]{0,2}[A-Za-z_][\w./@]*(=.*)?$")]


class Budget(Strict):
    """What the methods get alike."""

    kind: Literal["documents", "update_tokens", "seconds"]
    """documents: the same documents, and each method its own number of updates; the others stop all of them alike."""
    amount: Positive | None
    """Tokens through updates, or seconds of training, of a whole method (a chain shares it); null: documents."""

    @model_validator(mode="after")
    def _amount(self) -> "Budget":
        if (self.kind == "documents") != (self.amount is None):
            raise ValueError(
                f"amount={self.amount}: kind={self.kind} " + ("takes none" if self.amount else "needs one")
            )
        return self


class Prices(Strict):
    """Money, in one currency of your choice."""

    currency: Text
    human_label: NotNegative
    """One document labelled by a person."""
    teacher_prompt: NotNegative
    """A million prompt tokens of the teacher."""
    teacher_completion: NotNegative
    """A million completion tokens of the teacher."""
    teacher_prompt_overhead: NotNegative
    """Tokens of instructions that each call of the teacher carries beside the document."""
    characters_per_token: Positive
    """To reckon a recorded teacher's tokens from its texts."""
    machine_hour: NotNegative
    """An hour of the machine that trains."""


class Teacher(Strict):
    name: Text
    """Who it is; its row in the tables is `teacher`."""
    traces: tuple[Text, ...]
    """JSONL files of its recorded answers, those to test documents too: its own row; see envs/documents.py. None: no
    teacher."""
    label: tuple[Override, ...]
    """Overrides of `offramp label` that let it answer all documents first; none where it has answered."""


class Launcher(Strict):
    kind: Literal["local", "submitit", "script", "none"]
    """local: child processes here; submitit: a job array on a cluster; script: only write the jobs' command lines;
    none: only report on the jobs that are done."""
    parallel: Count
    """local: jobs at a time."""
    retries: Annotated[int, Field(ge=0, le=10)]
    """local: how often a failed job is started again."""
    parameters: dict[str, str | int | float | bool]
    """submitit: arguments of AutoExecutor.update_parameters, such as slurm_partition and timeout_min."""


class CompareConfig(Strict):
    """Everything that decides a comparison."""

    name: Name
    dir: Text
    jobs: Text
    """Folder of the jobs; comparisons that share it share the jobs that are the same in both."""
    task: Text
    docs: DocsConfig
    """Training documents, and the test documents (docs.test_path, or the held-out share) that only the end sees."""
    select_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Share of the training documents, by group, on which each run picks its best policy; same for all methods."""
    select_documents: Count
    """At most so many of them."""
    starter: Text
    """The policy from which all methods start: a folder, a hub name, or a choice of configs/model."""
    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)]
    """Choices of configs/method; a+b trains b from the best of a; a@8 answers with the best of 8 by the rubric."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    documents: Annotated[tuple[Count | None, ...], Field(min_length=1)]
    """Numbers of training documents: a learning curve; null is all of them."""
    baseline: Text
    """The row from which differences are taken: starter, teacher, or a method."""
    metric: Text
    """The metric that decides which method won; the higher the better."""
    train: tuple[Override, ...]
    """Overrides of `offramp train` for every job."""
    recipes: dict[str, tuple[Override, ...]]
    """Overrides for one method's stage; the key distill+grpo is for grpo after distill."""
    evaluate: tuple[Override, ...]
    """Overrides of `offramp evaluate` for every job."""
    teacher: Teacher
    budget: Budget
    prices: Prices
    launcher: Launcher
    bootstrap: Annotated[int, Field(ge=100)]
    wandb: bool
    """Show the table and the plots in W&B too, as one group with the runs."""


class AdviseConfig(Strict):
    """What a user knows of a workload: prices, volume, documents at hand; and what was measured."""

    volume: Positive
    """Documents a month."""
    months: Positive
    """How long the investment has to pay off."""
    price_a_call: NotNegative
    """Of the frontier model, a document."""
    label_cost: NotNegative
    """A document labelled by a person."""
    labels: Annotated[int, Field(ge=0)]
    """Documents that have human labels already."""
    traces: Annotated[int, Field(ge=0)]
    """Documents that have recorded answers of the frontier model."""
    documents: Annotated[int, Field(ge=0)]
    """Documents at hand, labelled or not."""
    privacy: Literal["may_leave", "must_stay"]
    """Whether documents may be sent to a provider."""
    traces_may_train: bool
    """Whether the provider's terms allow training on its answers."""
    drift: Share
    """Share of the layouts that change in a year."""
    checkable: bool
    """Whether a task file can check an answer without gold: sums that close, values printed in the document."""
    target: Share
    """The quality that a served model must have, in the comparison's metric."""
    fallback: Share
    """Share of documents that a served model hands to the frontier model or to people."""
    machine_hour: NotNegative
    documents_per_hour: Positive
    """That one machine serves."""
    setup_hours: NotNegative
    """Of people, to bring a model into service."""
    hour: NotNegative
    """Price of such an hour."""
    comparison: Text | None
    """Folder or summary.json of `offramp compare`; null goes by the rules alone."""
