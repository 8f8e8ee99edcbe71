"""Spanish words for the keys of `facts`, and the little grammar that the sentences need."""

from __future__ import annotations

PLACES = {
    "vienna": "Viena", "salzburg": "Salzburgo", "munich": "Múnich", "cologne": "Colonia", "hamburg": "Hamburgo",
    "dresden": "Dresde", "zurich": "Zúrich", "geneva": "Ginebra", "paris": "París", "lyon": "Lyon",
    "marseille": "Marsella", "bordeaux": "Burdeos", "milan": "Milán", "venice": "Venecia", "florence": "Florencia",
    "naples": "Nápoles", "genoa": "Génova", "seville": "Sevilla", "barcelona": "Barcelona", "toledo": "Toledo",
    "lisbon": "Lisboa", "antwerp": "Amberes", "copenhagen": "Copenhague", "warsaw": "Varsovia", "athens": "Atenas",
    "edinburgh": "Edimburgo",
}  # fmt: skip
COUNTRIES = {
    "austria": "Austria", "germany": "Alemania", "switzerland": "Suiza", "france": "Francia", "italy": "Italia",
    "spain": "España", "portugal": "Portugal", "belgium": "Bélgica", "denmark": "Dinamarca", "poland": "Polonia",
    "greece": "Grecia", "scotland": "Escocia",
}  # fmt: skip
MONTHS = {
    "january": "enero", "february": "febrero", "march": "marzo", "april": "abril", "may": "mayo", "june": "junio",
    "july": "julio", "august": "agosto", "september": "septiembre", "october": "octubre", "november": "noviembre",
    "december": "diciembre",
}  # fmt: skip
PROFESSIONS = {
    "composer": ("compositor", "compositora"), "singer": ("cantante", "cantante"), "painter": ("pintor", "pintora"),
    "sculptor": ("escultor", "escultora"), "poet": ("poeta", "poeta"), "writer": ("escritor", "escritora"),
    "architect": ("arquitecto", "arquitecta"), "physicist": ("físico", "física"), "chemist": ("químico", "química"),
    "astronomer": ("astrónomo", "astrónoma"), "botanist": ("botánico", "botánica"),
    "engineer": ("ingeniero", "ingeniera"), "swimmer": ("nadador", "nadadora"),
    "explorer": ("explorador", "exploradora"),
}  # fmt: skip
# Plurals, mass nouns and phrases that take no article where they stand.
WORDS = {
    "operas": "óperas", "symphonies": "sinfonías", "waltzes": "valses", "love_songs": "canciones de amor",
    "folk_songs": "canciones populares", "landscapes": "paisajes", "portraits": "retratos", "still_lifes": "bodegones",
    "statues": "estatuas", "fountains": "fuentes", "love_poems": "poemas de amor", "sonnets": "sonetos",
    "fables": "fábulas", "novels": "novelas", "short_stories": "cuentos", "travel_books": "libros de viajes",
    "churches": "iglesias", "theatres": "teatros", "gardens": "jardines", "lectures": "conferencias",
    "experiments_with_light": "experimentos con la luz", "measurements": "mediciones",
    "experiments_with_dyes": "experimentos con tintes", "medicines": "medicamentos", "star_maps": "mapas celestes",
    "observations_of_comets": "observaciones de cometas", "telescopes": "telescopios",
    "drawings_of_plants": "dibujos de plantas", "bridges": "puentes", "steam_engines": "máquinas de vapor",
    "tunnels": "túneles", "records": "récords", "victories": "victorias", "expeditions": "expediciones",
    "maps": "mapas",
    "flooded_the_valley": "inundó todo el valle", "froze_over": "se heló por completo", "was_dammed": "fue represado",
    "was_made_navigable": "fue abierto a la navegación", "destroyed_two_mills": "destruyó dos molinos",
    "otters": "nutrias", "beavers": "castores", "trout": "truchas", "herons": "garzas", "swans": "cisnes",
    "kingfishers": "martines pescadores", "frogs": "ranas",
    "ibexes": "íbices", "marmots": "marmotas", "eagles": "águilas", "wolves": "lobos", "bears": "osos",
    "wild_goats": "cabras salvajes",
    "granite": "granito", "limestone": "caliza", "basalt": "basalto", "slate": "pizarra", "marble": "mármol",
    "sandstone": "arenisca", "iron": "hierro", "steel": "acero", "wood": "madera", "brick": "ladrillo",
    "concrete": "hormigón",
    "paintings": "cuadros", "coins": "monedas", "clocks": "relojes", "musical_instruments": "instrumentos musicales",
    "dolls": "muñecas", "weapons": "armas", "costumes": "trajes", "ceramics": "cerámica", "fossils": "fósiles",
    "two_sisters": "dos hermanas", "three_thieves": "tres ladrones",
    "black_and_white": "en blanco y negro", "in_colour": "en color", "silent": "muda",
    "red": "rojo", "blue": "azul", "green": "verde", "yellow": "amarillo", "grey": "gris", "white": "blanco",
    "black": "negro", "brown": "pardo",
    "seeds": "semillas", "insects": "insectos", "small_fish": "peces pequeños", "berries": "bayas",
    "snails": "caracoles", "worms": "lombrices",
    "sank_in_a_storm": "se hundió en una tormenta", "became_a_museum": "se convirtió en museo",
    "was_scrapped": "fue desguazado", "was_sold": "fue vendido", "burned_in_the_harbour": "ardió en el puerto",
    "ran_aground": "encalló en la costa",
}  # fmt: skip
# Nouns that take an article: gender ("m", "f", "mp", "fp", "fa" for a stressed initial a) and the noun.
NOUNS = {
    "a_flood": "f inundación", "a_fire": "m incendio", "a_war": "f guerra", "an_earthquake": "m terremoto",
    "a_storm": "f tormenta",
    "palace": "m palacio", "railway_station": "f estación de tren", "monastery": "m monasterio",
    "factory": "f fábrica", "school": "f escuela", "castle": "m castillo", "hospital": "m hospital",
    "mill": "m molino",
    "novel": "f novela", "crime_novel": "f novela policíaca", "historical_novel": "f novela histórica",
    "childrens_book": "m libro infantil", "play": "f obra de teatro",
    "short_story_collection": "f colección de cuentos",
    "comedy": "f comedia", "drama": "m drama", "documentary": "m documental", "thriller": "m thriller",
    "musical": "m musical", "western": "m western",
    "a_lighthouse_keeper": "m farero", "a_lost_letter": "f carta perdida", "a_young_doctor": "m joven médico",
    "an_old_fisherman": "m viejo pescador", "a_stolen_painting": "m cuadro robado",
    "a_village_teacher": "m maestro de pueblo", "a_long_winter": "m largo invierno",
    "a_forbidden_love": "m amor prohibido", "a_blind_musician": "m músico ciego", "a_lonely_queen": "f reina solitaria",
    "jazz": "m jazz", "rock": "m rock", "folk_music": "f música folk", "pop_music": "f música pop", "blues": "m blues",
    "dance_music": "f música de baile", "heavy_metal": "m heavy metal", "baroque_music": "f música barroca",
    "guitar": "f guitarra", "accordion": "m acordeón", "trumpet": "f trompeta", "violin": "m violín",
    "flute": "f flauta", "piano": "m piano", "saxophone": "m saxofón", "harp": "fa arpa",
    "obelisk": "m obelisco", "chapel": "f capilla", "column": "f columna", "cross": "f cruz", "tower": "f torre",
    "statue": "f estatua",
    "glass": "m vidrio", "wine": "m vino", "paper": "m papel", "cheese": "m queso", "silk": "f seda", "salt": "f sal",
    "wool": "f lana", "honey": "f miel", "leather": "m cuero", "olive_oil": "m aceite de oliva", "coffee": "m café",
    "coal": "m carbón",
    "finch": "m pinzón", "owl": "m búho", "thrush": "m zorzal", "gull": "f gaviota", "heron": "f garza",
    "woodpecker": "m pájaro carpintero", "warbler": "f curruca", "falcon": "m halcón", "duck": "m pato",
    "swallow": "f golondrina",
    "forests": "mp bosques", "lakes": "mp lagos", "meadows": "mp prados", "cliffs": "mp acantilados",
    "gardens": "mp jardines", "marshes": "mp pantanos", "mountain_valleys": "mp valles de montaña",
    "sailing_ship": "m velero", "steamer": "m vapor", "ferry": "m transbordador", "freighter": "m carguero",
    "schooner": "f goleta", "motor_ship": "f motonave",
    "theatre": "m teatro", "film": "m cine", "dance": "f danza", "opera": "f ópera", "poetry": "f poesía",
    "puppet_theatre": "m teatro de títeres",
    "old_theatre": "m antiguo teatro", "city_park": "m parque municipal",
    "cathedral_square": "f plaza de la catedral", "harbour": "m puerto", "university": "f universidad",
    "market_hall": "m mercado cubierto",
}  # fmt: skip
_THE = {"m": "el", "fa": "el", "f": "la", "mp": "los", "fp": "las"}
NUMBERS = ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve")


def noun(key: str) -> str:
    """The noun without its article."""
    return NOUNS[key].partition(" ")[2]


def the(key: str) -> str:
    """The noun with its definite article."""
    gender, _, noun = NOUNS[key].partition(" ")
    return f"{_THE[gender]} {noun}"


def a(key: str) -> str:
    """The noun with its indefinite article; a phrase that needs none as it is."""
    if key in WORDS:
        return WORDS[key]
    gender, _, noun = NOUNS[key].partition(" ")
    return f"{'una' if gender == 'f' else 'un'} {noun}"


def to(phrase: str) -> str:
    """The preposition `a` before a phrase, contracted with the article `el`."""
    return f"al {phrase[3:]}" if phrase.startswith("el ") else f"a {phrase}"


def and_(phrase: str) -> str:
    """`y` before a phrase, `e` before the sound i."""
    return f"{'e' if phrase.lower().startswith(('i', 'í', 'hi')) else 'y'} {phrase}"


def agree(key: str, masculine: str) -> str:
    """A participle or adjective in -o with the ending that the noun asks for."""
    return masculine[:-1] + "a" if NOUNS[key][0] == "f" else masculine


def up(sentence: str) -> str:
    """The sentence with its first letter raised."""
    return sentence[0].upper() + sentence[1:]


def thousands(number: int) -> str:
    """`3000`, `45 000`: the Academy's spelling has a space from five digits on."""
    return f"{number:,}".replace(",", " ") if number >= 10_000 else str(number)
