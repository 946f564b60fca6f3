"""The gate's decision in words."""

from collections.abc import Mapping
from typing import Any

_ORIGIN = {
    "all": "generated data alone",
    "some": "data of which some is generated",
    "none": "no generated data",
    "unknown": "data of unknown origin",
}
#: Words for the test cases, where some are generated.
_TEST = {"all": "all test cases are generated", "some": "some test cases are generated"}


def decision_lines(record: Mapping[str, Any]) -> list[str]:
    """What `promote` wrote, a line per rule: what became of it, the rule, and why."""
    rules = record.get("rules", [])
    lines = [
        f"{rule['outcome']}: {rule['rule']}: {rule['text']}"
        + (f"; worst: {', '.join(rule['worst'])}" if rule.get("worst") else "")
        for rule in rules
        if rule["outcome"] != "not applicable"
    ]
    return [f"  {line}" for line in [*(lines if rules else record["reasons"]), *remarks(record)]]


def headline(record: Mapping[str, Any]) -> str:
    """What became of the challenger, in a line."""
    champion = record["champion"]
    stays = f"version {champion} stays champion" if champion else "there is no champion"
    if record["promoted"]:
        return f"promoted: version {champion} is champion"
    return f"{record['outcome']}: version {record['version']} is not promoted, {stays}"


def remarks(record: Mapping[str, Any]) -> list[str]:
    """What a reader of a decision has to know beside the rules that were applied."""
    rules = record.get("rules", [])
    found = [reason for reason in record["reasons"] if rules and not any(reason.startswith(r["rule"]) for r in rules)]
    unused: dict[str, list[str]] = {}
    for rule in rules:
        if rule["outcome"] == "not applicable":
            unused.setdefault(rule["text"], []).append(rule["rule"])
    found += [f"{text}, so not applied: {', '.join(names)}" for text, names in unused.items()]
    if note := record.get("gate", {}).get("note"):
        found.append(f"note: {note}")
    generated = dict(record.get("generated", {}))
    if test := _TEST.get(generated.pop("test", "none")):
        found.append(test)
    found += [f"the {role} was trained on {trained_on(how)}" for role, how in generated.items() if how != "none"]
    if left_out := record.get("left_out"):
        found.append(f"left out of comparisons with the champion, which was trained on them: {left_out} test cases")
    if "champion" in record.get("untold", []):
        found.append("the champion does not say which cases it was trained on: test cases may be among them")
    return found


def trained_on(how: str) -> str:
    """What kind of data a network saw, in words; `how` as `Manifest.generated` says it."""
    return _ORIGIN.get(how, _ORIGIN["unknown"])
