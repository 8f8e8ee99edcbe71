"""Spanish articles: the sentences of every kind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .articles_words_es import (
    COUNTRIES,
    MONTHS,
    NUMBERS,
    PLACES,
    PROFESSIONS,
    WORDS,
    a,
    agree,
    and_,
    noun,
    the,
    thousands,
    to,
    up,
)
from .facts import Facts, compose


def _person(f: Facts) -> list[list[str]]:
    male = f.gender == "m"
    profession = PROFESSIONS[f.profession][0 if male else 1]
    un, el, o = ("un", "el", "o") if male else ("una", "la", "a")
    place, place2, work = PLACES[f.place], PLACES[f.place2], WORDS[f.work]
    return [
        [
            f"{f.name} fue {un} {profession} nacid{o} en {place} en {f.year}.",
            f"{up(el)} {profession} {f.name} nació en {f.year} en {place}.",
            f"Nacid{o} en {place} en {f.year}, {f.name} llegó a ser {profession}.",
            f"{f.name}, que nació en {place} en {f.year}, trabajó como {profession}.",
            f"En {f.year} nació en {place} {el} {profession} {f.name}.",
        ],
        [
            f"En {f.year2} se trasladó a {place2}.",
            f"Se instaló en {place2} en {f.year2}.",
            f"A partir de {f.year2} vivió y trabajó en {place2}.",
            f"Desde {f.year2} tuvo su casa en {place2}.",
            f"El año {f.year2} {'lo' if male else 'la'} llevó a {place2}, donde se quedó.",
        ],
        [
            f"Es conocid{o} sobre todo por sus {work}.",
            f"Sus {work} le dieron fama.",
            f"Hoy se {'lo' if male else 'la'} recuerda principalmente por sus {work}.",
            f"Debe su fama a sus {work}.",
        ],
    ]


def _city(f: Facts) -> list[list[str]]:
    place, country, product, number = PLACES[f.place], COUNTRIES[f.country], noun(f.product), thousands(f.number)
    return [
        [
            f"{f.name} es una ciudad de {country}, cerca de {place}.",
            f"La ciudad de {f.name} se encuentra en {country}, no lejos de {place}.",
            f"Cerca de {place}, en {country}, está la ciudad de {f.name}.",
            f"{f.name}, una ciudad de {country}, está situada a poca distancia de {place}.",
        ],
        [
            f"Fue fundada en {f.year} y tiene unos {number} habitantes.",
            f"Fundada en {f.year}, cuenta con cerca de {number} habitantes.",
            f"Unas {number} personas viven en este lugar, que existe desde {f.year}.",
            f"Su historia comienza en {f.year} y su población es de unos {number} habitantes.",
        ],
        [
            f"Es conocida por su {product}.",
            f"Su {product} es {agree(f.product, 'famoso')} más allá de la región.",
            f"Muchas de sus familias viven del comercio de {product}.",
            f"De muy lejos llegan comerciantes para comprar su {product}.",
        ],
    ]


def _river(f: Facts) -> list[list[str]]:
    place, country, animals, event = PLACES[f.place], COUNTRIES[f.country], WORDS[f.animal], WORDS[f.event]
    return [
        [
            f"El {f.name} es un río de {country} con una longitud de {f.number} kilómetros.",
            f"El {f.name}, un río de {country}, mide {f.number} kilómetros.",
            f"A lo largo de {f.number} kilómetros, el río {f.name} fluye por {country}.",
            f"El río {f.name} recorre {f.number} kilómetros en {country}.",
        ],
        [
            f"Pasa junto a {place} y en {f.year} {event}.",
            f"En su camino pasa cerca de {place}; en {f.year} {event}.",
            f"En {f.year} el río, que pasa junto a {place}, {event}.",
            f"La ciudad de {place} está en sus orillas, y en {f.year} el río {event}.",
        ],
        [
            f"En el río viven {animals}.",
            f"Allí se ven a menudo {animals}.",
            f"Los visitantes pueden observar allí {animals}.",
            f"Es conocido por sus {animals}.",
        ],
    ]


def _mountain(f: Facts) -> list[list[str]]:
    country, stone, animals, number = COUNTRIES[f.country], WORDS[f.material], WORDS[f.animal], f.number
    first = "el primero" if f.gender == "m" else "la primera"
    return [
        [
            f"El {f.name} es un monte de {country} de {number} metros de altura.",
            f"El monte {f.name}, en {country}, alcanza los {number} metros.",
            f"El monte {f.name}, en {country}, tiene su cima a {number} metros de altura.",
            f"Con sus {number} metros, el monte {f.name} domina los valles de {country}.",
        ],
        [
            f"Fue escalado por primera vez en {f.year} por {f.person}.",
            f"{f.person} alcanzó la cumbre por primera vez en {f.year}.",
            f"La primera ascensión, en {f.year}, fue obra de {f.person}.",
            f"En {f.year} {f.person} fue {first} en llegar a lo más alto.",
        ],
        [
            f"Está formado por {stone}, y en sus laderas viven {animals}.",
            f"En sus laderas de {stone} viven {animals}.",
            f"Es de {stone}, y en sus laderas habitan {animals}.",
            f"Entre sus rocas de {stone} se pueden ver {animals}.",
        ],
    ]


def _bridge(f: Facts) -> list[list[str]]:
    place, material, event = PLACES[f.place], WORDS[f.material], a(f.event)
    architect = "el arquitecto" if f.gender == "m" else "la arquitecta"
    return [
        [
            f"El puente {f.name}, en {place}, fue construido con {material} en {f.year}.",
            f"Construido en {f.year}, el puente {f.name} de {place} es de {material}.",
            f"El puente {f.name}, hecho de {material}, está en {place} desde {f.year}.",
            f"En {f.year} se levantó en {place} el puente {f.name}, de {material}.",
        ],
        [
            f"Mide {f.number} metros y fue proyectado por {f.person}.",
            f"Lo diseñó {architect} {f.person}; tiene {f.number} metros de largo.",
            f"Los planos son de {f.person} y la longitud es de {f.number} metros.",
            f"{up(architect)} de la obra, de {f.number} metros de longitud, fue {f.person}.",
        ],
        [
            f"Tras {event}, fue restaurado en {f.year2}.",
            f"{up(event)} hizo necesaria su reparación en {f.year2}.",
            f"Sufrió daños por {event} y se reparó en {f.year2}.",
            f"En {f.year2} hubo que restaurarlo a causa de {event}.",
        ],
    ]


def _museum(f: Facts) -> list[list[str]]:
    place, things, month, number = PLACES[f.place], WORDS[f.collection], MONTHS[f.month], thousands(f.number)
    old = f"{agree(f.building, 'antiguo')} {noun(f.building)}"
    an = agree(f.building, "uno").removesuffix("o")
    return [
        [
            f"El Museo {f.name} de {place} fue fundado en {f.year} y expone {things}.",
            f"Fundado en {f.year}, el Museo {f.name} de {place} alberga una colección de {things}.",
            f"El Museo {f.name}, abierto en {place} en {f.year}, reúne {things}.",
            f"Desde {f.year}, el Museo {f.name} de {place} exhibe {things}.",
        ],
        [
            f"Está instalado en {an} {old}.",
            f"{up(an)} {old} le sirve de sede.",
            f"Su edificio fue en otro tiempo {a(f.building)}.",
            f"Antiguamente sus salas pertenecían a {a(f.building)}.",
        ],
        [
            f"Lo visitan unas {number} personas al año; en {month} está cerrado.",
            f"Recibe unos {number} visitantes al año, pero cierra en {month}.",
            f"Solo cierra en {month} y atrae a unos {number} visitantes al año.",
            f"Cada año acuden unas {number} personas, aunque nunca en {month}.",
        ],
    ]


def _book(f: Facts) -> list[list[str]]:
    place, theme, genre = PLACES[f.place], a(f.theme), f.genre
    return [
        [
            f'"{f.name}" es {a(genre)} de {f.person}, {agree(genre, "publicado")} en {f.year}.',
            f'En {f.year} {f.person} publicó {the(genre)} "{f.name}".',
            f'{f.person} escribió {the(genre)} "{f.name}", que apareció en {f.year}.',
            f'{up(the(genre))} "{f.name}", de {f.person}, salió a la luz en {f.year}.',
        ],
        [
            f"Habla de {theme} en {place}.",
            f"La historia se desarrolla en {place} y trata de {theme}.",
            f"La acción, situada en {place}, gira en torno a {theme}.",
            f"Lleva al lector a {place} y cuenta la historia de {theme}.",
        ],
        [
            f"Se ha traducido a {f.number} idiomas.",
            f"Los lectores pueden disfrutar del texto en {f.number} idiomas.",
            f"Existen traducciones a {f.number} lenguas.",
            f"Hoy se puede leer en {f.number} lenguas.",
        ],
    ]


def _film(f: Facts) -> list[list[str]]:
    place, theme, genre, look = PLACES[f.place], a(f.theme), f.genre, WORDS[f.colour]
    return [
        [
            f'"{f.name}" es {a(genre)} de {f.person}, {agree(genre, "estrenado")} en {f.year}.',
            f'{f.person} dirigió {the(genre)} "{f.name}" en {f.year}.',
            f'{up(the(genre))} "{f.name}", de {f.person}, llegó a los cines en {f.year}.',
            f'En {f.year} {f.person} presentó {the(genre)} "{f.name}".',
        ],
        [
            f"Se rodó en {place} y trata de {theme}.",
            f"Rodada en {place}, la película habla de {theme}.",
            f"La historia de {theme} se filmó en {place}.",
            f"Cuenta la historia de {theme}; {place} sirvió de escenario.",
        ],
        [
            f"Es una película {look} de {f.number} minutos.",
            f"Esta película {look} dura {f.number} minutos.",
            f"Se trata de una película {look} con una duración de {f.number} minutos.",
            f"La duración de esta película {look} es de {f.number} minutos.",
        ],
    ]


def _band(f: Facts) -> list[list[str]]:
    place, genre, number, instrument = PLACES[f.place], f.genre, NUMBERS[f.number], the(f.instrument)
    return [
        [
            f"{f.name} fue un grupo de {noun(genre)} fundado en {place} en {f.year}.",
            f"El grupo de {noun(genre)} {f.name} se formó en {f.year} en {place}.",
            f"En {f.year} nació en {place} el grupo {f.name}, dedicado {to(the(genre))}.",
            f"{f.name}, un grupo de {noun(genre)} de {place}, empezó a tocar en {f.year}.",
        ],
        [
            f"Tenía {number} miembros, y {instrument} marcaba su sonido.",
            f"Sus {number} miembros daban el papel principal {to(instrument)}.",
            f"{up(instrument)} definía el sonido de sus {number} músicos.",
            f"Contaba con {number} músicos y {instrument} era la base de su sonido.",
        ],
        [
            f"El grupo se separó en {f.year2}.",
            f"Dio su último concierto en {f.year2}.",
            f"En {f.year2} los músicos tomaron caminos distintos.",
            f"Su historia terminó en {f.year2}.",
        ],
    ]


def _battle(f: Facts) -> list[list[str]]:
    country, month, stone, number = COUNTRIES[f.country], MONTHS[f.month], WORDS[f.material], thousands(f.number)
    monument = a(f.monument)
    return [
        [
            f"La batalla de {f.name} se libró en {country} en {month} de {f.year}.",
            f"En {month} de {f.year} tuvo lugar en {country} la batalla de {f.name}.",
            f"La batalla de {f.name}, en {country}, data de {month} de {f.year}.",
            f"Cerca de {f.name}, en {country}, se libró una batalla en {month} de {f.year}.",
        ],
        [
            f"Participaron unos {number} soldados y venció el general {f.person}.",
            f"El general {f.person} ganó este combate de unos {number} soldados.",
            f"Allí lucharon unos {number} hombres, {and_(f.person)} mandó a los vencedores.",
            f"La victoria fue del general {f.person}; combatieron unos {number} hombres.",
        ],
        [
            f"{up(monument)} de {stone} recuerda a los muertos.",
            f"Hoy se alza en el campo {monument} de {stone}.",
            f"Los caídos son recordados con {monument} de {stone}.",
            f"En aquel lugar hay ahora {monument} de {stone}.",
        ],
    ]


def _bird(f: Facts) -> list[list[str]]:
    bird, country, habitat = f"{the(f.animal)} de {f.name}", COUNTRIES[f.country], the(f.habitat)
    colour, food = WORDS[f.colour], WORDS[f.food]
    return [
        [
            f"{up(bird)} es un ave propia de {habitat} de {country}.",
            f"{up(bird)} vive en {habitat} de {country}.",
            f"En {habitat} de {country} vive {bird}.",
            f"{up(habitat)} de {country} son el hogar {'del' if bird[:2] == 'el' else 'de la'} {bird[3:]}.",
        ],
        [
            f"La especie fue descrita por primera vez en {f.year} por {f.person}.",
            f"{f.person} hizo la primera descripción de la especie en {f.year}.",
            f"La ciencia conoce esta ave desde {f.year} gracias a {f.person}.",
            f"{f.person} dio a conocer este animal en {f.year}.",
        ],
        [
            f"Su plumaje es {colour} y se alimenta de {food}.",
            f"Tiene el plumaje {colour} y come {food}.",
            f"Esta ave de plumaje {colour} come sobre todo {food}.",
            f"Se alimenta de {food} y se reconoce por su plumaje {colour}.",
        ],
    ]


def _railway(f: Facts) -> list[list[str]]:
    place, place2, product = PLACES[f.place], PLACES[f.place2], noun(f.product)
    return [
        [
            f"El ferrocarril {f.name} une {place} y {place2} a lo largo de {f.number} kilómetros.",
            f"El ferrocarril {f.name} recorre {f.number} kilómetros, de {place} a {place2}.",
            f"Entre {place} y {place2}, el ferrocarril {f.name} cubre {f.number} kilómetros.",
            f"{place} y {place2} están unidas por el ferrocarril {f.name}, de {f.number} kilómetros.",
        ],
        [
            f"Se inauguró en {f.year} y se electrificó en {f.year2}.",
            f"Abierto en {f.year}, es eléctrico desde {f.year2}.",
            f"Los trenes circulan desde {f.year}, con energía eléctrica a partir de {f.year2}.",
            f"Está en servicio desde {f.year} y fue electrificado en {f.year2}.",
        ],
        [
            f"Tiene {f.number2} túneles y también transporta {product}.",
            f"Además de viajeros transporta {product}, a través de {f.number2} túneles.",
            f"Sus trenes llevan {product} y pasajeros por {f.number2} túneles.",
            f"Viajeros y cargas de {product} pasan por sus {f.number2} túneles.",
        ],
    ]


def _ship(f: Facts) -> list[list[str]]:
    place, product, fate = PLACES[f.place], noun(f.product), WORDS[f.fate]
    return [
        [
            f"El {f.name} fue {a(f.ship)} {agree(f.ship, 'botado')} en {place} en {f.year}.",
            f"{up(the(f.ship))} {f.name} fue {agree(f.ship, 'botado')} en {f.year} en {place}.",
            f"En {f.year} {the(f.ship)} {f.name} salió del astillero de {place}.",
            f"Botado en {place} en {f.year}, el {f.name} era {a(f.ship)}.",
        ],
        [
            f"Medía {f.number} metros de largo y transportaba {product}.",
            f"Solía llevar {product} y tenía {f.number} metros de largo.",
            f"Con una eslora de {f.number} metros, transportaba {product}.",
            f"Llevaba {product} por los mares y medía {f.number} metros.",
        ],
        [
            f"En {f.year2} el barco {fate}.",
            f"El barco {fate} en {f.year2}.",
            f"Muchos viajes después, en {f.year2}, el barco {fate}.",
            f"Navegó hasta {f.year2}, cuando el barco {fate}.",
        ],
    ]


def _festival(f: Facts) -> list[list[str]]:
    place, month, number, venue = PLACES[f.place], MONTHS[f.month], thousands(f.number), the(f.venue)
    art, the_art = noun(f.genre), the(f.genre)
    return [
        [
            f"El festival de {art} {f.name} se celebra cada {month} en {place}.",
            f"Cada {month}, el Festival {f.name} lleva {the_art} a {place}.",
            f"El Festival {f.name} de {place} está dedicado {to(the_art)} y tiene lugar en {month}.",
            f"{place} celebra {the_art} cada {month} en el Festival {f.name}.",
        ],
        [
            f"Fue fundado en {f.year} por {f.person}.",
            f"{f.person} lo puso en marcha en {f.year}.",
            f"Se debe a {f.person} y se celebró por primera vez en {f.year}.",
            f"La primera edición, a cargo de {f.person}, fue en {f.year}.",
        ],
        [
            f"Se celebra en {venue} y atrae a unas {number} personas.",
            f"Unos {number} visitantes acuden {to(venue)} para asistir.",
            f"Unas {number} personas se reúnen en {venue}.",
            f"Reúne a unos {number} espectadores en {venue}.",
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
    """The Spanish article: `variant` as in `facts.compose`, `rng` decides what it leaves open."""
    archive = [
        f"Su número de archivo es {facts.archive}.",
        f"En el archivo, la ficha tiene el número {facts.archive}.",
        f"Su ficha de archivo lleva el número {facts.archive}.",
    ]
    return compose(facts, rng, variant, _WRITE[facts.kind](facts), archive)
