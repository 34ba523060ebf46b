"""PromQL kernels that the random queries do not reach, and the test that holds each against its slow twin.

All other kernels are compared with the slow interpreter by the fuzz itself (`test_fuzz.py`).
"""

from __future__ import annotations

_EXTENDED, _RENDER = "tests/promql/test_extended.py", "tests/web/test_render.py"
_ROLLUPS, _QUANTILE = "tests/promql/test_rollups.py", "tests/promql/test_quantile.py"
_ARITHMETIC, _MATRIX = "tests/promql/test_histogramarith.py", "a_matrix_with_gaps_and_histograms_is_rendered"

OWN_TESTS: dict[str, tuple[str, str]] = {
    "aggregate.count_present": (
        "tests/promql/test_heldsamples.py",
        "cells_with_a_float_are_counted_as_one_by_one",
    ),
    "binary.compare_scalars": ("tests/promql/test_binary.py", "comparison_of_scalars_equals_python"),
    "histogram.fractions": (_QUANTILE, "native_quantile_fraction_and_variance_agree_with_the_slow_twin"),
    "histogramarith.add_pairs": (_ARITHMETIC, "sums_and_differences_of_pairs_agree_with_the_slow_twin"),
    "labelhash.hash_rows": ("tests/promql/test_labelhash.py", "rows_hash_as_the_library_hashes_their_bytes"),
    "render.count_points": (_RENDER, _MATRIX),
    "render.render_histograms": (_RENDER, _MATRIX),
    "render.render_labels": (_RENDER, _MATRIX),
    "render.render_rows": (_RENDER, _MATRIX),
    "render.render_times": (_RENDER, "timestamps_have_three_decimals_or_none"),
    "rollup.extrapolated": (_ROLLUPS, "aligned_windows_give_what_full_resolution_gives"),
    "rollup.latest_index_at": (_ROLLUPS, "an_instant_selector_looks_back_from_the_moved_time"),
    "starttimes.extrapolated": (_EXTENDED, "rate_with_start_timestamps_equals_its_twin"),
    "starttimes.instant_rate": (_EXTENDED, "rate_with_start_timestamps_equals_its_twin"),
    "starttimes.resets": (_EXTENDED, "rate_with_start_timestamps_equals_its_twin"),
}
"""By name below promql.kernels: file and name of the test."""
