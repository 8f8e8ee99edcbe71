"""Two gloo processes on one cell of the miniature: the same rollouts, rewards and result as one process."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.command import ROOT, run_harness, start

SMALL = {
    "grpo.steps": 2,
    "grpo.prompts_per_step": 4,
    "grpo.rollouts_per_prompt": 4,
    "grpo.updates_per_step": 1,
    "grpo.microbatch": 8,
    "generator.max_completion_tokens": 24,
    "validation.every": 2,
    "validation.prompts": 6,
    "generator.true_positions": True,
    "grpo.shared_prompts": True,
    "data.article_count": 32,
}


def run(out: Path, processes: int, task: str, reward: str, **more) -> pd.DataFrame:
    given = [f"--set={key}={value}" for key, value in (SMALL | more).items()]
    command = ["run", "--task", task, "--reward", reward, "--out", str(out), "--workers", "0", *given]
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--rdzv-backend=c10d", "--standalone"]
    if processes == 1:
        code, out_text, errors = run_harness(*command, cwd=ROOT)
    else:
        process = start([*launcher, "-m", "harness", *command], ROOT)
        out_text, errors = process.communicate(timeout=600)
        code = process.returncode
    assert code == 0, out_text[-2000:] + errors[-4000:]
    curves = pd.read_parquet(next(out.rglob("curves.parquet")))
    return curves[~curves["measure"].str.startswith("seconds")].set_index(["step", "phase", "measure"])["value"]


@pytest.mark.parametrize(
    ("task", "reward", "more"),
    [
        ("lambada_es", "adam_metagrad", {"task.options.metric_examples": 16}),  # a sharded inner batch
        ("67", "naive", {"inner.steps": 2, "validation.inner_steps": 2}),  # sharded training, two steps, sets of ranks
        # Credit by token, the last step after a warm-up.
        ("uuid", "adam_metagrad", {"inner.steps": 2, "inner.warmup_after": 1, "inner.warmup_steps": 2}),
    ],
)
def test_two_processes_give_what_one_gives(task, reward, more, tmp_path):
    one, two = (run(tmp_path / str(count), count, task, reward, **more) for count in (1, 2))
    assert set(one.index) == set(two.index)
    exact = [
        key
        for key in one.index
        if key[2] in ("zero_spread", "empty_fraction", "distinct_fraction", "completion_tokens")
    ]
    assert (one[exact] == two[exact]).all()  # the same texts
    assert len(list((tmp_path / "2").rglob("cell.json"))) == 1
    # TRL's entropy is a mean of microbatches' means, which hold other rows, of other lengths, with two processes.
    of_rows = one.index.get_level_values("measure") == "entropy"
    for keys, tolerance in ((one.index[~of_rows], 2e-3), (one.index[of_rows], 1e-2)):
        pd.testing.assert_series_equal(one[keys], two[keys], rtol=tolerance, atol=1e-6)
    rewards = [key for key in one.index if key[0] == 1 and key[2].startswith("reward_raw")]
    pd.testing.assert_series_equal(one[rewards], two[rewards], rtol=1e-4, atol=1e-12)
