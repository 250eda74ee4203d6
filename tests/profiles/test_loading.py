"""Files, names, `extends`, and the errors for wrong keys and values."""

from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.profiles import ProfileError, load_profile

VOTER = "{name: %s, checkpoint: some/model, context: 512}"
SMALLEST = f"""
lineup:
  captioner: {VOTER % "captioner"}
  voters: [{VOTER % "one"}, {VOTER % "two"}, {VOTER % "three"}]
  base: {VOTER % "unim3"}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(reference: str, *overrides: str) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(reference, overrides)
    return str(caught.value)


def mine(folder: Path, old: str, new: str) -> str:
    """The refusal of a copy of the smallest profile in which something was replaced."""
    assert old in SMALLEST
    return refusal(write(folder, SMALLEST.replace(old, new)))


def test_a_lineup_is_enough(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, SMALLEST.replace("some/model", "mistral/m", 1)))
    assert profile.name == "mine"
    assert [voter.name for voter in profile.lineup.voters] == ["one", "two", "three"]
    assert profile.images.max_side == 500
    assert profile.votes.audit == 0.01


def test_the_group_serving_of_an_older_profile_still_loads(tmp_path: Path) -> None:
    old = load_profile(write(tmp_path, SMALLEST + "serving: {port: 8001}\n", "old.yaml"))
    assert old.lineup == load_profile(write(tmp_path, SMALLEST)).lineup
    assert old.serving.port == 8001


def test_by_uri(tmp_path: Path) -> None:
    path = write(tmp_path, SMALLEST.replace("some/model", "mistral/m", 1))
    assert load_profile(f"file://{path}") == load_profile(path)


def test_settings_are_frozen() -> None:
    profile = load_profile("mini")
    with pytest.raises(ValueError, match="frozen"):
        profile.schedule = "staged"  # type: ignore[misc]  # that this is refused is the point


# What cannot be found or read


def test_unknown_name_gets_the_nearest() -> None:
    assert refusal("casli-m").startswith("casli-m: no such profile; did you mean caslie-m?")


def test_missing_file(tmp_path: Path) -> None:
    assert "nowhere.yaml: cannot be read" in refusal(str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "just words"])
def test_file_that_contains_no_keys(tmp_path: Path, text: str) -> None:
    assert "should hold keys such as name, lineup" in refusal(write(tmp_path, text))


def test_file_that_is_not_yaml(tmp_path: Path) -> None:
    assert "mine.yaml: is not YAML" in refusal(write(tmp_path, "lineup: [1, 2"))


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    assert "mine.yaml: cannot be read" in refusal(str(tmp_path / "mine.yaml"))


def test_key_given_twice(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, SMALLEST + "schedule: staged\nschedule: streamed\n"))
    assert "schedule is given twice" in message


# Unknown keys


def test_unknown_key_names_file_path_value_and_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, SMALLEST + "images: {max_sid: 400}\n")
    message = refusal(path)
    assert message.startswith(f"{path}: images.max_sid: 400: unknown key; did you mean max_side?")
    assert "Known here: max_side, max_pixels" in message


def test_unknown_group(tmp_path: Path) -> None:
    assert "trainign: unknown key; did you mean training?" in refusal(write(tmp_path, SMALLEST + "trainign: {}\n"))


def test_known_key_in_the_wrong_group(tmp_path: Path) -> None:
    assert "did you mean images.retries?" in refusal(write(tmp_path, SMALLEST + "faults: {retries: 1}\n"))


def test_an_unknown_key_of_a_voter_is_reported_with_the_voter_s_name(tmp_path: Path) -> None:
    message = mine(tmp_path, VOTER % "two", "{name: two, checkpoint: some/model, contxt: 512}")
    assert "lineup.voters.two.contxt: 512: unknown key; did you mean context?" in message
    assert "lineup.voters.two.context: missing, but required" in message


# Wrong values


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("images: {max_side: 0}", "images.max_side: 0: should be greater than or equal to 1"),
        ("images: {max_side: 501}", "images.max_side: 501: should be less than or equal to 500"),
        ("images: {retries: true}", "images.retries: true: should be a valid integer"),
        ("images: {retries: '3'}", "images.retries: '3': should be a valid integer"),
        ("images: {timeout_s: .inf}", "images.timeout_s: inf: should be a finite number"),
        ("images: {allow_private: 1}", "images.allow_private: 1: should be a valid boolean"),
        ("images: 3", "images: 3: should be a group of keys: max_side,"),
        ("votes: {rule: most}", "votes.rule: 'most': should be 'majority', 'always' or 'never'"),
        ("votes: {audit: 1.5}", "votes.audit: 1.5: should be less than or equal to 1"),
        ("training: {lora: {targets: lm_head}}", "training.lora.targets: 'lm_head': should be a list"),
        ("training: {num_workers: {min: 3, max: 2}}", "training.num_workers: min is 3 and max is 2"),
        ("schedule: null", "schedule: null: should be 'streamed' or 'staged'"),
    ],
)
def test_a_wrong_value_is_reported_with_the_allowed_ones(tmp_path: Path, setting: str, said: str) -> None:
    path = write(tmp_path, f"{SMALLEST}{setting}\n")
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, SMALLEST + "schedule: fast\nvotes: {rule: most}\n"))
    assert len(message.splitlines()) == 2


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    assert len(refusal(write(tmp_path, f"{SMALLEST}schedule: {'x' * 5000}\n"))) < 400


# extends


def test_extends_merges_groups_and_replaces_lists(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST.replace("some/model", "mistral/m", 1) + "images: {retries: 1, timeout_s: 9.0}\n")
    child = f"extends: ./mine.yaml\nlineup: {{voters: [{VOTER % 'only'}]}}\nimages: {{retries: 2}}\n"
    profile = load_profile(write(tmp_path, child, "child.yaml"))
    assert profile.name == "child"
    assert (profile.images.retries, profile.images.timeout_s) == (2, 9.0)
    assert [voter.name for voter in profile.lineup.voters] == ["only"]
    assert profile.lineup.captioner.checkpoint == "mistral/m"


def test_extends_a_shipped_profile(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, "extends: mini\nvotes: {schedule: full}\n"))
    assert profile.votes.schedule == "full"
    assert profile.lineup == load_profile("mini").lineup


def test_a_fault_is_reported_for_the_file_that_contains_it(tmp_path: Path) -> None:
    write(tmp_path, SMALLEST + "images: {retries: many}\n")
    child = write(tmp_path, "extends: ./mine.yaml\nvotes: {rule: most}\n", "child.yaml")
    retries, rule = sorted(refusal(child).splitlines(), key=lambda line: "votes" in line)
    assert retries.startswith(f"{tmp_path}/./mine.yaml: images.retries")
    assert rule.startswith(f"{child}: votes.rule")


def test_extends_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path, f"extends: {tmp_path}/b.yaml\n", "a.yaml")
    write(tmp_path, f"extends: {tmp_path}/a.yaml\n", "b.yaml")
    assert "in a cycle" in refusal(f"{tmp_path}/a.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: minni\n", "extends: minni: no such profile; did you mean mini?"),
        ("extends: [mini]\n", "extends: ['mini']: should be the name or the file"),
        ("extend: mini\n", "extend: unknown key; did you mean extends?"),
    ],
)
def test_wrong_extends(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(write(tmp_path, text))


# The lineup


def test_an_even_number_of_voters_is_refused(tmp_path: Path) -> None:
    message = mine(tmp_path, f", {VOTER % 'three'}", "")
    assert "lineup: voters are 2 (one, two); a majority needs an odd number" in message


@pytest.mark.parametrize("rule", ["always", "never"])
def test_no_voter_is_accepted_where_none_is_asked(rule: str) -> None:
    profile = load_profile("mini", [f"votes.rule={rule}", "lineup.voters=[]"])
    assert profile.lineup.voters == ()


def test_no_voter_is_refused_where_a_majority_decides() -> None:
    assert "votes.rule is majority but lineup.voters is empty" in refusal("mini", "lineup.voters=[]")


def test_one_name_for_two_voters_is_refused(tmp_path: Path) -> None:
    assert "voters one occur twice" in mine(tmp_path, "name: two", "name: one")


@pytest.mark.parametrize("name", ["a/b", "a.b", "", "-a", "a b"])
def test_names_are_valid_in_paths(tmp_path: Path, name: str) -> None:
    assert "should match pattern" in mine(tmp_path, "name: two", f"name: '{name}'")


def test_costs_for_some_voters_only_are_refused(tmp_path: Path) -> None:
    assert "voters one, three have no cost" in mine(tmp_path, "name: two", "cost: 2.0, name: two")


def test_roles_that_share_a_checkpoint_must_agree() -> None:
    message = refusal("caslie-s", "lineup.captioner.batch_size=4")
    assert "captioner and voter vision share the checkpoint" in message
    assert "differ in batch_size; set both alike" in message
    both = load_profile("caslie-s", ["lineup.captioner.batch_size=4", "lineup.voters.vision.batch_size=4"])
    assert [v.batch_size for v in both.lineup.voters if v.name == "vision"] == [4]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("max_new_tokens=1024", "max_new_tokens must be smaller"),
        ("batch_tokens=512", "batch_tokens must be at least context"),
        ("resources.gpus=1.5", "it must be a whole number"),
        ("generation.top_k=5", "top_k only matters if do_sample is true"),
    ],
)
def test_a_model_s_settings_fit_each_other(override: str, said: str) -> None:
    message = refusal("mini", f"lineup.voters.phi.{override}")
    assert said in message
    assert f"--set lineup.voters.phi.{override}" in message


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ('[["phi", "mistral"]]', "phi, mistral: name an odd number of different voters"),
        ('[["phi", "phi", "phi"]]', "name an odd number of different voters"),
        ("[[]]", "name an odd number of different voters"),
        ('[["phi", "vision", "mistral"], ["mistral", "phi", "vision"]]', "a set is named twice"),
        ('[["phi", "vision", "gpt"]]', "gpt is no voter of the lineup (llama-3b, llama-8b, vision, mistral, phi)"),
    ],
)
def test_sets_of_voters_are_odd_and_of_the_lineup(sets: str, said: str) -> None:
    assert said in refusal("mini", f"evaluation.voter_sets={sets}")
