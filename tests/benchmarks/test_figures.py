"""Figures against their bars."""

from __future__ import annotations

from benchmarks.figures import Figure, bars_table, table

CPU = Figure("CPU", {"vedette": 0.6, "victoria-metrics": 1.0}, {"victoria-metrics": 0.5, "prometheus": 0.1})
SPEED = Figure("speed", {"vedette": 90.0}, limit=100.0, more_is_better=True)
BYTES = Figure("bytes", {"vedette": 1.0, "victoria-metrics": 2.0}, {"victoria-metrics": 0.5})


def test_a_bar_is_met_at_its_value_and_told_as_a_ratio_beyond_it() -> None:
    assert [each.outcome for each in CPU.verdicts()] == ["**1.20 x**"]
    assert [each.outcome for each in SPEED.verdicts()] == ["**0.90 x**"]
    assert [each.outcome for each in BYTES.verdicts()] == ["met"]


def test_the_last_table_has_a_row_a_bar_of_the_servers_that_were_there() -> None:
    lines = bars_table([("Ingestion", [CPU, BYTES]), ("Decode", [SPEED])]).splitlines()
    assert lines[2:5] == [
        "| Ingestion: CPU | 0.60 x victoria-metrics | at most 0.5 x victoria-metrics | **1.20 x** |",
        "| Ingestion: bytes | 0.50 x victoria-metrics | at most 0.5 x victoria-metrics | met |",
        "| Decode: speed | 90.00 | at least 100 | **0.90 x** |",
    ]
    assert lines[-1] == "1 of 3 bars met."


def test_a_figure_s_own_row_ends_in_its_bars() -> None:
    rows = table("t", ["vedette", "victoria-metrics"], [CPU]).splitlines()
    assert rows[-1] == "| CPU | 0.60 | 1.00 | 0.60 | at most 0.5 x victoria-metrics: **1.20 x** |"
