"""Rows in the bins of a baseline."""

import numpy as np
import pytest
from drifts import (
    SCHEMA,
    baseline_of_people,
    document_of,
    rows_of_people,
    scores_of,
    tally_of,
    values_of,
)

from service.drift.bins import FIXED, Bins


def test_the_reference_is_what_its_own_rows_would_have_been_counted_as() -> None:
    rows = rows_of_people(3000, 4)
    document = document_of(rows, values_of(rows))
    bins = Bins.of(SCHEMA, document)
    tally = bins.empty()
    bins.count(rows, scores_of(rows), tally)
    bins.count_values(values_of(rows), tally)
    reference = bins.reference(document)
    for one in bins.attributed:  # each summand is rounded to a step
        assert np.abs(reference[one.sums] - tally[one.sums]).max() <= len(rows)
        reference[one.sums] = tally[one.sums]
    assert reference.tolist() == tally.tolist()


def test_every_row_is_in_one_cell_of_each_column() -> None:
    baseline = baseline_of_people()
    rows = rows_of_people(700, 1)
    rows[:20, 2], rows[20:30, 2] = -1.0, np.nan
    tally = tally_of(baseline, rows)
    for cells in baseline.bins.columns:
        assert cells.all(tally).sum() == 700
    age, _, site, smoker = baseline.bins.columns
    assert tally[age.start] == np.isnan(rows[:, 0]).sum()
    assert site.unseen(tally) == 20
    assert tally[site.start] == 10
    assert cells_of(smoker.ordered(tally)) == [int(700 - rows[:, 3].sum()), int(rows[:, 3].sum())]


def cells_of(counts: np.ndarray) -> list[int]:
    return [int(count) for count in counts]


def test_numbers_outside_what_was_seen_are_counted_in_their_bins_and_apart() -> None:
    baseline = baseline_of_people()
    rows = rows_of_people(100, 1)
    rows[:7, 1], rows[7:10, 1] = 1000.0, -1000.0
    tally = tally_of(baseline, rows)
    visits = baseline.bins.columns[1]
    assert visits.outside(tally) == 10
    assert visits.all(tally).sum() == 100


def test_sums_of_values_are_shares_of_their_row_and_a_row_of_zeros_has_none() -> None:
    baseline = baseline_of_people()
    values = np.zeros((3, 4, 1))
    values[0, :, 0], values[1, :, 0] = [1, 1, 1, 1], [-3, 1, 0, 0]
    tally = baseline.bins.empty()
    baseline.bins.count_values(values, tally)
    shares = [int(tally[one.sums][0]) / FIXED for one in baseline.bins.attributed]
    assert shares == [1.0, 0.5, 0.25, 0.25]
    squares = [int(tally[one.sums][1]) / FIXED for one in baseline.bins.attributed]
    assert squares == [0.0625 + 0.5625, 0.125, 0.0625, 0.0625]


def test_a_value_beyond_measure_does_not_overflow_its_sum() -> None:
    baseline = baseline_of_people()
    tally = baseline.bins.empty()
    for _ in range(3):
        baseline.bins.count_values(np.full((1000, 4, 1), 1e300), tally)
    assert all(int(tally[one.sums][0]) > 0 for one in baseline.bins.attributed)


def test_without_attributions_in_the_baseline_none_are_counted() -> None:
    rows = rows_of_people(1000)
    bins = Bins.of(SCHEMA, document_of(rows))
    tally = bins.empty()
    bins.count_values(values_of(rows), tally)
    assert not tally.any()
    older = document_of(rows)
    del older["attributions"]
    assert Bins.of(SCHEMA, older).size == bins.size


def test_a_column_of_which_nothing_was_known_has_one_bin() -> None:
    rows = rows_of_people(1000)
    rows[:, 0] = np.nan
    bins = Bins.of(SCHEMA, document_of(rows))
    tally = bins.empty()
    bins.count(rows_of_people(100), scores_of(rows_of_people(100)), tally)
    assert bins.columns[0].all(tally).sum() == 100
    reference = bins.reference(document_of(rows))
    assert bins.columns[0].all(reference).tolist() == [1000, 0]


def test_another_models_baseline_is_refused() -> None:
    document = document_of(rows_of_people(100))
    del document["columns"]["age"]
    with pytest.raises(KeyError):
        Bins.of(SCHEMA, document)
