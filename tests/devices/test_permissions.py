"""Who may move whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from naila.config.permissions import PermissionRule, PermissionRules, load_permissions
from naila.devices.permissions import Permissions
from naila.errors import ConfigurationError
from naila.fleet import ActionSpec, DeviceProfile, Proposal

SHIPPED = Path(__file__).parents[2] / "config" / "permissions.yaml"
ARM = DeviceProfile(
    device_id="arm", name="Arm", room="Workshop", actions={name: ActionSpec(name=name) for name in ("home", "wave")}
)
SPEAKER = PermissionRule(effect="allow", device="@speaker")


def effect(rules: PermissionRules, name: str = "home", **asker: Any) -> str:
    proposal = Proposal(**{"device_id": "arm", "name": name, "request_id": "q1", "speaker": "lamp", **asker})
    return Permissions(rules).effect(proposal, ARM)


def written(tmp_path: Path, text: str) -> PermissionRules:
    path = tmp_path / "permissions.yaml"
    path.write_text(text, encoding="utf-8")
    return load_permissions(path)


def test_as_it_comes_everybody_may_move_everything() -> None:
    assert load_permissions(SHIPPED) == PermissionRules("allow", ())
    assert effect(load_permissions(SHIPPED)) == "allow"


def test_the_first_rule_that_fits_decides(tmp_path: Path) -> None:
    rules = written(
        tmp_path,
        "default: allow\nrules:\n- {device: arm, user: ada, effect: allow}\n- {device: arm, effect: deny}\n",
    )
    assert effect(rules, user_id="ada") == "allow"
    assert effect(rules, user_id="bob") == "deny"
    assert effect(rules) == "deny"


def test_where_no_rule_fits_the_default_holds() -> None:
    assert effect(PermissionRules("deny", (SPEAKER,))) == "deny"


def test_a_device_may_be_let_move_itself_only() -> None:
    rules = PermissionRules("deny", (SPEAKER,))
    assert effect(rules, speaker="arm") == "allow"
    assert effect(rules, speaker="lamp") == "deny"


@pytest.mark.parametrize(("glob", "fits"), [("ar?", True), ("a*", True), ("ARM", False), ("arm1", False), ("*m", True)])
def test_globs_stand_for_ids(glob: str, fits: bool) -> None:
    rules = PermissionRules("allow", (PermissionRule(effect="deny", device=glob),))
    assert (effect(rules) == "deny") == fits


def test_a_room_is_compared_whatever_its_case() -> None:
    rules = PermissionRules("allow", (PermissionRule(effect="confirm", room="workSHOP"),))
    assert effect(rules) == "confirm"


def test_a_device_without_a_room_is_in_none() -> None:
    rules = PermissionRules("allow", (PermissionRule(effect="deny", room="?*"),))
    bare = DeviceProfile(device_id="arm", name="Arm")
    proposal = Proposal(device_id="arm", name="home", request_id="q1", speaker="lamp")
    assert Permissions(rules).effect(proposal, bare) == "allow"


def test_actions_and_what_understood_the_wish_can_be_told_apart() -> None:
    rule = PermissionRule(effect="confirm", actions=("wave", "h*"), by=("model",))
    rules = PermissionRules("allow", (rule,))
    assert effect(rules, by="model") == "confirm"
    assert effect(rules, by="pattern") == "allow"
    assert effect(rules, name="reset", by="model") == "allow"


def test_whose_yes_counts_can_be_said(tmp_path: Path) -> None:
    rules = Permissions(written(tmp_path, "default: allow\napprovers: [panel-*, cli]"))
    assert [rules.may_approve(speaker) for speaker in ("panel-1", "cli", "lamp")] == [True, True, False]
    assert not Permissions(written(tmp_path, "default: allow\napprovers: []")).may_approve("cli")
    assert Permissions(load_permissions(SHIPPED)).may_approve("lamp")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("rules: []", "default"),
        ("default: allow\napprovers: ['panel/#']", "approvers.0"),
        ("default: maybe", "default"),
        ("default: allow\nrules:\n- {effect: deny, devise: arm}", "rules.0.devise"),
        ("default: allow\nrules:\n- {device: arm}", "rules.0.effect"),
        ("default: allow\nrules:\n- {effect: deny, device: 'arm/#'}", "rules.0.device"),
        ("default: allow\nrules:\n- {effect: deny, actions: []}", "rules.0.actions"),
        ("default: allow\nrules:\n- {effect: deny, by: [magic]}", "rules.0.by"),
        ("default: [", "not valid YAML"),
        ("", "document"),
    ],
)
def test_a_broken_file_is_named_with_the_place(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=r"permissions\.yaml") as caught:
        written(tmp_path, text)
    assert named in str(caught.value)


def test_a_lost_file_does_not_mean_that_all_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"permissions\.yaml"):
        load_permissions(tmp_path / "permissions.yaml")
