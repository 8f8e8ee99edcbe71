"""German words for the keys of `facts`, with their genders and forms; the sentences are in `articles_de`."""

from __future__ import annotations

NAMES = {
    "vienna": "Wien",
    "munich": "München",
    "cologne": "Köln",
    "zurich": "Zürich",
    "geneva": "Genf",
    "milan": "Mailand",
    "venice": "Venedig",
    "florence": "Florenz",
    "naples": "Neapel",
    "genoa": "Genua",
    "seville": "Sevilla",
    "lisbon": "Lissabon",
    "antwerp": "Antwerpen",
    "copenhagen": "Kopenhagen",
    "warsaw": "Warschau",
    "athens": "Athen",
    "austria": "Österreich",
    "germany": "Deutschland",
    "switzerland": "Schweiz",
    "france": "Frankreich",
    "italy": "Italien",
    "spain": "Spanien",
    "belgium": "Belgien",
    "denmark": "Dänemark",
    "poland": "Polen",
    "greece": "Griechenland",
    "scotland": "Schottland",
    "january": "Januar",
    "february": "Februar",
    "march": "März",
    "may": "Mai",
    "june": "Juni",
    "july": "Juli",
    "october": "Oktober",
    "december": "Dezember",
}
"""Places, countries and months whose key is not their German name."""

PROFESSIONS = {
    "composer": "Komponist",
    "singer": "Sänger",
    "painter": "Maler",
    "sculptor": "Bildhauer",
    "poet": "Dichter",
    "writer": "Schriftsteller",
    "architect": "Architekt",
    "physicist": "Physiker",
    "chemist": "Chemiker",
    "astronomer": "Astronom",
    "botanist": "Botaniker",
    "engineer": "Ingenieur",
    "swimmer": "Schwimmer",
    "explorer": "Entdecker",
}
PLURALS = {
    "operas": "Opern",
    "symphonies": "Sinfonien",
    "waltzes": "Walzer",
    "love_songs": "Liebeslieder",
    "folk_songs": "Volkslieder",
    "landscapes": "Landschaftsbilder",
    "portraits": "Porträts",
    "still_lifes": "Stillleben",
    "statues": "Statuen",
    "fountains": "Brunnen",
    "love_poems": "Liebesgedichte",
    "sonnets": "Sonette",
    "fables": "Fabeln",
    "novels": "Romane",
    "short_stories": "Kurzgeschichten",
    "travel_books": "Reisebücher",
    "churches": "Kirchen",
    "theatres": "Theater",
    "gardens": "Gärten",
    "experiments_with_light": "Versuche mit Licht",
    "lectures": "Vorlesungen",
    "measurements": "Messungen",
    "experiments_with_dyes": "Versuche mit Farbstoffen",
    "medicines": "Heilmittel",
    "star_maps": "Sternkarten",
    "observations_of_comets": "Beobachtungen von Kometen",
    "telescopes": "Fernrohre",
    "drawings_of_plants": "Zeichnungen von Pflanzen",
    "bridges": "Brücken",
    "steam_engines": "Dampfmaschinen",
    "tunnels": "Tunnel",
    "records": "Rekorde",
    "victories": "Siege",
    "expeditions": "Expeditionen",
    "maps": "Landkarten",
    "otters": "Otter",
    "beavers": "Biber",
    "trout": "Forellen",
    "herons": "Reiher",
    "swans": "Schwäne",
    "kingfishers": "Eisvögel",
    "frogs": "Frösche",
    "ibexes": "Steinböcke",
    "marmots": "Murmeltiere",
    "eagles": "Adler",
    "wolves": "Wölfe",
    "bears": "Bären",
    "wild_goats": "Wildziegen",
    "paintings": "Gemälde",
    "coins": "Münzen",
    "clocks": "Uhren",
    "musical_instruments": "Musikinstrumente",
    "dolls": "Puppen",
    "weapons": "Waffen",
    "costumes": "Kostüme",
    "ceramics": "Keramik",
    "fossils": "Fossilien",
    "seeds": "Samen",
    "insects": "Insekten",
    "small_fish": "kleine Fische",
    "berries": "Beeren",
    "snails": "Schnecken",
    "worms": "Würmer",
}
NOUNS = {
    "glass": "n Glas",
    "wine": "m Wein",
    "paper": "n Papier",
    "cheese": "m Käse",
    "silk": "f Seide",
    "salt": "n Salz",
    "wool": "f Wolle",
    "honey": "m Honig",
    "leather": "n Leder",
    "olive_oil": "n Olivenöl",
    "coffee": "m Kaffee",
    "coal": "f Kohle",
    "granite": "m Granit",
    "limestone": "m Kalkstein",
    "basalt": "m Basalt",
    "slate": "m Schiefer",
    "marble": "m Marmor",
    "sandstone": "m Sandstein",
    "iron": "n Eisen",
    "steel": "m Stahl",
    "wood": "n Holz",
    "brick": "m Backstein",
    "concrete": "m Beton",
    "a_flood": "n Hochwasser",
    "a_fire": "m Brand",
    "a_war": "m Krieg",
    "an_earthquake": "n Erdbeben",
    "a_storm": "m Sturm",
    "palace": "m Palast",
    "railway_station": "m Bahnhof",
    "monastery": "n Kloster",
    "factory": "f Fabrik",
    "school": "f Schule",
    "castle": "f Burg",
    "hospital": "n Krankenhaus",
    "mill": "f Mühle",
    "novel": "m Roman",
    "crime_novel": "m Kriminalroman",
    "historical_novel": "m Historienroman",
    "childrens_book": "n Kinderbuch",
    "play": "n Theaterstück",
    "short_story_collection": "m Erzählband",
    "comedy": "f Komödie",
    "drama": "n Drama",
    "musical": "n Musical",
    "documentary": "m Dokumentarfilm",
    "thriller": "m Thriller",
    "western": "m Western",
    "guitar": "f Gitarre",
    "accordion": "n Akkordeon",
    "trumpet": "f Trompete",
    "violin": "f Geige",
    "flute": "f Flöte",
    "piano": "n Klavier",
    "saxophone": "n Saxophon",
    "harp": "f Harfe",
    "obelisk": "m Obelisk",
    "chapel": "f Kapelle",
    "column": "f Säule",
    "cross": "n Kreuz",
    "tower": "m Turm",
    "statue": "f Statue",
    "finch": "m Fink",
    "owl": "f Eule",
    "thrush": "f Drossel",
    "gull": "f Möwe",
    "heron": "m Reiher",
    "woodpecker": "m Specht",
    "warbler": "f Grasmücke",
    "falcon": "m Falke",
    "duck": "f Ente",
    "swallow": "f Schwalbe",
    "sailing_ship": "n Segelschiff",
    "steamer": "m Dampfer",
    "ferry": "f Fähre",
    "freighter": "m Frachter",
    "schooner": "m Schoner",
    "motor_ship": "n Motorschiff",
    "theatre": "n Theater",
    "jazz": "m Jazz",
    "film": "m Film",
    "dance": "m Tanz",
    "opera": "f Oper",
    "poetry": "f Poesie",
    "folk_music": "f Volksmusik",
    "puppet_theatre": "n Puppentheater",
}
"""Gender and nominative singular."""

# Finite verb and the rest of the clause, between which the year or the subject can stand.
EVENTS = {
    "flooded_the_valley": ("überflutete", "das ganze Tal"),
    "froze_over": ("fror", "vollständig zu"),
    "was_dammed": ("wurde", "gestaut"),
    "was_made_navigable": ("wurde", "für Schiffe ausgebaut"),
    "destroyed_two_mills": ("zerstörte", "zwei Mühlen"),
    "sank_in_a_storm": ("sank", "in einem Sturm"),
    "became_a_museum": ("wurde", "zum Museum"),
    "was_scrapped": ("wurde", "verschrottet"),
    "was_sold": ("wurde", "verkauft"),
    "burned_in_the_harbour": ("brannte", "im Hafen aus"),
    "ran_aground": ("lief", "auf Grund"),
}
THEMES = {
    "a_lighthouse_keeper": ("einem Leuchtturmwärter", "einen Leuchtturmwärter"),
    "two_sisters": ("zwei Schwestern", "zwei Schwestern"),
    "a_lost_letter": ("einem verlorenen Brief", "einen verlorenen Brief"),
    "a_young_doctor": ("einem jungen Arzt", "einen jungen Arzt"),
    "an_old_fisherman": ("einem alten Fischer", "einen alten Fischer"),
    "a_stolen_painting": ("einem gestohlenen Gemälde", "ein gestohlenes Gemälde"),
    "a_village_teacher": ("einem Dorflehrer", "einen Dorflehrer"),
    "a_long_winter": ("einem langen Winter", "einen langen Winter"),
    "a_forbidden_love": ("einer verbotenen Liebe", "eine verbotene Liebe"),
    "three_thieves": ("drei Dieben", "drei Diebe"),
    "a_blind_musician": ("einem blinden Musiker", "einen blinden Musiker"),
    "a_lonely_queen": ("einer einsamen Königin", "eine einsame Königin"),
}
"""Dative and accusative."""
LOOKS = {"black_and_white": "in Schwarz-Weiß", "in_colour": "in Farbe", "silent": "ohne Ton"}
BANDS = {
    "jazz": "Jazzband",
    "rock": "Rockband",
    "folk_music": "Folkband",
    "pop_music": "Popband",
    "blues": "Bluesband",
    "dance_music": "Tanzband",
    "heavy_metal": "Metalband",
    "baroque_music": "Barockgruppe",
}
HABITATS = {
    "forests": "in den Wäldern",
    "lakes": "an den Seen",
    "meadows": "auf den Wiesen",
    "cliffs": "auf den Klippen",
    "gardens": "in den Gärten",
    "marshes": "in den Sümpfen",
    "mountain_valleys": "in den Bergtälern",
}
COLOURS = {
    "red": "rot",
    "blue": "blau",
    "green": "grün",
    "yellow": "gelb",
    "grey": "grau",
    "white": "weiß",
    "black": "schwarz",
    "brown": "braun",
}
VENUES = {
    "old_theatre": "im alten Theater",
    "castle": "auf der Burg",
    "city_park": "im Stadtpark",
    "harbour": "am Hafen",
    "cathedral_square": "auf dem Domplatz",
    "university": "an der Universität",
    "market_hall": "in der Markthalle",
}
NUMBERS = ("null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")

# Articles by gender in nominative, accusative and dative.
DEFINITE = {"m": ("der", "den", "dem"), "f": ("die", "die", "der"), "n": ("das", "das", "dem")}
INDEFINITE = {"m": ("ein", "einen", "einem"), "f": ("eine", "eine", "einer"), "n": ("ein", "ein", "einem")}


def proper(key: str) -> str:
    """A place, country or month."""
    return NAMES.get(key, key.capitalize())


def up(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def in_country(country: str) -> str:
    return "in der Schweiz" if country == "switzerland" else f"in {proper(country)}"


def through_country(country: str) -> str:
    """The country in the accusative."""
    return "die Schweiz" if country == "switzerland" else proper(country)


def of_country(country: str) -> str:
    return "der Schweiz" if country == "switzerland" else f"von {proper(country)}"


def noun(key: str) -> str:
    return NOUNS[key][2:]


def definite(key: str) -> tuple[str, str, str]:
    """Nominative, accusative and dative with the definite article."""
    gender, word = NOUNS[key].split()
    nominative, accusative, dative = DEFINITE[gender]
    return f"{nominative} {word}", f"{accusative} {word}", f"{dative} {word}"


def indefinite(key: str) -> tuple[str, str, str]:
    """Nominative, accusative and dative with the indefinite article."""
    gender, word = NOUNS[key].split()
    nominative, accusative, dative = INDEFINITE[gender]
    return f"{nominative} {word}", f"{accusative} {word}", f"{dative} {word}"


def dative_plural(nominative: str) -> str:
    return nominative if nominative.endswith("n") else f"{nominative}n"


def thousands(number: int) -> str:
    """Digits in groups, from five digits on."""
    return f"{number:,}".replace(",", ".") if number >= 10_000 else str(number)
