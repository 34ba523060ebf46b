"""For each kernel the test that holds it against its slow twin.

`tests/conftest.py` records what runs in each of these tests: one that does not call its kernel and its
reference fails. `tests/test_twins.py` fails where a kernel is missing. Kernels of promql that are not here
are those that the random queries of `tests/fuzz/test_fuzz.py` reach, where `tests.reference.interpreter` is
the twin; that test records them too.
"""

from __future__ import annotations

from typing import NamedTuple


class Twin(NamedTuple):
    """A test's node id (with the id of a parameter where only that one calls the kernel), and the dotted
    name of what it compares with: a function or class under tests, or what behaves alike elsewhere."""

    test: str
    reference: str


_SLOW = "tests.reference"
_DICT, _LIST, _BYTES = "builtins.dict", "builtins.list", "builtins.bytes"

_DECLARED: tuple[tuple[str, str, str, str], ...] = (
    (
        "agent.kernels",
        "btf.type_starts",
        "agent/test_btf.py::test_the_walk_agrees_with_its_slow_twin",
        f"{_SLOW}.btf.type_starts",
    ),
    (
        "agent.kernels",
        "intern.intern",
        "agent/test_interning.py::test_equal_keys_have_equal_codes",
        f"{_SLOW}.intern.intern",
    ),
    (
        "agent.kernels",
        "ring.scan",
        "agent/test_ring.py::test_scan_agrees_with_its_slow_twin",
        f"{_SLOW}.ring.scan",
    ),
    (
        "agent.kernels",
        "ring.split",
        "agent/test_ring.py::test_fields_agree_with_the_slow_twin",
        f"{_SLOW}.ring.fields",
    ),
    (
        "ingest.kernels",
        "exposition.scan",
        "ingest/test_text.py::test_the_kernel_reads_as_the_slow_twin",
        f"{_SLOW}.exposition.read",
    ),
    (
        "ingest.kernels",
        "remotewrite.decode_v1",
        "ingest/test_remotewrite_decode.py::test_kernel_agrees_with_twin_on_damaged_messages[1]",
        f"{_SLOW}.remotewrite.decode_v1",
    ),
    (
        "ingest.kernels",
        "remotewrite2.decode_v2",
        "ingest/test_remotewrite_decode.py::test_kernel_agrees_with_twin_on_damaged_messages[2]",
        f"{_SLOW}.remotewrite.decode_v2",
    ),
    (
        "ingest.kernels",
        "seriescache.insert seriescache.lookup seriescache.observe",
        "ingest/test_seriescache.py::test_lookups_and_staleness_agree_with_a_dictionary",
        _DICT,
    ),
    (
        "promql.kernels",
        "aggregate.count_present",
        "promql/test_heldsamples.py::test_cells_with_a_float_are_counted_as_one_by_one",
        "builtins.sum",
    ),
    (
        "promql.kernels",
        "binary.compare_scalars",
        "promql/test_binary.py::test_comparison_of_scalars_equals_python",
        "builtins.float",
    ),
    (
        "promql.kernels",
        "histogram.fractions",
        "promql/test_quantile.py::test_native_quantile_fraction_and_variance_agree_with_the_slow_twin",
        f"{_SLOW}.histogramqueries.fraction",
    ),
    (
        "promql.kernels",
        "histogramarith.add_pairs",
        "promql/test_histogramarith.py::test_sums_and_differences_of_pairs_agree_with_the_slow_twin",
        f"{_SLOW}.histograms.add",
    ),
    (
        "promql.kernels",
        "histogramstream.add histogramstream.shape histogramstream.take",
        "promql/test_histogramaggregate.py::test_sums_of_one_resolution_are_the_same_to_the_bit",
        f"{_SLOW}.histograms.combine",
    ),
    (
        "promql.kernels",
        "histogramextended.extended_rate",
        "promql/test_histogramextended.py::test_extended_rate_of_histograms_equals_its_twin",
        f"{_SLOW}.extendedhistograms.extended_rate",
    ),
    (
        "promql.kernels",
        "shared.extrapolated shared.extrapolation",
        "promql/test_sharedwindow.py::test_extrapolation_equals_its_twin",
        f"{_SLOW}.windows.extrapolated",
    ),
    (
        "promql.kernels",
        "shared.latest_value shared.window_bounds",
        "promql/test_sharedwindow.py::test_lookback_equals_its_twin",
        _LIST,
    ),
    (
        "promql.kernels",
        "wholewindow.row_sums",
        "promql/test_wholewindow.py::test_a_whole_window_equals_its_twin[avg_over_time]",
        f"{_SLOW}.windows.mean",
    ),
    (
        "promql.kernels",
        "wholewindow.row_extremes",
        "promql/test_wholewindow.py::test_a_whole_window_equals_its_twin[max_over_time]",
        f"{_SLOW}.windows.extreme",
    ),
    (
        "promql.kernels",
        "wholewindow.row_edges",
        "promql/test_wholewindow.py::test_a_whole_window_equals_its_twin[count_over_time]",
        "builtins.len",
    ),
    (
        "promql.kernels",
        "labelhash.hash_rows",
        "promql/test_labelhash.py::test_rows_hash_as_the_library_hashes_their_bytes",
        "xxhash.xxh64_intdigest",
    ),
    (
        "promql.kernels",
        "digits.measure_points",
        "web/test_measured.py::test_the_length_of_values_is_that_of_their_slow_texts",
        f"{_SLOW}.render.value_text",
    ),
    (
        "promql.kernels",
        "render.count_points render.render_labels render.render_rows renderhistogram.render_histograms",
        "web/test_render.py::test_a_matrix_with_gaps_and_histograms_is_rendered_as_the_slow_way_does",
        f"{_SLOW}.render.matrix_rows",
    ),
    (
        "promql.kernels",
        "render.render_heads render.render_times",
        "web/test_render.py::test_timestamps_have_three_decimals_or_none",
        f"{_SLOW}.render.time_number",
    ),
    (
        "promql.kernels",
        "rollup.extrapolated",
        "promql/test_rollupkernels.py::test_extrapolation_from_windows_equals_its_twin",
        f"{_SLOW}.rollup.extrapolated",
    ),
    (
        "promql.kernels",
        "rollup.latest_index_at",
        "promql/test_rollupkernels.py::test_the_latest_window_is_that_of_its_twin",
        f"{_SLOW}.rollup.latest_index",
    ),
    (
        "promql.kernels",
        "starttimes.extrapolated",
        "promql/test_extended.py::test_rate_with_start_timestamps_equals_its_twin",
        f"{_SLOW}.extended.rate_from_starts",
    ),
    (
        "promql.kernels",
        "starttimes.instant_rate",
        "promql/test_extended.py::test_irate_and_resets_with_start_timestamps_equal_their_twins",
        f"{_SLOW}.extended.instant_rate_from_starts",
    ),
    (
        "promql.kernels",
        "starttimes.resets",
        "promql/test_extended.py::test_irate_and_resets_with_start_timestamps_equal_their_twins",
        f"{_SLOW}.extended.resets_from_starts",
    ),
    (
        "promql.kernels",
        "shared.extrapolated shared.extrapolation",
        "promql/test_sharedwindow.py::test_extrapolation_equals_its_twin",
        f"{_SLOW}.windows.extrapolated",
    ),
    (
        "promql.kernels",
        "shared.latest_value shared.window_bounds",
        "promql/test_sharedwindow.py::test_lookback_equals_its_twin",
        _LIST,
    ),
    (
        "tsdb.kernels",
        "admit.admit admit.retract append.store headread.capture headread.decode_rows "
        "headread.measure headread.sort_late_rows truncate.compact_late truncate.compact_sealed "
        "truncate.sweep_series",
        "tsdb/test_head.py::test_head_judges_and_stores_as_the_slow_twin",
        f"{_SLOW}.head.ReferenceHead",
    ),
    (
        "tsdb.kernels",
        "appendbatch.append_batch",
        "tsdb/test_appendbatch.py::test_a_batch_is_stored_and_coded_as_by_the_single_steps",
        "tests.tsdb.test_walcodec.encoded",
    ),
    (
        "tsdb.kernels",
        "blockrows.copy_runs",
        "tsdb/test_blockrows.py::test_copied_runs_stay_inside_their_arrays",
        f"{_SLOW}.blockrows.copy_runs",
    ),
    (
        "tsdb.kernels",
        "blockrows.hash_runs",
        "tsdb/test_blockrows.py::test_runs_hash_alike_exactly_when_they_are_equal",
        _LIST,
    ),
    (
        "tsdb.kernels",
        "blockrows.row_steps blockrows.undo_row_steps",
        "tsdb/test_blockrows.py::test_row_steps_and_their_way_back",
        f"{_SLOW}.blockrows.row_steps",
    ),
    (
        "tsdb.kernels",
        "bucketruns.copy_buckets bucketruns.place_runs "
        "chains.count_histograms chains.latest_histograms chains.link_histograms chains.walk_histograms",
        "tsdb/test_head_histograms.py::test_histograms_in_any_order_are_read_in_order_each_time_once",
        _DICT,
    ),
    (
        "tsdb.kernels",
        "hashing.hash_regions",
        "tsdb/test_series.py::test_hash_equals_the_slow_twin",
        f"{_SLOW}.hashing.hash_region",
    ),
    (
        "tsdb.kernels",
        "headread.place_chunks",
        "tsdb/test_bytecopies.py::test_chunks_are_placed_one_after_the_other_unless_all_are_open",
        _LIST,
    ),
    (
        "tsdb.kernels",
        "headread.gather_bytes",
        "tsdb/test_bytecopies.py::test_gathered_runs_are_those_of_slices",
        _BYTES,
    ),
    (
        "tsdb.kernels",
        "histogrampage.mark_layouts",
        "tsdb/test_blockrows.py::test_layouts_and_turned_counts",
        f"{_SLOW}.blockrows.mark_layouts",
    ),
    (
        "tsdb.kernels",
        "histogrampage.place_bounds histogrampage.place_buckets histogrampage.run_sizes",
        "tsdb/test_blockrows.py::test_turned_counts_are_turned_back",
        f"{_SLOW}.blockrows.place_buckets",
    ),
    (
        "tsdb.kernels",
        "histogrampage.turn_runs",
        "tsdb/test_blockrows.py::test_layouts_and_turned_counts",
        f"{_SLOW}.blockrows.turn_runs",
    ),
    (
        "tsdb.kernels",
        "identity.find_slots identity.insert_slots",
        "tsdb/test_series.py::test_label_sets_are_found_as_in_a_dictionary_while_series_come_and_go",
        _DICT,
    ),
    (
        "tsdb.kernels",
        "labels.column_of labels.rows_equal labels.take_rows",
        "tsdb/test_serieslabels.py::test_take_column_and_equality_follow_rows",
        _LIST,
    ),
    (
        "tsdb.kernels",
        "labels.copy_pairs",
        "tsdb/test_series.py::test_label_sets_are_found_as_in_a_dictionary_while_series_come_and_go",
        _DICT,
    ),
    (
        "tsdb.kernels",
        "labels.filter_pairs",
        "tsdb/test_serieslabels.py::test_filter_group_and_hash_agree_with_the_slow_twin",
        f"{_SLOW}.labels.filter_labels",
    ),
    (
        "tsdb.kernels",
        "labels.group_rows labels.row_hashes",
        "tsdb/test_serieslabels.py::test_filter_group_and_hash_agree_with_the_slow_twin",
        f"{_SLOW}.labels.group_labels",
    ),
    (
        "tsdb.kernels",
        "labels.sort_rows",
        "tsdb/test_serieslabels.py::test_sort_order_is_that_of_label_text",
        f"{_SLOW}.labels.sort_labels",
    ),
    (
        "tsdb.kernels",
        "merge.clip_rows",
        "tsdb/test_mergeselect.py::test_clipping_keeps_the_samples_inside_the_bounds",
        "tests.tsdb.memoryselection.MemorySelection",
    ),
    (
        "tsdb.kernels",
        "merge.mark_conflicts merge.merge_rows merge.spread_rows",
        "tsdb/test_mergeselect.py::test_merge_agrees_with_the_slow_twin",
        f"{_SLOW}.merge.merge_rows",
    ),
    (
        "tsdb.kernels",
        "page.decode_streams page.stream_counts pageencode.pack_floats",
        "tsdb/test_page.py::test_every_float_bit_pattern_comes_back",
        f"{_SLOW}.page.decode_page",
    ),
    (
        "tsdb.kernels",
        "pageencode.pack_integers pageencode.spread_planes",
        "tsdb/test_page.py::test_every_integer_comes_back",
        f"{_SLOW}.page.decode_page",
    ),
    (
        "tsdb.kernels",
        "pagepick.decode_picked",
        "tsdb/test_pagepick.py::test_picked_bit_patterns_are_those_of_the_slow_twin",
        f"{_SLOW}.page.decode_page",
    ),
    (
        "tsdb.kernels",
        "columnnumbers.number_columns",
        "tsdb/test_columnnumbers.py::test_numbers_are_those_of_a_dictionary",
        _DICT,
    ),
    (
        "tsdb.kernels",
        "promchunks.copy_frames",
        "tsdb/test_bytecopies.py::test_copied_frames_are_those_of_slices",
        _BYTES,
    ),
    (
        "tsdb.kernels",
        "promchunks.decode_floats",
        "tsdb/test_prometheuschunks.py::test_float_chunks_decode_bit_for_bit",
        f"{_SLOW}.promchunks.decode_floats",
    ),
    (
        "tsdb.kernels",
        "promchunks.read_frames",
        "tsdb/test_prometheuskernels.py::test_frames_are_found_and_their_checksums_verified",
        f"{_SLOW}.promindex.chunk_frame",
    ),
    (
        "tsdb.kernels",
        "promhistograms.decode_histograms promhistograms.measure_histograms",
        "tsdb/test_prometheuschunks.py::test_histogram_chunks_decode_bit_for_bit",
        f"{_SLOW}.promchunks.decode_histograms",
    ),
    (
        "tsdb.kernels",
        "promindex.measure_series promindex.read_chunk_refs promindex.read_labels",
        "tsdb/test_prometheuskernels.py::test_a_damaged_entry_is_refused_or_read_as_the_slow_twin_reads_it",
        f"{_SLOW}.promindex.read_series_entry",
    ),
    (
        "tsdb.kernels",
        "promwal.decode_samples",
        "tsdb/test_prometheuskernels.py::test_samples_of_the_log_are_read_as_the_slow_twin_reads_them",
        f"{_SLOW}.promindex.read_samples_record",
    ),
    (
        "tsdb.kernels",
        "bundletimes.read_times placechunks.place_chunks storebundle.store_bundle",
        "tsdb/test_replaybundle.py::test_a_bundle_leaves_what_its_samples_leave_one_by_one",
        f"{_SLOW}.walcodec.encode",
    ),
    (
        "tsdb.kernels",
        "recordgroups.group_records",
        "tsdb/test_replayorder.py::test_bundles_share_no_series_and_hold_whole_groups",
        _LIST,
    ),
    (
        "tsdb.kernels",
        "rollup.roll_up rollup.stale_ends",
        "tsdb/test_rollup.py::test_windows_of_samples_agree_with_the_slow_twin",
        f"{_SLOW}.rollup.rolled_up",
    ),
    (
        "tsdb.kernels",
        "rowtouch.touch_rows rowtouch.touch_series",
        "tsdb/test_rowtouch.py::test_touching_reads_each_series_row_and_changes_nothing",
        f"{_SLOW}.rowtouch.touched",
    ),
    (
        "tsdb.kernels",
        "sharedrows.fill_columns sharedrows.list_runs sharedrows.place_runs sharedrows.spread_columns",
        "tsdb/test_sharedread.py::test_rows_of_blocks_are_those_that_read_gives",
        "tests.tsdb.memoryselection.MemorySelection",
    ),
    (
        "tsdb.kernels",
        "sharedrows.copy_decoded",
        "tsdb/test_sharedread.py::test_rows_that_are_kept_decoded_are_those_of_the_blocks",
        "tests.tsdb.memoryselection.MemorySelection",
    ),
    (
        "tsdb.kernels",
        "sharedrows.mix_vectors sharedrows.same_vectors",
        "tsdb/test_sharedread.py::test_rows_with_unlike_vectors_are_told_apart",
        _LIST,
    ),
    (
        "tsdb.kernels",
        "sharedrows.place_rows",
        "tsdb/test_sharedread.py::test_rows_are_laid_out_with_the_head_behind_the_blocks",
        _LIST,
    ),
    (
        "tsdb.kernels",
        "sharedrows.share_columns",
        "tsdb/test_sharedread.py::test_rows_share_a_column_where_all_their_times_are_equal",
        _DICT,
    ),
    (
        "tsdb.kernels",
        "steplatest.pick_latest",
        "tsdb/test_steplatest.py::test_picks_are_those_of_the_slow_twin",
        "tests.tsdb.test_steplatest.found",
    ),
    (
        "tsdb.kernels",
        "steplatest.keep_latest",
        "tsdb/test_steplatest.py::test_kept_samples_are_those_of_the_slow_twin",
        "tests.tsdb.test_steplatest.found",
    ),
    (
        "tsdb.kernels",
        "steplatest.list_picked",
        "tsdb/test_steplatest.py::test_steps_find_the_same_in_rows_of_blocks",
        "tests.tsdb.test_steplatest.latest",
    ),
    (
        "tsdb.kernels",
        "starts.compact_starts starts.copy_changes starts.copy_late_starts starts.count_changes "
        "starts.fill_starts starts.note_starts",
        "tsdb/test_head_starts.py::test_every_sample_keeps_its_start",
        f"{_SLOW}.starts.ReferenceStarts",
    ),
    (
        "tsdb.kernels",
        "symbols.fill_table",
        "tsdb/test_symbols.py::test_a_table_is_filled_as_by_its_slow_twin",
        f"{_SLOW}.symbols.filled_table",
    ),
    (
        "tsdb.kernels",
        "symbols.find_regions symbols.gather_texts symbols.intern_regions",
        "tsdb/test_symbols.py::test_ids_and_texts_are_those_of_a_dictionary",
        f"{_SLOW}.symbols.ReferenceSymbols",
    ),
    (
        "tsdb.kernels",
        "table.insert_many table.lookup_many",
        "tsdb/test_series.py::test_table_with_a_weak_hash_behaves_as_a_dict",
        _DICT,
    ),
    (
        "tsdb.kernels",
        "walcodec.encode_samples walcodec.read_keys walcodec.replay_samples",
        "tsdb/test_walcodec.py::test_values_that_follow_each_other_are_coded_as_by_the_slow_coder",
        f"{_SLOW}.walcodec.encode",
    ),
    (
        "tsdb.kernels",
        "walscan.scan_records",
        "tsdb/test_walscan.py::test_records_are_those_of_reading_them_one_by_one",
        "tsdb.wal.read_segment",
    ),
    (
        "tsdb.kernels",
        "walscan.number_lists",
        "tsdb/test_walscan.py::test_lists_of_the_same_bytes_have_the_same_number",
        _DICT,
    ),
    (
        "tsdb.kernels",
        "walscan.gather_parts",
        "tsdb/test_walscan.py::test_records_side_by_side_are_all_their_bytes",
        _BYTES,
    ),
    (
        "tsdb.kernels",
        "xor.decode_xor_chunks xor.encode_xor_chunk",
        "tsdb/test_xor.py::test_kernel_writes_the_bytes_of_the_slow_encoder_and_reads_them_back",
        f"{_SLOW}.xor.encode_chunk",
    ),
)
"""Package, kernels below it, test below tests/, reference."""

TWINS: dict[str, Twin] = {
    f"{package}.{kernel}": Twin(f"tests/{test}", reference)
    for package, kernels, test, reference in _DECLARED
    for kernel in kernels.split()
}
"""By full name of the kernel."""
