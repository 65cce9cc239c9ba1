"""The scaling benchmark compares the same work, and reports all that it promises."""

from __future__ import annotations

from benchmarks.mmsp_scaling import scale

WORST = {
    "cpu_efficiency_2",
    "cpu_efficiency_1",
    "decoder_cpu_efficiency_2",
    "wall_efficiency_2",
    "decoder_wall_efficiency_2",
    "waiting_cpu_share",
    "gradient_error_float32",
    "gradient_error_bfloat16",
}


def test_one_process_and_two_find_the_same_gradients() -> None:
    report = scale(tokens=64, repeats=1)
    summary = report.summary
    assert summary.keys() >= WORST
    cases = [key for key in summary if key.startswith("cpu_efficiency_2_")]
    assert len(cases) == 2 * 2 * 5  # degrees, dtypes, shapes
    assert "cpu_efficiency_2_h4kv2_bfloat16_long_u1r2" in cases
    assert summary["cpu_efficiency_2"] == min(summary[key] for key in cases)
    assert len([key for key in summary if key.startswith("decoder_cpu_efficiency_2_")]) == 4
    assert summary["gradient_error_float32"] < 1e-5
    assert summary["gradient_error_bfloat16"] < 0.1
    assert len(report.rows) == 4 * 12
