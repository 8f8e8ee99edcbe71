"""Italian words for the keys of `facts`, and the little grammar that the sentences need."""

from __future__ import annotations

import re

PLACES = {
    "vienna": "Vienna",
    "salzburg": "Salisburgo",
    "munich": "Monaco di Baviera",
    "cologne": "Colonia",
    "hamburg": "Amburgo",
    "dresden": "Dresda",
    "zurich": "Zurigo",
    "geneva": "Ginevra",
    "paris": "Parigi",
    "lyon": "Lione",
    "marseille": "Marsiglia",
    "bordeaux": "Bordeaux",
    "milan": "Milano",
    "venice": "Venezia",
    "florence": "Firenze",
    "naples": "Napoli",
    "genoa": "Genova",
    "seville": "Siviglia",
    "barcelona": "Barcellona",
    "toledo": "Toledo",
    "lisbon": "Lisbona",
    "antwerp": "Anversa",
    "copenhagen": "Copenaghen",
    "warsaw": "Varsavia",
    "athens": "Atene",
    "edinburgh": "Edimburgo",
}
MONTHS = {
    "january": "gennaio",
    "february": "febbraio",
    "march": "marzo",
    "april": "aprile",
    "may": "maggio",
    "june": "giugno",
    "july": "luglio",
    "august": "agosto",
    "september": "settembre",
    "october": "ottobre",
    "november": "novembre",
    "december": "dicembre",
}
PROFESSIONS = {
    "composer": ("compositore", "compositrice"),
    "singer": ("cantante", "cantante"),
    "painter": ("pittore", "pittrice"),
    "sculptor": ("scultore", "scultrice"),
    "poet": ("poeta", "poetessa"),
    "writer": ("scrittore", "scrittrice"),
    "architect": ("architetto", "architetta"),
    "physicist": ("fisico", "fisica"),
    "chemist": ("chimico", "chimica"),
    "astronomer": ("astronomo", "astronoma"),
    "botanist": ("botanico", "botanica"),
    "engineer": ("ingegnere", "ingegnera"),
    "swimmer": ("nuotatore", "nuotatrice"),
    "explorer": ("esploratore", "esploratrice"),
}
# Materials, plurals without gender and phrases that take no article of their own.
WORDS = {
    "flooded_the_valley": "inondò tutta la valle",
    "froze_over": "gelò completamente",
    "was_dammed": "fu sbarrato da una diga",
    "was_made_navigable": "fu aperto alla navigazione",
    "destroyed_two_mills": "distrusse due mulini",
    "granite": "granito",
    "limestone": "calcare",
    "basalt": "basalto",
    "slate": "ardesia",
    "marble": "marmo",
    "sandstone": "arenaria",
    "iron": "ferro",
    "steel": "acciaio",
    "wood": "legno",
    "brick": "mattoni",
    "concrete": "cemento",
    "paintings": "quadri",
    "coins": "monete",
    "clocks": "orologi",
    "maps": "mappe",
    "musical_instruments": "strumenti musicali",
    "dolls": "bambole",
    "weapons": "armi",
    "costumes": "costumi",
    "ceramics": "ceramiche",
    "fossils": "fossili",
    "two_sisters": "due sorelle",
    "three_thieves": "tre ladri",
    "black_and_white": "in bianco e nero",
    "in_colour": "a colori",
    "silent": "muto",
    "red": "rosso",
    "blue": "blu",
    "green": "verde",
    "yellow": "giallo",
    "grey": "grigio",
    "white": "bianco",
    "black": "nero",
    "brown": "marrone",
    "seeds": "semi",
    "insects": "insetti",
    "small_fish": "piccoli pesci",
    "berries": "bacche",
    "snails": "lumache",
    "worms": "vermi",
    "sank_in_a_storm": "affondò in una tempesta",
    "became_a_museum": "diventò un museo",
    "was_scrapped": "fu demolita",
    "was_sold": "fu venduta",
    "burned_in_the_harbour": "bruciò nel porto",
    "ran_aground": "si incagliò sulla costa",
}
# Nouns that take an article: gender ("m", "f", "mp", "fp") and the noun.
NOUNS = {
    "austria": "f Austria",
    "germany": "f Germania",
    "switzerland": "f Svizzera",
    "france": "f Francia",
    "italy": "f Italia",
    "spain": "f Spagna",
    "portugal": "m Portogallo",
    "belgium": "m Belgio",
    "denmark": "f Danimarca",
    "poland": "f Polonia",
    "greece": "f Grecia",
    "scotland": "f Scozia",
    "operas": "fp opere liriche",
    "symphonies": "fp sinfonie",
    "waltzes": "mp valzer",
    "love_songs": "fp canzoni d'amore",
    "folk_songs": "fp canzoni popolari",
    "landscapes": "mp paesaggi",
    "portraits": "mp ritratti",
    "still_lifes": "fp nature morte",
    "statues": "fp statue",
    "fountains": "fp fontane",
    "love_poems": "fp poesie d'amore",
    "sonnets": "mp sonetti",
    "fables": "fp favole",
    "novels": "mp romanzi",
    "short_stories": "mp racconti",
    "travel_books": "mp libri di viaggio",
    "churches": "fp chiese",
    "theatres": "mp teatri",
    "gardens": "mp giardini",
    "lectures": "fp lezioni",
    "experiments_with_light": "mp esperimenti con la luce",
    "measurements": "fp misurazioni",
    "experiments_with_dyes": "mp esperimenti sui coloranti",
    "medicines": "fp medicine",
    "star_maps": "fp mappe del cielo",
    "observations_of_comets": "fp osservazioni di comete",
    "telescopes": "mp telescopi",
    "drawings_of_plants": "mp disegni di piante",
    "bridges": "mp ponti",
    "steam_engines": "fp macchine a vapore",
    "tunnels": "fp gallerie",
    "records": "mp primati",
    "victories": "fp vittorie",
    "expeditions": "fp spedizioni",
    "maps": "fp mappe",
    "otters": "fp lontre",
    "beavers": "mp castori",
    "trout": "fp trote",
    "herons": "mp aironi",
    "swans": "mp cigni",
    "kingfishers": "mp martin pescatori",
    "frogs": "fp rane",
    "ibexes": "mp stambecchi",
    "marmots": "fp marmotte",
    "eagles": "fp aquile",
    "wolves": "mp lupi",
    "bears": "mp orsi",
    "wild_goats": "fp capre selvatiche",
    "a_flood": "f alluvione",
    "a_fire": "m incendio",
    "a_war": "f guerra",
    "an_earthquake": "m terremoto",
    "a_storm": "f tempesta",
    "palace": "m palazzo",
    "railway_station": "f stazione ferroviaria",
    "monastery": "m monastero",
    "factory": "f fabbrica",
    "school": "f scuola",
    "castle": "m castello",
    "hospital": "m ospedale",
    "mill": "m mulino",
    "novel": "m romanzo",
    "crime_novel": "m romanzo giallo",
    "historical_novel": "m romanzo storico",
    "childrens_book": "m libro per bambini",
    "play": "f opera teatrale",
    "short_story_collection": "f raccolta di racconti",
    "comedy": "f commedia",
    "drama": "m dramma",
    "documentary": "m documentario",
    "thriller": "m thriller",
    "musical": "m musical",
    "western": "m western",
    "a_lighthouse_keeper": "m guardiano del faro",
    "a_lost_letter": "f lettera perduta",
    "a_young_doctor": "m giovane medico",
    "an_old_fisherman": "m vecchio pescatore",
    "a_stolen_painting": "m quadro rubato",
    "a_village_teacher": "m maestro di paese",
    "a_long_winter": "m lungo inverno",
    "a_forbidden_love": "m amore proibito",
    "a_blind_musician": "m musicista cieco",
    "a_lonely_queen": "f regina solitaria",
    "jazz": "m jazz",
    "rock": "m rock",
    "folk_music": "f musica folk",
    "pop_music": "f musica pop",
    "blues": "m blues",
    "dance_music": "f musica da ballo",
    "heavy_metal": "m heavy metal",
    "baroque_music": "f musica barocca",
    "guitar": "f chitarra",
    "accordion": "f fisarmonica",
    "trumpet": "f tromba",
    "violin": "m violino",
    "flute": "m flauto",
    "piano": "m pianoforte",
    "saxophone": "m sassofono",
    "harp": "f arpa",
    "obelisk": "m obelisco",
    "chapel": "f cappella",
    "column": "f colonna",
    "cross": "f croce",
    "tower": "f torre",
    "statue": "f statua",
    "glass": "m vetro",
    "wine": "m vino",
    "paper": "f carta",
    "cheese": "m formaggio",
    "silk": "f seta",
    "salt": "m sale",
    "wool": "f lana",
    "honey": "m miele",
    "leather": "m cuoio",
    "olive_oil": "m olio d'oliva",
    "coffee": "m caffè",
    "coal": "m carbone",
    "finch": "m fringuello",
    "owl": "f civetta",
    "thrush": "m tordo",
    "gull": "m gabbiano",
    "heron": "m airone",
    "woodpecker": "m picchio",
    "warbler": "f capinera",
    "falcon": "m falco",
    "duck": "f anatra",
    "swallow": "f rondine",
    "forests": "mp boschi",
    "lakes": "mp laghi",
    "meadows": "mp prati",
    "cliffs": "fp scogliere",
    "marshes": "fp paludi",
    "mountain_valleys": "fp valli montane",
    "sailing_ship": "m veliero",
    "steamer": "m piroscafo",
    "ferry": "m traghetto",
    "freighter": "m mercantile",
    "schooner": "f goletta",
    "motor_ship": "f motonave",
    "theatre": "m teatro",
    "film": "m cinema",
    "dance": "f danza",
    "opera": "f lirica",
    "poetry": "f poesia",
    "puppet_theatre": "m teatro di burattini",
    "old_theatre": "m vecchio teatro",
    "city_park": "m parco comunale",
    "cathedral_square": "f piazza del duomo",
    "harbour": "m porto",
    "university": "f università",
    "market_hall": "m mercato coperto",
}
NUMBERS = ("zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove")
_CONTRACTED = {"di": "de", "a": "a", "da": "da", "in": "ne", "su": "su"}
_VOWEL = re.compile(r"h?[aeiouàèéìòù]", re.IGNORECASE)  # h is mute
_IMPURE = re.compile(r"s[^aeiou]|z|gn|ps|x|y", re.IGNORECASE)  # asks for lo, uno, gli


def noun(key: str) -> str:
    """The noun without its article."""
    return NOUNS[key].partition(" ")[2]


def gender(key: str) -> str:
    """`m`, `f`, `mp` or `fp`."""
    return NOUNS[key].partition(" ")[0]


def with_the(gender: str, phrase: str) -> str:
    """The phrase with the definite article of its gender."""
    vowel, impure = _VOWEL.match(phrase), _IMPURE.match(phrase)
    if gender == "fp":
        return f"le {phrase}"
    if gender == "mp":
        return f"gli {phrase}" if vowel or impure else f"i {phrase}"
    if vowel:
        return f"l'{phrase}"
    return f"la {phrase}" if gender == "f" else f"{'lo' if impure else 'il'} {phrase}"


def with_a(gender: str, phrase: str) -> str:
    """The phrase with the indefinite article of its gender."""
    if gender == "f":
        return f"un'{phrase}" if _VOWEL.match(phrase) else f"una {phrase}"
    return f"{'uno' if _IMPURE.match(phrase) else 'un'} {phrase}"


def the(key: str) -> str:
    """The noun with its definite article."""
    return with_the(gender(key), noun(key))


def a(key: str) -> str:
    """The noun with its indefinite article; a phrase that needs none as it is."""
    return WORDS[key] if key in WORDS else with_a(gender(key), noun(key))


def old(key: str) -> str:
    """A building of former times: `un antico palazzo`, `un'antica scuola`."""
    return with_a(gender(key), f"{agree(key, 'antico')} {noun(key)}")


def its(key: str) -> str:
    """The noun with the article and the possessive: `il suo vino`, `le sue lontre`."""
    return {"m": "il suo", "f": "la sua", "mp": "i suoi", "fp": "le sue"}[gender(key)] + f" {noun(key)}"


def prep(preposition: str, phrase: str) -> str:
    """di, a, da, in or su before a phrase that starts with a definite article, contracted with it."""
    stem = _CONTRACTED[preposition]
    if phrase.startswith("l'"):
        return f"{stem}l{phrase}"
    article, _, rest = phrase.partition(" ")
    return f"{stem}{ {'il': 'l', 'lo': 'llo', 'la': 'lla', 'i': 'i', 'gli': 'gli', 'le': 'lle'}[article] } {rest}"


def to(phrase: str) -> str:
    """`a` before a phrase without a definite article, `ad` before another a."""
    return f"{'ad' if phrase[0] in 'aA' else 'a'} {phrase}"


def and_(phrase: str) -> str:
    """`e` before a phrase, `ed` before another e."""
    return f"{'ed' if phrase[0] in 'eE' else 'e'} {phrase}"


def agree(key: str, masculine: str) -> str:
    """A participle or adjective in -o with the ending that the noun asks for."""
    return masculine[:-1] + "a" if gender(key) == "f" else masculine


def up(sentence: str) -> str:
    """The sentence with its first letter raised."""
    return sentence[0].upper() + sentence[1:]


def thousands(number: int) -> str:
    """`3000`, `45.000`."""
    return f"{number:,}".replace(",", ".") if number >= 10_000 else str(number)
