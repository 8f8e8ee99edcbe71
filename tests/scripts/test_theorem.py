"""The script of Theorem 3.1; the computation is tested in tests/harness/signals/test_theorem.py."""

from __future__ import annotations

from harness.signals import theorem
from scripts import theorem as script


def test_the_script_writes_table_and_figure(tmp_path, monkeypatch, capsys):
    small = {
        "batch": [theorem.Setting(batch=n) for n in (1, 2)],
        "lr": [theorem.Setting(lr=lr, batch=2) for lr in (0.1, 1)],
        "T, same lr": [theorem.Setting(steps=t, batch=2) for t in (1, 2)],
        "T, same lr x T": [theorem.Setting(steps=t, batch=2) for t in (1, 2)],
        "eps_root": [theorem.Setting("adam", eps_root=root, batch=2) for root in (1e-4, 1e-2)],
    }
    monkeypatch.setattr(theorem, "sweeps", lambda: small)
    assert script.main(["--out", str(tmp_path), "--worlds", "2"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"theorem.csv", "theorem.md", "theorem.png"}
    assert "Slope of log bias" in capsys.readouterr().out
