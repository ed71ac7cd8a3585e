import importlib.metadata

import pytest

from planet_rssm.envs import survey


def has(name):
    return any(
        distribution.name.lower() == name for distribution in importlib.metadata.distributions()
    )


def test_only_the_latest_versions_are_listed():
    ids = survey.registered()
    assert ids == sorted(ids) and {
        "gym/Pendulum-v1",
        "gym/Hopper-v5",
        "gym/phys2d/CartPole-v1",
    } <= set(ids)
    assert not {"gym/Hopper-v4", "gym/CartPole-v0"} & set(ids)


@pytest.mark.skipif(not has("pygame"), reason="pygame is not installed")
def test_each_environment_is_tried():
    findings = {each.id: each for each in survey.survey(["gym/Hopper-v2", "gym/MountainCar-v0"])}
    assert findings["gym/MountainCar-v0"] == survey.Finding(
        "gym/MountainCar-v0", ["pixels", "vectors"], ""
    )
    assert findings["gym/Hopper-v2"].observe == [] and findings["gym/Hopper-v2"].why.startswith(
        "cannot be made: ImportError"
    )


def test_what_kills_or_stalls_the_child_costs_its_own_row_only(tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(
        "print('noise', flush=True)\nimport os\nos.kill(os.getpid(), 11)"
    )
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(99)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(survey, "_TIMEOUT", 3.0)
    ids = ["deadly:Class", "gym/CartPole-v9", "endless:Class", "gym/Nothing-v0"]
    findings = survey.survey(ids)
    assert [each.id for each in findings] == ids and not any(each.observe for each in findings)
    assert (
        findings[0].why == "its process died with exit code -11"
        and findings[2].why == "no answer within 3 s"
    )
    assert "did you mean 'gym/CartPole-v1'?" in findings[1].why
