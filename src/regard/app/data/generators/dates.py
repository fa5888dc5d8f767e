"""Dates as people write them and as ISO 8601 does: a language pair that is generated, for a recipe to learn in a
minute."""

import datetime
import random

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
FIRST, LAST = datetime.date(1900, 1, 1).toordinal(), datetime.date(2099, 12, 31).toordinal()
FORMS = (
    "{weekday}, {day} {month} {year}",
    "{month} {day}, {year}",
    "the {day}{ending} of {month} {year}",
    "{month:.3} {day}{ending} {year}",
    "in {year} on {weekday:.3} {day} {month:.3}",
)


def dates(count: int, seed: int) -> tuple[list[str], list[str]]:
    """So many dates in words, and the same in figures.

    >>> dates(count=2, seed=0)
    (['Thursday, 1 April 2038', 'the 5th of December 2050'], ['2038-04-01', '2050-12-05'])
    """
    chance = random.Random(seed)
    days = [datetime.date.fromordinal(chance.randint(FIRST, LAST)) for _ in range(count)]
    return [_written(day, chance.choice(FORMS)) for day in days], [day.isoformat() for day in days]


def _written(date: datetime.date, form: str) -> str:
    ending = "th" if date.day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(date.day % 10, "th")
    weekday, month = DAYS[date.weekday()], MONTHS[date.month - 1]
    return form.format(weekday=weekday, day=date.day, ending=ending, month=month, year=date.year)
