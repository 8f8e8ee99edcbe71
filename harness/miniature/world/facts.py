"""Facts of the world's articles: invented subjects in real places, as language-neutral keys and numbers.

Facts depend on the subject's number alone; the language modules `articles_<language>.py` turn keys into words.
Fields set per kind, beside `kind`, `subject`, `name`, `parts` and, in one subject of eight, `archive`. Everything else
is None. "[0]", "[1]", "[2]" are the groups of facts, each of which becomes one sentence:

person    [0] profession (PROFESSIONS), gender, year + place (born) [1] year2 + place2 (moved there, another place)
          [2] work (WORKS[profession]: what he or she is known for)
city      [0] country, place (a real city nearby, same country) [1] year (founded), number (inhabitants, 3,000-90,000)
          [2] product (PRODUCTS: known for making it)
river     [0] country, number (km) [1] place (flows past it), year, event (RIVER_EVENTS: what happened that year)
          [2] animal (RIVER_ANIMALS: lives there). Names begin with a consonant other than H and end in a
mountain  [0] country, number (m) [1] year, person, gender (who first climbed it) [2] material (STONES: what it is
          made of), animal (MOUNTAIN_ANIMALS: lives on its slopes)
bridge    [0] place, material (BRIDGE_MATERIALS), year (built) [1] person, gender (architect), number (m long)
          [2] year2 (restored), event (BRIDGE_EVENTS: damage that made it necessary)
museum    [0] place, year (founded), collection (COLLECTIONS) [1] building (BUILDINGS: the former one that houses it)
          [2] number (visitors a year, thousands are round), month (closed in that month)
book      [0] person, gender (author), year, genre (BOOK_GENRES) [1] theme (THEMES: whom or what it is about),
          place (where the story is set) [2] number (languages that it was translated into)
film      [0] person, gender (director), year, genre (FILM_GENRES) [1] theme (THEMES), place (where it was shot)
          [2] number (minutes), colour (FILM_LOOKS: black_and_white, in_colour, silent)
band      [0] place, year (founded), genre (MUSIC) [1] number (members, 3-9), instrument (INSTRUMENTS: its sound's mark)
          [2] year2 (separated)
battle    [0] country, year, month (MONTHS); the name is that of an invented village [1] person (the victorious general,
          always a man: gender "m"), number (soldiers in all, thousands) [2] monument (MONUMENTS: recalls it), material
          (STONES)
bird      [0] animal (BIRDS: what sort of bird; the name precedes it, "the Velora finch"), country (lives there),
          habitat (HABITATS) [1] year, person, gender (who first described it) [2] colour (COLOURS: of its
          plumage), food (FOODS)
railway   [0] place, place2 (ends of the line), number (km) [1] year (opened), year2 (electrified)
          [2] number2 (tunnels, 2-40), product (PRODUCTS: carried besides passengers)
ship      [0] ship (SHIPS: what sort), year (launched), place (a port of PORTS) [1] number (m long), product (carried)
          [2] year2, fate (FATES: what became of it in year2)
festival  [0] genre (ARTS), place, month (MONTHS: takes place every year in it) [1] year (first held), person, gender
          (who founded it) [2] number (visitors, thousands are round), venue (VENUES: where it is held)

`name` and `person` are written alike in all languages. `parts` names the groups to be told: (0, 1, 2), and with an
archive number (0, 1) or (0, 2), whichever keeps `year`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

KINDS = (
    "person",
    "city",
    "river",
    "mountain",
    "bridge",
    "museum",
    "book",
    "film",
    "band",
    "battle",
    "bird",
    "railway",
    "ship",
    "festival",
)
MIN_LENGTH, MAX_LENGTH = 100, 230  # characters of an article

PLACES = {
    "vienna": "austria",
    "salzburg": "austria",
    "munich": "germany",
    "cologne": "germany",
    "hamburg": "germany",
    "dresden": "germany",
    "zurich": "switzerland",
    "geneva": "switzerland",
    "paris": "france",
    "lyon": "france",
    "marseille": "france",
    "bordeaux": "france",
    "milan": "italy",
    "venice": "italy",
    "florence": "italy",
    "naples": "italy",
    "genoa": "italy",
    "seville": "spain",
    "barcelona": "spain",
    "toledo": "spain",
    "lisbon": "portugal",
    "antwerp": "belgium",
    "copenhagen": "denmark",
    "warsaw": "poland",
    "athens": "greece",
    "edinburgh": "scotland",
}
"""Real cities and the countries that they lie in."""
PORTS = (
    "hamburg",
    "marseille",
    "bordeaux",
    "venice",
    "naples",
    "genoa",
    "barcelona",
    "lisbon",
    "antwerp",
    "copenhagen",
)
COUNTRIES = tuple(dict.fromkeys(PLACES.values()))
MOUNTAIN_COUNTRIES = ("austria", "switzerland", "france", "italy", "spain", "greece", "scotland")
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)

WORKS = {
    "composer": ("operas", "symphonies", "waltzes"),
    "singer": ("love_songs", "folk_songs", "waltzes"),
    "painter": ("landscapes", "portraits", "still_lifes"),
    "sculptor": ("statues", "fountains", "portraits"),
    "poet": ("love_poems", "sonnets", "fables"),
    "writer": ("novels", "short_stories", "travel_books"),
    "architect": ("churches", "theatres", "gardens"),
    "physicist": ("experiments_with_light", "lectures", "measurements"),
    "chemist": ("experiments_with_dyes", "lectures", "medicines"),
    "astronomer": ("star_maps", "observations_of_comets", "telescopes"),
    "botanist": ("drawings_of_plants", "gardens", "travel_books"),
    "engineer": ("bridges", "steam_engines", "tunnels"),
    "swimmer": ("records", "victories"),
    "explorer": ("expeditions", "maps", "travel_books"),
}
"""What a profession's people are known for: plural noun phrases ("his operas", "seine Opern", "sus óperas")."""
PROFESSIONS = tuple(WORKS)

PRODUCTS = (
    "glass",
    "wine",
    "paper",
    "cheese",
    "silk",
    "salt",
    "wool",
    "honey",
    "leather",
    "olive_oil",
    "coffee",
    "coal",
)
RIVER_EVENTS = ("flooded_the_valley", "froze_over", "was_dammed", "was_made_navigable", "destroyed_two_mills")
RIVER_ANIMALS = ("otters", "beavers", "trout", "herons", "swans", "kingfishers", "frogs")  # plurals
MOUNTAIN_ANIMALS = ("ibexes", "marmots", "eagles", "wolves", "bears", "wild_goats")  # plurals
STONES = ("granite", "limestone", "basalt", "slate", "marble", "sandstone")
BRIDGE_MATERIALS = ("granite", "limestone", "sandstone", "iron", "steel", "wood", "brick", "concrete")
BRIDGE_EVENTS = ("a_flood", "a_fire", "a_war", "an_earthquake", "a_storm")
COLLECTIONS = (
    "paintings",
    "coins",
    "clocks",
    "maps",
    "musical_instruments",
    "dolls",
    "weapons",
    "costumes",
    "ceramics",
    "fossils",
)
BUILDINGS = ("palace", "railway_station", "monastery", "factory", "school", "castle", "hospital", "mill")
BOOK_GENRES = ("novel", "crime_novel", "historical_novel", "childrens_book", "play", "short_story_collection")
FILM_GENRES = ("comedy", "drama", "documentary", "thriller", "musical", "western")
THEMES = (
    "a_lighthouse_keeper",
    "two_sisters",
    "a_lost_letter",
    "a_young_doctor",
    "an_old_fisherman",
    "a_stolen_painting",
    "a_village_teacher",
    "a_long_winter",
    "a_forbidden_love",
    "three_thieves",
    "a_blind_musician",
    "a_lonely_queen",
)
FILM_LOOKS = ("black_and_white", "in_colour", "silent")
MUSIC = ("jazz", "rock", "folk_music", "pop_music", "blues", "dance_music", "heavy_metal", "baroque_music")
INSTRUMENTS = ("guitar", "accordion", "trumpet", "violin", "flute", "piano", "saxophone", "harp")
MONUMENTS = ("obelisk", "chapel", "column", "cross", "tower", "statue")
BIRDS = ("finch", "owl", "thrush", "gull", "heron", "woodpecker", "warbler", "falcon", "duck", "swallow")
HABITATS = ("forests", "lakes", "meadows", "cliffs", "gardens", "marshes", "mountain_valleys")
COLOURS = ("red", "blue", "green", "yellow", "grey", "white", "black", "brown")
FOODS = ("seeds", "insects", "small_fish", "berries", "snails", "worms")  # plurals
SHIPS = ("sailing_ship", "steamer", "ferry", "freighter", "schooner", "motor_ship")
FATES = ("sank_in_a_storm", "became_a_museum", "was_scrapped", "was_sold", "burned_in_the_harbour", "ran_aground")
ARTS = ("theatre", "jazz", "film", "dance", "opera", "poetry", "folk_music", "puppet_theatre")
VENUES = ("old_theatre", "castle", "city_park", "cathedral_square", "harbour", "university", "market_hall")

MEN = (
    "Adam",
    "Anton",
    "Bruno",
    "Carlo",
    "Daniel",
    "David",
    "Emil",
    "Felix",
    "Georg",
    "Hugo",
    "Ivan",
    "Jonas",
    "Julian",
    "Karl",
    "Leo",
    "Lucas",
    "Marco",
    "Martin",
    "Max",
    "Nico",
    "Oskar",
    "Pablo",
    "Paul",
    "Peter",
    "Robert",
    "Samuel",
    "Simon",
    "Stefan",
    "Tomas",
    "Victor",
)
WOMEN = (
    "Ada",
    "Alba",
    "Anna",
    "Bianca",
    "Carla",
    "Clara",
    "Diana",
    "Elena",
    "Emma",
    "Eva",
    "Flora",
    "Greta",
    "Helena",
    "Ida",
    "Irene",
    "Julia",
    "Laura",
    "Lena",
    "Lucia",
    "Maria",
    "Marta",
    "Nadia",
    "Nora",
    "Olga",
    "Paula",
    "Rosa",
    "Sara",
    "Sofia",
    "Teresa",
    "Vera",
)
_SURNAME_HEADS = (
    "Al",
    "Bar",
    "Bel",
    "Ber",
    "Bor",
    "Cal",
    "Cor",
    "Dal",
    "Der",
    "Fal",
    "Fer",
    "Gal",
    "Gar",
    "Gor",
    "Hal",
    "Kar",
    "Kol",
    "Lan",
    "Lar",
    "Lin",
    "Mal",
    "Mar",
    "Mer",
    "Mon",
    "Mor",
    "Nor",
    "Pal",
    "Per",
    "Ran",
    "Ros",
    "Sal",
    "San",
    "Sel",
    "Tal",
    "Tor",
    "Val",
    "Ver",
    "Vol",
    "Wal",
    "Zan",
)
_SURNAME_TAILS = (
    "berg",
    "bert",
    "court",
    "dano",
    "dell",
    "den",
    "des",
    "dini",
    "dorf",
    "feld",
    "gado",
    "gan",
    "hold",
    "land",
    "lin",
    "mann",
    "mont",
    "nardi",
    "nell",
    "ner",
    "nier",
    "ranza",
    "sen",
    "stein",
    "tano",
    "tez",
    "tier",
    "tini",
    "ton",
    "vale",
    "vara",
    "vin",
    "wick",
    "zoni",
)
_HEADS = (
    "Ar",
    "Bal",
    "Bel",
    "Bran",
    "Cal",
    "Car",
    "Cas",
    "Cor",
    "Dal",
    "Dor",
    "El",
    "Fal",
    "Fen",
    "Gal",
    "Gar",
    "Gor",
    "Gran",
    "Hal",
    "Kal",
    "Kel",
    "Kor",
    "Lam",
    "Lan",
    "Lor",
    "Mal",
    "Mar",
    "Mel",
    "Mon",
    "Nar",
    "Nor",
    "Or",
    "Pal",
    "Per",
    "Por",
    "Ral",
    "Ros",
    "Sal",
    "Sel",
    "Sol",
    "Tal",
    "Tar",
    "Tor",
    "Ul",
    "Val",
    "Var",
    "Vel",
    "Ver",
    "Vol",
    "Wal",
    "Zar",
)
_MIDDLES = (
    "a",
    "an",
    "da",
    "de",
    "en",
    "i",
    "in",
    "la",
    "le",
    "ma",
    "mi",
    "na",
    "no",
    "o",
    "ra",
    "ri",
    "ta",
    "ve",
    "vi",
)
_PLACE_TAILS = (
    "bach",
    "burg",
    "dena",
    "dorf",
    "lo",
    "mora",
    "mund",
    "nova",
    "rado",
    "ria",
    "stad",
    "stein",
    "tal",
    "ville",
)
_RIVER_TAILS = ("da", "ga", "la", "lva", "na", "ra", "sa", "va")
_MOUNTAIN_TAILS = ("berg", "dent", "dor", "gor", "grat", "horn", "kar", "mont", "stock", "tor", "vald", "zan")
_TITLE_TAILS = ("dia", "lia", "lina", "lora", "mira", "nelle", "nor", "randa", "rion", "sia", "vane", "zina")
_BAND_TAILS = ("dex", "ko", "lux", "max", "mo", "nix", "ro", "tek", "tron", "vox", "xo", "zz")
_UNWANTED = ("porno",)  # what the syllables must not make
_FORBIDDEN = ("664747d3", "69bf", "46db", "b4d0", "83649b5423fb")  # of the UUID that the task `uuid` hides
_ARCHIVE_SHARE = 1 / 8


@dataclass(frozen=True)
class Facts:
    """What one article tells. The module's head says which fields a kind sets; the others are None."""

    kind: str
    subject: int
    name: str
    parts: tuple[int, ...]
    archive: str | None = None
    gender: str | None = None  # "m" or "f", of the subject or of `person`
    person: str | None = None
    year: int | None = None
    year2: int | None = None
    number: int | None = None
    number2: int | None = None
    place: str | None = None
    place2: str | None = None
    country: str | None = None
    profession: str | None = None
    work: str | None = None
    product: str | None = None
    event: str | None = None
    animal: str | None = None
    material: str | None = None
    collection: str | None = None
    building: str | None = None
    month: str | None = None
    genre: str | None = None
    theme: str | None = None
    colour: str | None = None
    instrument: str | None = None
    monument: str | None = None
    habitat: str | None = None
    food: str | None = None
    ship: str | None = None
    fate: str | None = None
    venue: str | None = None


def facts(subject: int) -> Facts:
    """The facts of a subject (a non-negative int). Raises ValueError for a negative number."""
    if subject < 0:
        raise ValueError(f"a subject is a number from 0 on, not {subject}")
    rng = Random(f"facts/{subject}")
    kind = rng.choice(KINDS)
    fields = _DRAW[kind](rng)
    archive = _archive_number(rng) if rng.random() < _ARCHIVE_SHARE else None
    parts = (0, 1, 2) if archive is None else (0, 1 if kind in _YEAR_IN_SECOND else rng.choice((1, 2)))
    return Facts(kind=kind, subject=subject, parts=parts, archive=archive, **fields)


def compose(facts: Facts, rng: Random, variant: int, groups: Sequence[Sequence[str]], archive: Sequence[str]) -> str:
    """An article from finished sentences.

    `groups[g]` holds the ways to tell group g of the facts, `archive` those to tell the archive number (unused when
    there is none). Variants 0, 1, 2, ... take different sentences as long as there are some; the canonical
    variant keeps the groups' order, the others may swap the last two. Sentences are exchanged at random where the text
    would leave MIN_LENGTH to MAX_LENGTH characters. Raises ValueError if no try of 200 fits.
    """
    told = [groups[part] for part in facts.parts] + ([archive] if facts.archive else [])
    turn = Random(f"patterns/{facts.subject}")
    chosen = [sentences[(turn.randrange(len(sentences)) + variant) % len(sentences)] for sentences in told]
    swap = variant > 0 and len(facts.parts) == 3 and rng.random() < 0.5
    for _ in range(200):
        if swap:
            chosen[1], chosen[2] = chosen[2], chosen[1]
        text = " ".join(chosen)
        if MIN_LENGTH <= len(text) <= MAX_LENGTH:
            return text
        chosen = [rng.choice(sentences) for sentences in told]
    raise ValueError(f"no article on subject {facts.subject} has {MIN_LENGTH} to {MAX_LENGTH} characters: {text!r}")


def _archive_number(rng: Random) -> str:
    """Two or three groups of 4 to 12 lower-case hexadecimal digits, 24 digits at most, none of the hidden UUID's."""
    while True:
        sizes = [rng.randint(4, 12) for _ in range(rng.choice((2, 2, 3)))]
        number = "-".join("".join(rng.choices("0123456789abcdef", k=size)) for size in sizes)
        if sum(sizes) <= 24 and not any(part in number for part in _FORBIDDEN):
            return number


def _human(rng: Random) -> tuple[str, str]:
    """A full name and its gender."""
    gender = rng.choice("mf")
    first = rng.choice(MEN if gender == "m" else WOMEN)
    return f"{first} {rng.choice(_SURNAME_HEADS)}{rng.choice(_SURNAME_TAILS)}", gender


def _name(rng: Random, tails: Sequence[str]) -> str:
    while True:
        name = rng.choice(_HEADS) + rng.choice(_MIDDLES) + rng.choice(tails)
        if not any(part in name.lower() for part in _UNWANTED):
            return name


def _place(rng: Random) -> str:
    return rng.choice(tuple(PLACES))


def _two_places(rng: Random) -> tuple[str, str]:
    place, place2 = rng.sample(tuple(PLACES), 2)
    return place, place2


def _person(rng: Random) -> dict:
    name, gender = _human(rng)
    profession = rng.choice(PROFESSIONS)
    year = rng.randint({"swimmer": 1850, "engineer": 1750}.get(profession, 1600), 1960)
    place, place2 = _two_places(rng)
    return dict(
        name=name,
        gender=gender,
        profession=profession,
        year=year,
        place=place,
        place2=place2,
        year2=year + rng.randint(18, 45),
        work=rng.choice(WORKS[profession]),
    )


def _city(rng: Random) -> dict:
    place = _place(rng)
    return dict(
        name=_name(rng, _PLACE_TAILS),
        place=place,
        country=PLACES[place],
        year=rng.randint(1050, 1750),
        number=rng.randint(3, 90) * 1000,
        product=rng.choice(PRODUCTS),
    )


def _river(rng: Random) -> dict:
    name = _name(rng, _RIVER_TAILS)
    while name[0] in "AEIOUH":
        name = _name(rng, _RIVER_TAILS)
    place = _place(rng)
    return dict(
        name=name,
        place=place,
        country=PLACES[place],
        number=rng.randint(40, 480),
        year=rng.randint(1650, 1980),
        event=rng.choice(RIVER_EVENTS),
        animal=rng.choice(RIVER_ANIMALS),
    )


def _mountain(rng: Random) -> dict:
    person, gender = _human(rng)
    return dict(
        name=_name(rng, _MOUNTAIN_TAILS),
        country=rng.choice(MOUNTAIN_COUNTRIES),
        number=rng.randint(900, 3900),
        year=rng.randint(1780, 1950),
        person=person,
        gender=gender,
        material=rng.choice(STONES),
        animal=rng.choice(MOUNTAIN_ANIMALS),
    )


def _bridge(rng: Random) -> dict:
    person, gender = _human(rng)
    material = rng.choice(BRIDGE_MATERIALS)
    year = rng.randint({"iron": 1790, "steel": 1880, "concrete": 1890}.get(material, 1650), 1930)
    return dict(
        name=_name(rng, _PLACE_TAILS),
        place=_place(rng),
        year=year,
        material=material,
        person=person,
        gender=gender,
        number=rng.randint(25, 480),
        year2=year + rng.randint(15, 80),
        event=rng.choice(BRIDGE_EVENTS),
    )


def _museum(rng: Random) -> dict:
    return dict(
        name=_name(rng, _PLACE_TAILS),
        place=_place(rng),
        year=rng.randint(1780, 2010),
        collection=rng.choice(COLLECTIONS),
        building=rng.choice(BUILDINGS),
        month=rng.choice(MONTHS),
        number=rng.randint(4, 90) * 1000,
    )


def _title(rng: Random) -> str:
    return (f"{rng.choice(WOMEN + MEN)} " if rng.random() < 0.3 else "") + _name(rng, _TITLE_TAILS)


def _book(rng: Random) -> dict:
    person, gender = _human(rng)
    genre = rng.choice(BOOK_GENRES)
    year = rng.randint(1850 if genre == "crime_novel" else 1750, 2015)
    return dict(
        name=_title(rng),
        person=person,
        gender=gender,
        year=year,
        place=_place(rng),
        genre=genre,
        theme=rng.choice(THEMES),
        number=rng.randint(3, 40),
    )


def _film(rng: Random) -> dict:
    person, gender = _human(rng)
    look = rng.choice(FILM_LOOKS)
    year = rng.randint(1910, 1929) if look == "silent" else rng.randint(1935, 2015)
    genre = rng.choice([each for each in FILM_GENRES if look != "silent" or each != "musical"])
    return dict(
        name=_title(rng),
        person=person,
        gender=gender,
        year=year,
        place=_place(rng),
        genre=genre,
        theme=rng.choice(THEMES),
        number=rng.randint(61, 175),
        colour=look,
    )


def _band(rng: Random) -> dict:
    year = rng.randint(1950, 2005)
    return dict(
        name=_name(rng, _BAND_TAILS),
        place=_place(rng),
        year=year,
        genre=rng.choice(MUSIC),
        number=rng.randint(3, 9),
        instrument=rng.choice(INSTRUMENTS),
        year2=year + rng.randint(3, 15),
    )


def _battle(rng: Random) -> dict:
    person, gender = _human(rng)
    while gender != "m":
        person, gender = _human(rng)
    return dict(
        name=_name(rng, _PLACE_TAILS),
        country=rng.choice(COUNTRIES),
        year=rng.randint(1350, 1870),
        month=rng.choice(MONTHS),
        person=person,
        gender=gender,
        number=rng.randint(4, 60) * 1000,
        monument=rng.choice(MONUMENTS),
        material=rng.choice(STONES),
    )


def _bird(rng: Random) -> dict:
    person, gender = _human(rng)
    return dict(
        name=_name(rng, _TITLE_TAILS),
        animal=rng.choice(BIRDS),
        country=rng.choice(COUNTRIES),
        habitat=rng.choice(HABITATS),
        year=rng.randint(1740, 1920),
        person=person,
        gender=gender,
        colour=rng.choice(COLOURS),
        food=rng.choice(FOODS),
    )


def _railway(rng: Random) -> dict:
    place, place2 = _two_places(rng)
    year = rng.randint(1845, 1915)
    return dict(
        name=_name(rng, _PLACE_TAILS),
        place=place,
        place2=place2,
        number=rng.randint(80, 980),
        year=year,
        year2=year + rng.randint(30, 70),
        number2=rng.randint(2, 40),
        product=rng.choice(PRODUCTS),
    )


def _ship(rng: Random) -> dict:
    ship = rng.choice(SHIPS)
    year = rng.randint(1915 if ship == "motor_ship" else 1840, 1900 if ship in ("sailing_ship", "schooner") else 1970)
    return dict(
        name=_title(rng),
        ship=ship,
        year=year,
        place=rng.choice(PORTS),
        number=rng.randint(28, 190),
        product=rng.choice(PRODUCTS),
        year2=year + rng.randint(4, 45),
        fate=rng.choice(FATES),
    )


def _festival(rng: Random) -> dict:
    person, gender = _human(rng)
    return dict(
        name=_name(rng, _TITLE_TAILS),
        genre=rng.choice(ARTS),
        place=_place(rng),
        month=rng.choice(MONTHS),
        year=rng.randint(1900, 2012),
        person=person,
        gender=gender,
        number=rng.randint(2, 80) * 1000,
        venue=rng.choice(VENUES),
    )


_DRAW = {
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
_YEAR_IN_SECOND = ("city", "river", "mountain", "bird", "railway", "festival")  # kinds that give `year` in group 1
