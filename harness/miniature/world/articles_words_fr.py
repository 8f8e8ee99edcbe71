"""French words for the keys of `facts`, and the little grammar that the sentences need."""

from __future__ import annotations

PLACES = {
    "vienna": "Vienne",
    "salzburg": "Salzbourg",
    "munich": "Munich",
    "cologne": "Cologne",
    "hamburg": "Hambourg",
    "dresden": "Dresde",
    "zurich": "Zurich",
    "geneva": "Genève",
    "paris": "Paris",
    "lyon": "Lyon",
    "marseille": "Marseille",
    "bordeaux": "Bordeaux",
    "milan": "Milan",
    "venice": "Venise",
    "florence": "Florence",
    "naples": "Naples",
    "genoa": "Gênes",
    "seville": "Séville",
    "barcelona": "Barcelone",
    "toledo": "Tolède",
    "lisbon": "Lisbonne",
    "antwerp": "Anvers",
    "copenhagen": "Copenhague",
    "warsaw": "Varsovie",
    "athens": "Athènes",
    "edinburgh": "Édimbourg",
}
COUNTRIES = {
    "austria": "f Autriche",
    "germany": "f Allemagne",
    "switzerland": "f Suisse",
    "france": "f France",
    "italy": "f Italie",
    "spain": "f Espagne",
    "portugal": "m Portugal",
    "belgium": "f Belgique",
    "denmark": "m Danemark",
    "poland": "f Pologne",
    "greece": "f Grèce",
    "scotland": "f Écosse",
}
MONTHS = {
    "january": "janvier",
    "february": "février",
    "march": "mars",
    "april": "avril",
    "may": "mai",
    "june": "juin",
    "july": "juillet",
    "august": "août",
    "september": "septembre",
    "october": "octobre",
    "november": "novembre",
    "december": "décembre",
}
PROFESSIONS = {
    "composer": ("compositeur", "compositrice"),
    "singer": ("chanteur", "chanteuse"),
    "painter": ("peintre", "peintre"),
    "sculptor": ("sculpteur", "sculptrice"),
    "poet": ("poète", "poétesse"),
    "writer": ("écrivain", "écrivaine"),
    "architect": ("architecte", "architecte"),
    "physicist": ("physicien", "physicienne"),
    "chemist": ("chimiste", "chimiste"),
    "astronomer": ("astronome", "astronome"),
    "botanist": ("botaniste", "botaniste"),
    "engineer": ("ingénieur", "ingénieure"),
    "swimmer": ("nageur", "nageuse"),
    "explorer": ("explorateur", "exploratrice"),
}
# Plurals, materials and phrases that take no article of their own.
WORDS = {
    "operas": "opéras",
    "symphonies": "symphonies",
    "waltzes": "valses",
    "love_songs": "chansons d'amour",
    "folk_songs": "chansons populaires",
    "landscapes": "paysages",
    "portraits": "portraits",
    "still_lifes": "natures mortes",
    "statues": "statues",
    "fountains": "fontaines",
    "love_poems": "poèmes d'amour",
    "sonnets": "sonnets",
    "fables": "fables",
    "novels": "romans",
    "short_stories": "nouvelles",
    "travel_books": "récits de voyage",
    "churches": "églises",
    "theatres": "théâtres",
    "gardens": "jardins",
    "lectures": "conférences",
    "experiments_with_light": "expériences sur la lumière",
    "measurements": "mesures",
    "experiments_with_dyes": "expériences sur les colorants",
    "medicines": "médicaments",
    "star_maps": "cartes du ciel",
    "observations_of_comets": "observations de comètes",
    "telescopes": "télescopes",
    "drawings_of_plants": "dessins de plantes",
    "bridges": "ponts",
    "steam_engines": "machines à vapeur",
    "tunnels": "tunnels",
    "records": "records",
    "victories": "victoires",
    "expeditions": "expéditions",
    "maps": "cartes",
    "flooded_the_valley": "inonda toute la vallée",
    "froze_over": "gela entièrement",
    "was_dammed": "fut retenue par un barrage",
    "was_made_navigable": "fut ouverte à la navigation",
    "destroyed_two_mills": "détruisit deux moulins",
    "otters": "loutres",
    "beavers": "castors",
    "trout": "truites",
    "herons": "hérons",
    "swans": "cygnes",
    "kingfishers": "martins-pêcheurs",
    "frogs": "grenouilles",
    "ibexes": "bouquetins",
    "marmots": "marmottes",
    "eagles": "aigles",
    "wolves": "loups",
    "bears": "ours",
    "wild_goats": "chèvres sauvages",
    "granite": "granite",
    "limestone": "calcaire",
    "basalt": "basalte",
    "slate": "ardoise",
    "marble": "marbre",
    "sandstone": "grès",
    "iron": "fer",
    "steel": "acier",
    "wood": "bois",
    "brick": "brique",
    "concrete": "béton",
    "paintings": "tableaux",
    "coins": "monnaies",
    "clocks": "pendules",
    "musical_instruments": "instruments de musique",
    "dolls": "poupées",
    "weapons": "armes",
    "costumes": "costumes",
    "ceramics": "céramiques",
    "fossils": "fossiles",
    "two_sisters": "deux sœurs",
    "three_thieves": "trois voleurs",
    "black_and_white": "en noir et blanc",
    "in_colour": "en couleurs",
    "silent": "muet",
    "red": "rouge",
    "blue": "bleu",
    "green": "vert",
    "yellow": "jaune",
    "grey": "gris",
    "white": "blanc",
    "black": "noir",
    "brown": "brun",
    "seeds": "graines",
    "insects": "insectes",
    "small_fish": "petits poissons",
    "berries": "baies",
    "snails": "escargots",
    "worms": "vers",
    "sank_in_a_storm": "sombra dans une tempête",
    "became_a_museum": "devint un musée",
    "was_scrapped": "fut mis à la ferraille",
    "was_sold": "fut vendu",
    "burned_in_the_harbour": "brûla dans le port",
    "ran_aground": "s'échoua sur la côte",
}
# Nouns that take an article: gender ("m", "f", "mp", "fp") and the noun.
NOUNS = {
    "a_flood": "f inondation",
    "a_fire": "m incendie",
    "a_war": "f guerre",
    "an_earthquake": "m tremblement de terre",
    "a_storm": "f tempête",
    "palace": "m palais",
    "railway_station": "f gare",
    "monastery": "m monastère",
    "factory": "f usine",
    "school": "f école",
    "castle": "m château",
    "hospital": "m hôpital",
    "mill": "m moulin",
    "novel": "m roman",
    "crime_novel": "m roman policier",
    "historical_novel": "m roman historique",
    "childrens_book": "m livre pour enfants",
    "play": "f pièce de théâtre",
    "short_story_collection": "m recueil de nouvelles",
    "comedy": "f comédie",
    "drama": "m drame",
    "documentary": "m documentaire",
    "thriller": "m thriller",
    "musical": "f comédie musicale",
    "western": "m western",
    "a_lighthouse_keeper": "m gardien de phare",
    "a_lost_letter": "f lettre perdue",
    "a_young_doctor": "m jeune médecin",
    "an_old_fisherman": "m vieux pêcheur",
    "a_stolen_painting": "m tableau volé",
    "a_village_teacher": "m instituteur de village",
    "a_long_winter": "m long hiver",
    "a_forbidden_love": "m amour interdit",
    "a_blind_musician": "m musicien aveugle",
    "a_lonely_queen": "f reine solitaire",
    "jazz": "m jazz",
    "rock": "m rock",
    "folk_music": "f musique folk",
    "pop_music": "f musique pop",
    "blues": "m blues",
    "dance_music": "f musique de danse",
    "heavy_metal": "m heavy metal",
    "baroque_music": "f musique baroque",
    "guitar": "f guitare",
    "accordion": "m accordéon",
    "trumpet": "f trompette",
    "violin": "m violon",
    "flute": "f flûte",
    "piano": "m piano",
    "saxophone": "m saxophone",
    "harp": "f harpe",
    "obelisk": "m obélisque",
    "chapel": "f chapelle",
    "column": "f colonne",
    "cross": "f croix",
    "tower": "f tour",
    "statue": "f statue",
    "glass": "m verre",
    "wine": "m vin",
    "paper": "m papier",
    "cheese": "m fromage",
    "silk": "f soie",
    "salt": "m sel",
    "wool": "f laine",
    "honey": "m miel",
    "leather": "m cuir",
    "olive_oil": "f huile d'olive",
    "coffee": "m café",
    "coal": "m charbon",
    "finch": "m pinson",
    "owl": "f chouette",
    "thrush": "f grive",
    "gull": "f mouette",
    "heron": "m héron",
    "woodpecker": "m pic",
    "warbler": "f fauvette",
    "falcon": "m faucon",
    "duck": "m canard",
    "swallow": "f hirondelle",
    "forests": "fp forêts",
    "lakes": "mp lacs",
    "meadows": "fp prairies",
    "cliffs": "fp falaises",
    "gardens": "mp jardins",
    "marshes": "mp marais",
    "mountain_valleys": "fp vallées de montagne",
    "sailing_ship": "m voilier",
    "steamer": "m vapeur",
    "ferry": "m ferry",
    "freighter": "m cargo",
    "schooner": "f goélette",
    "motor_ship": "m bateau à moteur",
    "theatre": "m théâtre",
    "film": "m cinéma",
    "dance": "f danse",
    "opera": "m opéra",
    "poetry": "f poésie",
    "puppet_theatre": "m théâtre de marionnettes",
    "old_theatre": "m vieux théâtre",
    "city_park": "m parc municipal",
    "cathedral_square": "f place de la cathédrale",
    "harbour": "m port",
    "university": "f université",
    "market_hall": "m marché couvert",
}
NUMBERS = ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf")
_MUTE_H = ("hôpital", "hirondelle", "huile")  # our other words in h, and all names in H, keep the full article


def _elides(phrase: str) -> bool:
    return phrase[0].lower() in "aeiouéèêàâîôœ" or phrase.startswith(_MUTE_H)


def noun(key: str) -> str:
    """The noun without its article."""
    return NOUNS[key].partition(" ")[2]


def with_the(gender: str, phrase: str) -> str:
    """The phrase with the definite article of its gender."""
    if gender in ("mp", "fp"):
        return f"les {phrase}"
    return f"l'{phrase}" if _elides(phrase) else f"{'le' if gender == 'm' else 'la'} {phrase}"


def the(key: str) -> str:
    """The noun with its definite article."""
    return with_the(NOUNS[key].partition(" ")[0], noun(key))


def a(key: str) -> str:
    """The noun with its indefinite article; a phrase that needs none as it is."""
    return WORDS[key] if key in WORDS else f"{'un' if NOUNS[key][0] == 'm' else 'une'} {noun(key)}"


def its(key: str) -> str:
    """The noun with `son` or `sa`."""
    return f"{'son' if NOUNS[key][0] == 'm' or _elides(noun(key)) else 'sa'} {noun(key)}"


def of(phrase: str) -> str:
    """`de` before a phrase, contracted with an article and elided before a vowel."""
    for article, contracted in (("le ", "du "), ("les ", "des ")):
        if phrase.startswith(article):
            return contracted + phrase.removeprefix(article)
    return f"d'{phrase}" if _elides(phrase) else f"de {phrase}"


def to(phrase: str) -> str:
    """`à` before a phrase, contracted with an article."""
    for article, contracted in (("le ", "au "), ("les ", "aux ")):
        if phrase.startswith(article):
            return contracted + phrase.removeprefix(article)
    return f"à {phrase}"


def some(key: str) -> str:
    """A product with its partitive article: `du vin`, `de la soie`, `de l'huile`."""
    return of(the(key))


def in_country(key: str) -> str:
    """`en France`, `au Portugal`."""
    gender, _, name = COUNTRIES[key].partition(" ")
    return f"{'en' if gender == 'f' else 'au'} {name}"


def of_country(key: str) -> str:
    """`de France`, `d'Autriche`, `du Portugal`."""
    gender, _, name = COUNTRIES[key].partition(" ")
    return of(name) if gender == "f" else f"du {name}"


def agree(key: str, masculine: str) -> str:
    """A participle with the ending that the noun asks for."""
    return masculine + "e" if NOUNS[key][0] == "f" else masculine


def up(sentence: str) -> str:
    """The sentence with its first letter raised."""
    return sentence[0].upper() + sentence[1:]


def thousands(number: int) -> str:
    """`45 000`."""
    return f"{number:,}".replace(",", " ")
