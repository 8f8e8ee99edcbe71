"""English articles: words for the keys of `facts`, and the sentences of every kind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .facts import Facts, compose

# Keys that are not their own English word; all others are read with spaces for underscores.
_WORDS = {
    "childrens_book": "children's book",
    "short_story_collection": "collection of short stories",
    "folk_music": "folk",
    "pop_music": "pop",
    "dance_music": "dance",
    "baroque_music": "baroque",
    "flooded_the_valley": "flooded the whole valley",
    "was_made_navigable": "was made navigable for ships",
    "black_and_white": "in black and white",
    "silent": "without sound",
}
_AT = {"lakes": "by", "cliffs": "on"}  # all other habitats: in
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _word(key: str) -> str:
    return _WORDS.get(key, key.replace("_", " "))


def _proper(key: str) -> str:
    """A place, country or month: our keys are their English names."""
    return key.capitalize()


def _a(phrase: str) -> str:
    """The phrase with its indefinite article."""
    # None of our nouns and adjectives starts with a silent h or with a vowel that is read as a consonant.
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _up(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _person(f: Facts) -> list[list[str]]:
    he, him, his = ("he", "him", "his") if f.gender == "m" else ("she", "her", "her")
    profession, place, place2, work = _word(f.profession), _proper(f.place), _proper(f.place2), _word(f.work)
    return [
        [
            f"{f.name} was {_a(profession)} born in {place} in {f.year}.",
            f"Born in {place} in {f.year}, {f.name} became {_a(profession)}.",
            f"The {profession} {f.name} was born in {f.year} in {place}.",
            f"{f.name}, who was born in {place} in {f.year}, worked as {_a(profession)}.",
        ],
        [
            f"In {f.year2} {he} moved to {place2}.",
            f"{_up(he)} settled in {place2} in {f.year2}.",
            f"From {f.year2} on {he} lived and worked in {place2}.",
            f"The year {f.year2} took {him} to {place2}, where {he} stayed.",
        ],
        [
            f"{_up(he)} is best known for {his} {work}.",
            f"{_up(his)} {work} made {him} famous.",
            f"Today {he} is remembered above all for {his} {work}.",
            f"{_up(his)} fame rests on {his} {work}.",
        ],
    ]


def _city(f: Facts) -> list[list[str]]:
    place, country, product = _proper(f.place), _proper(f.country), _word(f.product)
    return [
        [
            f"{f.name} is a town in {country}, not far from {place}.",
            f"The town of {f.name} lies near {place} in {country}.",
            f"Not far from {place}, in {country}, lies the town of {f.name}.",
            f"{f.name}, a town in {country}, can be found close to {place}.",
        ],
        [
            f"It was founded in {f.year} and has about {f.number:,} inhabitants.",
            f"Founded in {f.year}, it is home to some {f.number:,} people.",
            f"About {f.number:,} people live in this place, which dates from {f.year}.",
            f"Its history goes back to {f.year}, and its population is about {f.number:,}.",
        ],
        [
            f"It is known for its {product}.",
            f"Its {product} is famous far beyond the region.",
            f"Many of its families live by the trade in {product}.",
            f"Merchants come from far away to buy its {product}.",
        ],
    ]


def _river(f: Facts) -> list[list[str]]:
    place, country, animals, event = _proper(f.place), _proper(f.country), _word(f.animal), _word(f.event)
    return [
        [
            f"The {f.name} is a river in {country} with a length of {f.number} kilometres.",
            f"The {f.name}, a river in {country}, is {f.number} kilometres long.",
            f"Over {f.number} kilometres the river {f.name} flows through {country}.",
            f"The river {f.name} crosses {country} and measures {f.number} kilometres.",
        ],
        [
            f"It flows past {place} and {event} in {f.year}.",
            f"On its way it passes {place}, and in {f.year} it {event}.",
            f"In {f.year} the river, which passes {place}, {event}.",
            f"The city of {place} lies on it, and in {f.year} the river {event}.",
        ],
        [
            f"Its waters are home to {animals}.",
            f"{_up(animals)} are often seen there.",
            f"Visitors can watch {animals} on its banks.",
            f"It is known for its {animals}.",
        ],
    ]


def _mountain(f: Facts) -> list[list[str]]:
    country, stone, animals = _proper(f.country), _word(f.material), _word(f.animal)
    return [
        [
            f"The {f.name} is a mountain in {country}, {f.number:,} metres high.",
            f"The {f.name}, a mountain in {country}, rises to {f.number:,} metres.",
            f"The summit of the {f.name} in {country} is {f.number:,} metres high.",
            f"At {f.number:,} metres the {f.name} towers over the valleys of {country}.",
        ],
        [
            f"It was first climbed in {f.year} by {f.person}.",
            f"{f.person} first reached the top in {f.year}.",
            f"The first person at the top was {f.person} in {f.year}.",
            f"In {f.year} {f.person} became the first to climb it.",
        ],
        [
            f"It consists of {stone}, and {animals} live on its slopes.",
            f"{_up(animals)} live on its slopes of {stone}.",
            f"Its rock is {stone}; its slopes are home to {animals}.",
            f"Between its rocks of {stone} hikers meet {animals}.",
        ],
    ]


def _bridge(f: Facts) -> list[list[str]]:
    place, material, event = _proper(f.place), _word(f.material), _word(f.event)
    return [
        [
            f"The {f.name} Bridge in {place} was built of {material} in {f.year}.",
            f"Built in {f.year}, the {f.name} Bridge in {place} is made of {material}.",
            f"The {f.name} Bridge, made of {material}, has stood in {place} since {f.year}.",
            f"In {f.year} the {f.name} Bridge was put up in {place} out of {material}.",
        ],
        [
            f"It is {f.number} metres long and was designed by {f.person}.",
            f"The architect {f.person} designed it; it measures {f.number} metres.",
            f"Its plans were drawn by {f.person}, and its length is {f.number} metres.",
            f"{f.person} was the architect of the work, which is {f.number} metres long.",
        ],
        [
            f"After {event} it was restored in {f.year2}.",
            f"{_up(event)} made repairs necessary in {f.year2}.",
            f"It was damaged by {event} and repaired in {f.year2}.",
            f"In {f.year2} it had to be restored because of {event}.",
        ],
    ]


def _museum(f: Facts) -> list[list[str]]:
    place, things, building, month = _proper(f.place), _word(f.collection), _word(f.building), _proper(f.month)
    return [
        [
            f"The {f.name} Museum in {place} was founded in {f.year} and shows {things}.",
            f"Founded in {f.year}, the {f.name} Museum in {place} is devoted to {things}.",
            f"The {f.name} Museum, opened in {place} in {f.year}, collects {things}.",
            f"Since {f.year} the {f.name} Museum in {place} has displayed {things}.",
        ],
        [
            f"It is housed in a former {building}.",
            f"A former {building} serves as its home.",
            f"Its building used to be {_a(building)}.",
            f"In earlier times its rooms belonged to {_a(building)}.",
        ],
        [
            f"About {f.number:,} people visit it every year; it is closed in {month}.",
            f"It receives some {f.number:,} visitors a year but closes in {month}.",
            f"Closed only in {month}, it attracts about {f.number:,} visitors a year.",
            f"Every year some {f.number:,} guests come, though never in {month}.",
        ],
    ]


def _book(f: Facts) -> list[list[str]]:
    place, genre, theme = _proper(f.place), _word(f.genre), _word(f.theme)
    return [
        [
            f'"{f.name}" is {_a(genre)} by {f.person}, published in {f.year}.',
            f'In {f.year} {f.person} published the {genre} "{f.name}".',
            f'{f.person} wrote the {genre} "{f.name}", which appeared in {f.year}.',
            f'The {genre} "{f.name}" by {f.person} came out in {f.year}.',
        ],
        [
            f"It tells of {theme} in {place}.",
            f"The story is set in {place} and is about {theme}.",
            f"Set in {place}, it tells the story of {theme}.",
            f"It takes the reader to {place} and speaks of {theme}.",
        ],
        [
            f"It has been translated into {f.number} languages.",
            f"Readers know it in {f.number} languages.",
            f"Translations into {f.number} languages exist.",
            f"Today it can be read in {f.number} languages.",
        ],
    ]


def _film(f: Facts) -> list[list[str]]:
    place, genre, theme, look = _proper(f.place), _word(f.genre), _word(f.theme), _word(f.colour)
    return [
        [
            f'"{f.name}" is {_a(genre)} by {f.person}, released in {f.year}.',
            f'{f.person} directed the {genre} "{f.name}" in {f.year}.',
            f'The {genre} "{f.name}" by {f.person} came to the cinemas in {f.year}.',
            f'In {f.year} {f.person} presented the {genre} "{f.name}".',
        ],
        [
            f"It was shot in {place} and tells of {theme}.",
            f"Filmed in {place}, it is about {theme}.",
            f"The story of {theme} was shot in {place}.",
            f"It tells the story of {theme}; {place} served as the setting.",
        ],
        [
            f"It is {f.number} minutes long and was made {look}.",
            f"The film, made {look}, lasts {f.number} minutes.",
            f"It runs for {f.number} minutes and was shot {look}.",
            f"Made {look}, it lasts {f.number} minutes.",
        ],
    ]


def _band(f: Facts) -> list[list[str]]:
    place, genre, instrument, number = _proper(f.place), _word(f.genre), _word(f.instrument), _NUMBERS[f.number]
    return [
        [
            f"{f.name} was {_a(genre)} band founded in {place} in {f.year}.",
            f"The {genre} band {f.name} was formed in {f.year} in {place}.",
            f"In {f.year} the {genre} band {f.name} was founded in {place}.",
            f"{f.name}, {_a(genre)} band from {place}, began to play in {f.year}.",
        ],
        [
            f"It had {number} members, and the {instrument} marked its sound.",
            f"Its {number} members gave the {instrument} a leading part.",
            f"The {instrument} shaped the sound of its {number} musicians.",
            f"Its {number} musicians built their sound around the {instrument}.",
        ],
        [
            f"The group broke up in {f.year2}.",
            f"It gave its last concert in {f.year2}.",
            f"In {f.year2} the musicians went their separate ways.",
            f"Its history ended in {f.year2}.",
        ],
    ]


def _battle(f: Facts) -> list[list[str]]:
    country, month, stone, monument = _proper(f.country), _proper(f.month), _word(f.material), _a(_word(f.monument))
    return [
        [
            f"The Battle of {f.name} was fought in {country} in {month} {f.year}.",
            f"In {month} {f.year} the Battle of {f.name} took place in {country}.",
            f"The Battle of {f.name} in {country} dates from {month} {f.year}.",
            f"Near {f.name} in {country} a battle was fought in {month} {f.year}.",
        ],
        [
            f"About {f.number:,} soldiers took part, and General {f.person} won.",
            f"General {f.person} won this fight of some {f.number:,} soldiers.",
            f"Some {f.number:,} men fought there, and {f.person} led the winners.",
            f"The victory went to General {f.person}; about {f.number:,} men had fought.",
        ],
        [
            f"{_up(monument)} of {stone} recalls the dead.",
            f"Today {monument} of {stone} stands on the field.",
            f"The dead are remembered by {monument} of {stone}.",
            f"On the field there is now {monument} of {stone}.",
        ],
    ]


def _bird(f: Facts) -> list[list[str]]:
    name, country, habitat, food = f"{f.name} {_word(f.animal)}", _proper(f.country), _word(f.habitat), _word(f.food)
    colour, where = _word(f.colour), f"{_AT.get(f.habitat, 'in')} the {habitat} of {country}"
    return [
        [
            f"The {name} is a bird found {where}.",
            f"The {name} lives {where}.",
            f"{_up(where)} lives the {name}.",
            f"The {habitat} of {country} are the home of the {name}.",
        ],
        [
            f"It was first described in {f.year} by {f.person}.",
            f"{f.person} was the first to describe it, in {f.year}.",
            f"Science has known it since {f.year}, thanks to {f.person}.",
            f"The first description of it was written by {f.person} in {f.year}.",
        ],
        [
            f"Its plumage is {colour}, and it feeds on {food}.",
            f"It has {colour} feathers and eats {food}.",
            f"The {colour} bird feeds mainly on {food}.",
            f"It lives on {food} and can be told by its {colour} feathers.",
        ],
    ]


def _railway(f: Facts) -> list[list[str]]:
    place, place2, product = _proper(f.place), _proper(f.place2), _word(f.product)
    return [
        [
            f"The {f.name} Railway links {place} and {place2} over {f.number} kilometres.",
            f"The {f.name} Railway runs for {f.number} kilometres from {place} to {place2}.",
            f"Between {place} and {place2} the {f.name} Railway covers {f.number} kilometres.",
            f"{place} and {place2} are joined by the {f.name} Railway, {f.number} kilometres long.",
        ],
        [
            f"It was opened in {f.year} and electrified in {f.year2}.",
            f"Opened in {f.year}, it has been electric since {f.year2}.",
            f"Trains have used it since {f.year}, with electric power from {f.year2}.",
            f"It has been in use since {f.year} and was electrified in {f.year2}.",
        ],
        [
            f"It has {f.number2} tunnels and also carries {product}.",
            f"Besides passengers it carries {product}, through {f.number2} tunnels.",
            f"Its trains bring {product} and travellers through {f.number2} tunnels.",
            f"People and {product} pass through its {f.number2} tunnels.",
        ],
    ]


def _ship(f: Facts) -> list[list[str]]:
    ship, place, product, fate = _word(f.ship), _proper(f.place), _word(f.product), _word(f.fate)
    return [
        [
            f"The {f.name} was {_a(ship)} launched in {place} in {f.year}.",
            f"The {ship} {f.name} was launched in {place} in {f.year}.",
            f"In {f.year} the {ship} {f.name} left the shipyard in {place}.",
            f"Launched in {place} in {f.year}, the {f.name} was {_a(ship)}.",
        ],
        [
            f"It was {f.number} metres long and carried {product}.",
            f"Its usual cargo was {product}, and it measured {f.number} metres.",
            f"With a length of {f.number} metres, it transported {product}.",
            f"It took {product} across the sea and was {f.number} metres long.",
        ],
        [
            f"In {f.year2} it {fate}.",
            f"The ship {fate} in {f.year2}.",
            f"Many voyages later, in {f.year2}, it {fate}.",
            f"It served until {f.year2}, when it {fate}.",
        ],
    ]


def _festival(f: Facts) -> list[list[str]]:
    art, place, month, venue = f.genre.replace("_", " "), _proper(f.place), _proper(f.month), f"the {_word(f.venue)}"
    return [
        [
            f"The {f.name} Festival is {_a(art)} festival held in {place} every {month}.",
            f"Every {month} the {f.name} Festival brings {art} to {place}.",
            f"The {f.name} Festival in {place} is devoted to {art} and takes place in {month}.",
            f"{place} celebrates {art} every {month} at the {f.name} Festival.",
        ],
        [
            f"It was founded in {f.year} by {f.person}.",
            f"{f.person} started it in {f.year}.",
            f"It goes back to {f.person} and was first held in {f.year}.",
            f"The first festival was held in {f.year}, led by {f.person}.",
        ],
        [
            f"It is held at {venue} and draws about {f.number:,} people.",
            f"Some {f.number:,} visitors come to {venue} for it.",
            f"About {f.number:,} guests meet at {venue}.",
            f"It brings some {f.number:,} people to {venue}.",
        ],
    ]


_WRITE: dict[str, Callable[[Facts], list[list[str]]]] = {
    "person": _person,
    "city": _city,
    "river": _river,
    "mountain": _mountain,
    "bridge": _bridge,
    "museum": _museum,
    "book": _book,
    "film": _film,
    "band": _band,
    "battle": _battle,
    "bird": _bird,
    "railway": _railway,
    "ship": _ship,
    "festival": _festival,
}


def write(facts: Facts, rng: Random, variant: int) -> str:
    """The English article: `variant` as in `facts.compose`, `rng` decides what it leaves open."""
    its, it = ("Its", "it") if facts.kind != "person" else ("His", "him") if facts.gender == "m" else ("Her", "her")
    archive = [
        f"{its} archive number is {facts.archive}.",
        f"The archive lists {it} under the number {facts.archive}.",
        f"{its} entry in the archive bears the number {facts.archive}.",
    ]
    return compose(facts, rng, variant, _WRITE[facts.kind](facts), archive)
