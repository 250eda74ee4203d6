"""`--set key.path=value`."""

from __future__ import annotations

import pytest

from caslie_ray.profiles import ProfileError, load_profile


def refusal(*overrides: str) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile("mini", overrides)
    return str(caught.value)


def test_a_plain_setting() -> None:
    profile = load_profile("mini", ["votes.schedule=full", "votes.audit = 0.5", "images.allow_private=true"])
    assert (profile.votes.schedule, profile.votes.audit, profile.images.allow_private) == ("full", 0.5, True)


def test_a_list_item_by_name_and_by_index() -> None:
    overrides = ["lineup.voters.phi.batch_size=8", "lineup.voters.0.checkpoint=path/to=it"]
    lineup = load_profile("mini", overrides).lineup
    assert {voter.name: voter.batch_size for voter in lineup.voters}["phi"] == 8
    assert lineup.voters[0].checkpoint == "path/to=it"


def test_a_list_item_may_be_replaced_completely() -> None:
    override = "lineup.voters.phi={name: qwen, checkpoint: some/model, context: 128}"
    assert [v.name for v in load_profile("mini", [override]).lineup.voters][-1] == "qwen"


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001"])
def test_numbers_as_people_write_them(text: str) -> None:
    assert load_profile("mini", [f"training.learning_rate={text}"]).training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("text", "pair"), [("[1, 4]", (1, 4)), ("3", (3, 3)), ("{min: 2, max: 5}", (2, 5)), ("{max: 4}", (1, 4))]
)
def test_a_worker_range_is_a_group_a_pair_or_one_number(text: str, pair: tuple[int, int]) -> None:
    workers = load_profile("mini", [f"training.num_workers={text}"]).training.num_workers
    assert (workers.min, workers.max) == pair


@pytest.mark.parametrize("text", ["[4, 1]", "[1, 2, 3]", "true"])
def test_what_is_no_pair_is_refused(text: str) -> None:
    assert "training.num_workers" in refusal(f"training.num_workers={text}")


def test_null_and_groups_omitted_by_a_profile() -> None:
    profile = load_profile("caslie-s", ["images.root=s3://bucket/pictures", "ingest.keys.fields.passage=document"])
    assert profile.images.root == "s3://bucket/pictures"
    assert profile.ingest.keys.fields == {"passage": "document"}
    assert load_profile("caslie-s", ["lineup.base.revision=null"]).lineup.base.revision is None


def test_the_last_one_wins() -> None:
    assert load_profile("mini", ["faults.passes=7", "faults.passes=4"]).faults.passes == 4


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("votes.shedule=full", "votes.shedule: unknown key; did you mean schedule?"),
        ("vote.schedule=full", "vote: unknown key; did you mean votes?"),
        ("max_side=3", "max_side: unknown key; did you mean images.max_side?"),
        ("lineup.voters.phi.batch=8", "lineup.voters.phi.batch: unknown key; did you mean batch_size?"),
        ("lineup.voters.phy.batch_size=8", "lineup.voters has no item phy, and 5 in all; did you mean phi?"),
        ("lineup.voters.9.batch_size=8", "lineup.voters has no item 9, and 5 in all"),
        ("schedule.fast=true", "schedule is 'streamed', which has no key fast"),
        ("votes.audit=much", "votes.audit: 'much': should be a valid number"),
        ("votes.audit=[1", "the value '[1' is not YAML"),
        ("votes.audit", "should be key.path=value"),
        ("=3", "should be key.path=value"),
        ("votes..audit=3", "should be key.path=value"),
    ],
)
def test_a_wrong_override_is_reported_as_given(override: str, said: str) -> None:
    message = refusal(override)
    assert message.startswith(f"--set {override}: ")
    assert said in message


def test_a_context_has_the_name_that_the_user_gives_it() -> None:
    found = load_profile("mini", ["contexts.colour={caption: Name it., quality: 'Is it? {{caption}}'}"]).contexts
    assert found["colour"].most_images == 1
    assert load_profile("mini", ["contexts.colour.images=all"]).contexts["colour"].most_images is None
    assert load_profile("mini", ["contexts.colour.images=3"]).contexts["colour"].most_images == 3


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("contexts.colour.imags=all", "contexts.colour.imags: unknown key; did you mean images?"),
        ("contexts.colour.images=some", "contexts.colour.images: should be first, all, or a number"),
        ("contexts.colour.images=0", "contexts.colour.images: should be first, all, or a number"),
    ],
)
def test_a_wrong_setting_of_a_context_is_named(override: str, says: str) -> None:
    with pytest.raises(ProfileError) as refused:
        load_profile("mini", [override])
    assert says in str(refused.value)
