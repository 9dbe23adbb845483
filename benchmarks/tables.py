"""What the benchmarks print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.figures import NAN, Ratio, Round, median, over


def print_table(rounds: Mapping[str, Sequence[Round]], bench: Mapping[str, Sequence[float]]) -> None:
    """Print the medians over the rounds, a column for each party."""
    rows = (
        ("tokens/s, all robots", lambda r: r.tokens_per_s, "{:.1f}"),
        ("first text, first turns, p50 ms", lambda r: r.first_p50_ms, "{:.0f}"),
        ("first text, later turns, p50 ms", lambda r: r.later_p50_ms, "{:.0f}"),
        ("first text, later turns, p95 ms", lambda r: r.later_p95_ms, "{:.0f}"),
        ("tokens of a reply", lambda r: r.tokens / max(1, r.turns - len(r.errors)), "{:.1f}"),
        ("prompt tokens, later turns", lambda r: r.later_prompt_tokens, "{:.0f}"),
        ("… cached", lambda r: r.later_cached_tokens, "{:.0f}"),
        ("… new words", lambda r: r.later_new_tokens, "{:.0f}"),
        ("… read again, for each new one", lambda r: r.reread_per_new, "{:.3f}"),
        ("… read again, share of the known", lambda r: r.reread_share, "{:.4f}"),
        ("turns that failed", lambda r: len(r.errors), "{:.0f}"),
        ("turns with other prompts", lambda r: r.other_prompts, "{:.0f}"),
        ("one robot alone, tokens/s", lambda r: r.alone_per_s, "{:.1f}"),
        ("processor ms a token, all", lambda r: 1000 * sum(r.cpu_s.values()) / max(1, r.tokens), "{:.2f}"),
    )
    print(f"\n{'median of the rounds':<36}" + "".join(f"{name:>16}" for name in rounds))
    for what, figure, layout in rows:
        print(f"{what:<36}" + "".join(f"{layout.format(over(each, figure)):>16}" for each in rounds.values()))
    for part in dict.fromkeys(part for each in rounds.values() for r in each for part in r.cpu_s):
        shares = (median(1000 * r.cpu_s.get(part, NAN) / max(1, r.tokens) for r in each) for each in rounds.values())
        print(f"{'… ' + part:<36}" + "".join(f"{share:>16.2f}" for share in shares))
    for context, speeds in bench.items():
        print(f"{f'llama-bench tg, {context} context':<36}{median(speeds):>16.1f}")
    for each in rounds.values():
        for error in [error for r in each for error in r.errors][:5]:
            print(f"  {error}")


def print_ratios(ratios: Sequence[Ratio]) -> None:
    """Print what was compared, and whether it is as it should be."""
    print(f"\n{'ratio, median of the rounds':<60}{'':>9}{'goal':>9}")
    for ratio in ratios:
        print(f"{ratio.what:<60}{ratio.value:>9.3f}{ratio.goal:>9}  {'met' if ratio.is_met else 'NOT MET'}")
