import re
from importlib.resources import files

import pytest

from hw_sim.scenario import load


@pytest.mark.parametrize("name", ["spindle", "cold_store"])
def test_the_faults_that_a_scenario_shows_in_comments_are_right(name, tmp_path):
    text = (files("hw_sim") / "scenarios" / f"{name}.toml").read_text()
    switched_on = re.sub(r"(?m)^# (\[\[faults\]\]|\w+ = )", r"\1", text)
    file = tmp_path / "scenario.toml"
    file.write_text(switched_on)
    assert len(load(str(file)).faults) == text.count("# [[faults]]") >= 3
    load(str(file)).bench()
