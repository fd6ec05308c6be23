"""The benchmark of steps: that it runs the recipe's own step, and says what it measured."""

import json

import pytest

from dcgan import bench, presets
from minigrad import bench as harness


def test_a_flux_step_is_63_gflop_as_plain_products():
    step = bench.our_step(presets.get("flux", batch_size=4))
    assert harness.gflop(step) * 32 == pytest.approx(62.3, abs=0.1)  # of 128 images


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_recipe_has_a_step(name):
    small = {"ngf": 8, "ndf": 8} if name in ("flowers", "pytorch") else {}
    step = bench.our_step(presets.get(name, batch_size=4, **small))
    result = step()
    assert 0 < result.loss_d.item() < 20
    assert harness.gflop(step) > 0


def test_the_command_prints_a_table_and_writes_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(harness, "product_limit", lambda: 100.0)
    path = tmp_path / "steps.json"
    command = ["--presets", "quick", "--batch-size", "4", "--rounds", "1", "--no-pytorch"]
    assert bench.main([*command, "--json", str(path)]) == 0
    said = capsys.readouterr().out
    assert "quick, batch 4" in said
    assert "peak memory of this process" in said
    assert json.loads(path.read_text())["rows"][0]["name"] == "quick, batch 4"
