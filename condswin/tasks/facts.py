"""What is known of a task without loading what it computes with."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from condswin.config.names import TaskName
from condswin.tasks.loading import Part

#: Scores of one case: `case`, text columns such as `acquisition` and `assumed` (sentences, "; " between), and numbers.
Row = dict[str, float | str]


class Facts(Part):
    """Names and directions of a task's scores."""

    name: ClassVar[TaskName]
    #: Metric columns of a row in display order, first the primary one; and whether a higher value is better.
    metrics: ClassVar[Mapping[str, bool]]
    #: Further columns of a row that are summarised where rows have them, but not shown in tables of variants.
    details: ClassVar[tuple[str, ...]] = ()
    #: Prefix of a row's columns that belong to a reference method: "zero-filled" -> "zero_filled_".
    baselines: ClassVar[Mapping[str, str]] = {}
    #: Reference method that the step `baseline` evaluates; empty where a task has none.
    reference_method: ClassVar[str] = ""
    #: Further columns that a gate may name, and whether a higher value is better.
    further: ClassVar[Mapping[str, bool]] = {}
    #: Of these, what a reader must see beside the metrics.
    beside: ClassVar[tuple[str, ...]] = ()
    #: What reference methods do, in sentences, by name.
    methods: ClassVar[Mapping[str, str]] = {}
    #: Details whose mean over the test cases may not exceed a bound for a model to become champion, whatever the gate.
    ceilings: ClassVar[Mapping[str, float]] = {}
    #: Columns that describe a case: `str` or `float`.
    traits: ClassVar[Mapping[str, type]] = {}
    #: Least and largest value that a column can have, which intervals of few patients need not heed.
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    #: What scans are made by: "MRI".
    modality: ClassVar[str] = ""
    #: Columns' names for people, and what they mean in a sentence.
    terms: ClassVar[Mapping[str, tuple[str, str]]] = {}
    #: Prefix of the columns that tell scores before post-processing; empty where there is none.
    before: ClassVar[str] = ""
    #: How `demo-data` generates the task's data, in a sentence.
    demo: ClassVar[str] = ""
    #: Units of columns; those without one have none.
    units: ClassVar[Mapping[str, str]] = {}

    @property
    @abstractmethod
    def monitor(self) -> tuple[str, bool]:
        """Score logged during validation that picks the best epoch, and whether a higher value is better."""

    @classmethod
    def called(cls, column: str) -> str:
        """A column's name for people."""
        if column not in cls.terms and cls.before and column.startswith(cls.before):
            return f"{cls.called(column.removeprefix(cls.before))} before post-processing"
        return cls.terms.get(column, (column.replace("_", " "), ""))[0]

    @classmethod
    def meaning(cls, column: str) -> str:
        """What a column means, in a sentence; empty if its name says it."""
        return cls.terms.get(column, ("", ""))[1]
