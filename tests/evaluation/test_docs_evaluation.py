import re
from pathlib import Path


def test_docs_evaluation__code_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in blocks:
        exec(compile(block, "docs/evaluation.md", "exec"), scope)
    assert {p.name for p in tmp_path.iterdir()} == {"predictions.parquet", "results.json", "report.html"}
    assert "beats scratch" in Path("report.html").read_text(encoding="utf-8")
    assert "gap" in capsys.readouterr().out
