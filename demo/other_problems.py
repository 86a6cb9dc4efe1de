"""Made-up questions for the example tasks of ``tasks/``, from the letter of a drink to a small calculation."""

from __future__ import annotations

import random
from collections.abc import Callable

from demo.problem import NAMES, Problem, numbers

DRINKS = ("tea", "milk", "juice", "water", "coffee", "soup", "beer", "wine", "cocoa", "cider")
CITIES = ("Rome", "Oslo", "Lima", "Bonn", "Kyiv", "Riga")


def choice(rng: random.Random) -> Problem:
    """Which letter stands before a drink?"""
    drinks = rng.sample(DRINKS, 4)
    wanted = rng.randrange(4)
    letter, name = "ABCD"[wanted], rng.choice(NAMES)
    listed = " ".join(f"{mark}) {drink}" for mark, drink in zip("ABCD", drinks, strict=True))
    verb, easy = rng.choice((("wants", True), ("asks for", False), ("orders", False)))
    question = f"{name} {verb} {drinks[wanted]}. Which is it? {listed}"
    return Problem(question, f"{drinks[wanted]} is {letter}", letter, ("choice", name, *drinks, letter), easy)


def person(rng: random.Random) -> Problem:
    """A sentence as an object."""
    name, age, city = rng.choice(NAMES), rng.randint(18, 79), rng.choice(CITIES)
    form, easy = rng.choice((
        ("{} is {} and lives in {}.", True), ("{}, aged {}, is from {}.", False), ("{} ({}) moved to {}.", False),
    ))  # fmt: skip
    found = {"name": name, "age": age, "city": city}
    return Problem(form.format(name, age, city), f"{name}, {age}, {city}", found, ("person", name, age, city), easy)


def countdown(rng: random.Random) -> Problem:
    """Two numbers, and what they make."""
    a, b = numbers(rng)
    sign, target = rng.choice((("+", a + b), ("-", a - b)))
    form, easy = rng.choice((
        ("Use {} and {} to make {}.", True), ("From {} and {} make {}.", False), ("Reach {2} with {0} and {1}.", False),
    ))  # fmt: skip
    game = {"numbers": [a, b], "target": target}
    return Problem(
        form.format(a, b, target), f"{a} {sign} {b} = {target}", game, (sign, a, b), easy, said=f"{a} {sign} {b}"
    )


MAKERS: dict[str, Callable[[random.Random], Problem]] = {"choice": choice, "person": person, "countdown": countdown}
# By which characters of a right reply a model is told to know the answer.
TELLING = {"choice": "ABCD", "person": "0123456789", "countdown": "+-0123456789"}
