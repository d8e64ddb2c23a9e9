"""Puts what reader.py found into sentences: the objects of a scene, and what happens to them in order."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from stages.prepare_data_with_llm.values import Act, Motion, Scene, Step, Thing
from stages.prepare_data_with_llm.words import amount, counted, join, number, plural

# Relations that say what a thing is, not only where it stands.
BELONGING = frozenset({"around", "along", "under", "of", "for", "to"})


@dataclass(frozen=True)
class Wording:
    """How much a description says."""

    places: bool
    details: bool
    times: bool
    objects: int
    steps: int
    label: int  # words of a text that are quoted


@lru_cache(maxsize=1)  # asked for at every mention of a thing
def listed(scene: Scene) -> list[Thing]:
    """What a viewer sees, each thing once; if nothing is ever shown, what the program makes."""
    things = [leaf for thing in scene.shown or scene.made for leaf in thing.leaves() if leaf.seen and not leaf.owner]
    return list(dict.fromkeys(thing for thing in things if thing.noun != "group"))


def objects(scene: Scene, wording: Wording) -> str:
    """The objects as one phrase: "three blue dots, an arrow and the text "Hello""."""
    things = listed(scene)
    phrases = grouped([(thing, *introduced(thing, scene, wording)) for thing in things])
    if len(phrases) > wording.objects:
        kinds = Counter(thing.noun for thing in things)
        short = [
            (thing, thing.noun, "") if kinds[thing.noun] > 1 else (thing, *introduced(thing, scene, wording))
            for thing in things
        ]
        phrases = grouped(short)
    if len(phrases) > wording.objects:
        phrases = [*phrases[: wording.objects - 1], "other objects"]
    return join(phrases) if phrases else "a custom drawing"


def grouped(named: list[tuple[Thing, str, str]]) -> list[str]:
    """Things that are called alike become one phrase with their number."""
    groups: dict[tuple[str, str], list[Thing]] = {}
    for thing, name, rest in named:
        groups.setdefault((name, rest), []).append(thing)
    return [many(things, name) + rest for (name, rest), things in groups.items()]


def many(things: list[Thing], name: str) -> str:
    counts = [thing.count for thing in things]
    total = 0 if 0 in counts else sum(counts)
    if name.startswith("the "):  # a text is quoted, not counted
        return name if total == 1 else f"{name} {f'{number(total)} times' if total else 'several times'}"
    return counted(name, total)


def introduced(thing: Thing, scene: Scene, wording: Wording) -> tuple[str, str]:
    """A thing as it is first mentioned, without its article: "blue circle" and " of radius 2 at the top"."""
    if thing.label:
        name = f"the {thing.noun} {quoted(thing, wording)}" + (f" in {thing.color}" if thing.color else "")
    else:
        looks = " ".join([*(["filled"] if thing.filled and wording.details else []), *thing.color.split(), ""])
        own = " of " in thing.noun and thing.short and thing.noun.endswith(thing.short)  # set of [blue] stream lines
        name = thing.noun.removesuffix(thing.short) + looks + thing.short if own else looks + thing.noun
    return name, "".join(f" {part}" for part in surroundings(thing, scene, wording) if part)


def surroundings(thing: Thing, scene: Scene, wording: Wording) -> list[str]:
    """What comes after the name: its size or formula, what it belongs to, where it stands."""
    if not wording.details:
        return []
    parts = [] if thing.label else [thing.detail]
    if thing.relation and (wording.places or thing.relation[0] in BELONGING):
        parts.append(f"{thing.relation[0]} {mention(thing.relation[1], scene, wording)}")
    elif wording.places:
        parts.append(thing.place)
    return parts


def quoted(thing: Thing, wording: Wording) -> str:
    words = thing.label.split()
    text = " ".join(words[: wording.label]) + ("..." if len(words) > wording.label else "")
    text = text if len(text) <= 70 else text[:67].rsplit(" ", 1)[0] + "..."
    return f"${text}$" if thing.formula else '"' + text.replace('"', "'") + '"'


def mention(thing: Thing, scene: Scene, wording: Wording) -> str:
    """A thing that is already known: "the circle", "the blue circle", "the second circle"."""
    if thing.noun == "everything":
        return "everything"
    if thing.owner:
        return f"a part of {mention(thing.owner, scene, wording)}" if thing.noun == "part" else thing.noun
    if thing.members:
        return mention_group(thing, scene, wording)
    alike = [other for other in listed(scene) if other.short == thing.short]
    if thing.count != 1:
        return f"the {plural(thing.short)}"
    if len(alike) <= 1 or thing not in alike:
        return f"the {thing.short}"
    return f"the {told_apart(thing, alike, wording)}"


def told_apart(thing: Thing, alike: list[Thing], wording: Wording) -> str:
    if thing.label and [other.label for other in alike].count(thing.label) == 1:
        return f"{thing.short} {quoted(thing, wording)}"
    if thing.color and [other.color for other in alike].count(thing.color) == 1 and not thing.label:
        return f"{thing.color} {thing.short}"
    ordinals = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    place = alike.index(thing)
    return (
        f"{ordinals[place]} {thing.short}"
        if place < len(ordinals) and all(o.count == 1 for o in alike)
        else thing.short
    )


def mention_group(thing: Thing, scene: Scene, wording: Wording) -> str:
    leaves = thing.leaves()
    if not leaves:
        return "the group"
    nouns = {leaf.short for leaf in leaves}
    if len(nouns) == 1 and (len(leaves) > 1 or leaves[0].count != 1):
        return f"the {plural(leaves[0].short)}"
    if len(leaves) <= 2:
        return join([mention(leaf, scene, wording) for leaf in leaves])
    return "the whole group"


def story(scene: Scene, wording: Wording) -> list[str]:
    """What happens, as sentences of at most two steps each."""
    phrases = merged([phrase for step in trimmed(scene.steps, wording) if (phrase := told(step, scene, wording))])
    if len(phrases) > wording.steps:
        phrases = [*phrases[: wording.steps - 1], phrases[-1]]
    return sentences(phrases) + rules(scene, wording)


def rules(scene: Scene, wording: Wording) -> list[str]:
    """What holds all the time, as one sentence."""
    phrases = merged([phrase for rule in scene.rules if (phrase := told(rule, scene, wording))])[
        : max(1, wording.steps // 4)
    ]
    return [f"Throughout, {join(phrases)}."] if phrases else []


def trimmed(steps: list[Step], wording: Wording) -> list[Step]:
    """Pauses at the end and at the beginning say nothing; elsewhere they are the first thing to leave out."""
    kept = [step for step in steps if wording.times or not is_pause(step)]
    while kept and is_pause(kept[-1]):
        kept.pop()
    while kept and is_pause(kept[0]):
        kept.pop(0)
    return kept


def is_pause(step: Step) -> bool:
    return len(step.motions) == 1 and step.motions[0].is_pause()


def moves(scene: Scene) -> bool:
    """Whether anything happens after the first picture."""
    return bool(scene.rules) or any(not is_pause(step) for step in scene.steps)


def told(step: Step, scene: Scene, wording: Wording) -> str:
    """One step in words: motions of one kind share their verb, others happen "while"."""
    phrases = together(step.motions, scene, wording)
    if not phrases:
        return ""
    apart = any(motion.manner for motion in step.motions)  # "one after another" says when already
    text = join(phrases) if len(phrases) == 1 or apart else f"{join(phrases)} at the same time"
    seconds = step.seconds or next((motion.seconds for motion in step.motions if motion.seconds), None)
    if is_pause(step):
        return f"pause for {amount(seconds)} seconds" if seconds and seconds != 1 else "pause"
    if wording.times and seconds and seconds != 1:
        text += f" over {amount(seconds)} seconds"
    return f"{text}, again and again" if step.repeated else text


def together(motions: list[Motion], scene: Scene, wording: Wording) -> list[str]:
    """The motions of one moment; those that do the same to several things become one phrase."""
    shared: dict[str, list[Thing]] = {}
    phrases: list[str] = []
    for motion in motions:
        if motion.inner:
            phrases.append(composed(motion, scene, wording))
        elif len(motion.acts) == 1 and not motion.acts[0].target and motion.subjects:
            if motion.acts[0].phrase not in shared:
                phrases.append(motion.acts[0].phrase)
            shared.setdefault(motion.acts[0].phrase, []).extend(motion.subjects)
        else:
            phrases.append(chained(motion, scene, wording))
    return [
        phrase.replace("{x}", subjects(shared[phrase], scene, wording)) if phrase in shared else phrase
        for phrase in phrases
        if phrase
    ]


def composed(motion: Motion, scene: Scene, wording: Wording) -> str:
    phrases = together(motion.inner, scene, wording)
    return f"{join(phrases)} {motion.manner}".strip() if phrases else ""


def chained(motion: Motion, scene: Scene, wording: Wording) -> str:
    """`square.animate.shift(RIGHT).scale(2)`: "move the square to the right and enlarge it"."""
    subject = subjects(motion.subjects, scene, wording)
    pronoun = (
        "it"
        if len(motion.subjects) == 1 and motion.subjects[0].count == 1 and not motion.subjects[0].members
        else "them"
    )
    phrases = [
        acted(act, subject if not index else pronoun, scene, wording) for index, act in enumerate(motion.acts[:3])
    ]
    return join(phrases) if phrases else ""


def acted(act: Act, subject: str, scene: Scene, wording: Wording) -> str:
    target = mention(act.target, scene, wording) if act.target else "something new"
    return act.phrase.replace("{x}", subject).replace("{y}", target)


def subjects(things: list[Thing], scene: Scene, wording: Wording) -> str:
    names = list(dict.fromkeys(mention(thing, scene, wording) for thing in things))
    if not names:
        return "the object"
    kinds = {thing.short for thing in things}
    if len(names) > 3 and len(kinds) == 1:
        return f"the {number(len(names))} {plural(things[0].short)}"
    return join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and the other objects"


def merged(phrases: list[str]) -> list[str]:
    """The same step several times in a row is told once."""
    kept: list[str] = []
    for phrase in phrases:
        if not kept or kept[-1] != phrase:
            kept.append(phrase)
    return kept


def sentences(phrases: list[str]) -> list[str]:
    """First this, then that. Next these. Finally the last."""
    if len(phrases) <= 1:
        return [f"{phrase[:1].upper()}{phrase[1:]}." for phrase in phrases]
    if len(phrases) == 2:
        return [f"First {phrases[0]}, then {phrases[1]}."]
    if len(phrases) == 3:
        return [f"First {phrases[0]}, then {phrases[1]}, and finally {phrases[2]}."]
    pairs = [phrases[start : start + 2] for start in range(0, len(phrases) - 1, 2)]
    starts = ["First", *["Next", "After that", "Then"] * len(pairs)]
    told_pairs = [f"{start} {', then '.join(pair)}." for start, pair in zip(starts, pairs, strict=False)]
    if len(phrases) % 2:
        told_pairs.append(f"Finally {phrases[-1]}.")
    return told_pairs
