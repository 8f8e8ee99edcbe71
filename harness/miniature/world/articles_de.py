"""German articles: the sentences of every kind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import articles_words_de as words
from .articles_words_de import (
    dative_plural,
    definite,
    in_country,
    indefinite,
    noun,
    of_country,
    proper,
    thousands,
    through_country,
    up,
)
from .facts import Facts, compose


def _person(f: Facts) -> list[list[str]]:
    man = f.gender == "m"
    profession = words.PROFESSIONS[f.profession] + ("" if man else "in")
    the, er, ihn, sein, seine = ("der", "er", "ihn", "sein", "seine") if man else ("die", "sie", "sie", "ihr", "ihre")
    place, place2, work = proper(f.place), proper(f.place2), words.PLURALS[f.work]
    return [
        [
            f"{f.name} war {profession} und wurde {f.year} in {place} geboren.",
            f"{up(the)} {profession} {f.name} wurde im Jahr {f.year} in {place} geboren.",
            f"{f.name}, im Jahr {f.year} in {place} geboren, arbeitete als {profession}.",
            f"In {place} kam {f.year} {the} {profession} {f.name} zur Welt.",
        ],
        [
            f"Im Jahr {f.year2} zog {er} nach {place2}.",
            f"{up(er)} ließ sich {f.year2} in {place2} nieder.",
            f"Ab {f.year2} lebte und arbeitete {er} in {place2}.",
            f"{up(sein)} Weg führte {ihn} {f.year2} nach {place2}.",
        ],
        [
            f"Bekannt ist {er} vor allem für {seine} {work}.",
            f"{up(seine)} {work} machten {ihn} berühmt.",
            f"Heute erinnert man sich vor allem an {seine} {work}.",
            f"Viele kennen {ihn} bis heute durch {seine} {work}.",
        ],
    ]


def _city(f: Facts) -> list[list[str]]:
    place, where, product, number = proper(f.place), in_country(f.country), noun(f.product), thousands(f.number)
    gender = words.NOUNS[f.product][0]
    her, her4 = ("ihre", "ihre") if gender == "f" else ("ihr", "ihren" if gender == "m" else "ihr")
    return [
        [
            f"{f.name} ist eine Stadt {where}, unweit von {place}.",
            f"Die Stadt {f.name} liegt {where} in der Nähe von {place}.",
            f"Unweit von {place} liegt {where} die Stadt {f.name}.",
            f"{f.name}, eine Stadt {where}, befindet sich nahe bei {place}.",
        ],
        [
            f"Sie wurde {f.year} gegründet und hat rund {number} Einwohner.",
            f"Gegründet im Jahr {f.year}, zählt sie heute etwa {number} Einwohner.",
            f"Rund {number} Menschen leben in dem Ort, den es seit {f.year} gibt.",
            f"Ihre Geschichte beginnt {f.year}, und etwa {number} Menschen wohnen dort.",
        ],
        [
            f"Sie ist für {her4} {product} bekannt.",
            f"{up(her)} {product} ist weit über die Region hinaus berühmt.",
            f"Viele Familien leben dort vom Handel mit {product}.",
            f"Händler kommen von weit her, um dort {product} zu kaufen.",
        ],
    ]


def _river(f: Facts) -> list[list[str]]:
    place, animals, (verb, rest) = proper(f.place), words.PLURALS[f.animal], words.EVENTS[f.event]
    return [
        [
            f"Die {f.name} ist ein Fluss {in_country(f.country)} mit einer Länge von {f.number} Kilometern.",
            f"Die {f.name}, ein Fluss {in_country(f.country)}, ist {f.number} Kilometer lang.",
            f"Auf {f.number} Kilometern fließt die {f.name} durch {through_country(f.country)}.",
            f"Der Fluss {f.name} durchquert {through_country(f.country)} und ist {f.number} Kilometer lang.",
        ],
        [
            f"Der Fluss führt an {place} vorbei und {verb} {f.year} {rest}.",
            f"An den Ufern liegt {place}; im Jahr {f.year} {verb} der Fluss {rest}.",
            f"Im Jahr {f.year} {verb} der Fluss, der an {place} vorbeifließt, {rest}.",
            f"Auf dem Weg liegt {place}, und {f.year} {verb} der Fluss {rest}.",
        ],
        [
            f"Im Wasser und am Ufer leben {animals}.",
            f"{animals} sind dort oft zu sehen.",
            f"Besucher können dort {animals} beobachten.",
            f"Bekannt ist der Fluss für seine {animals}.",
        ],
    ]


def _mountain(f: Facts) -> list[list[str]]:
    the = "das" if f.name.endswith(("horn", "kar")) else "der"
    stone, animals = noun(f.material), words.PLURALS[f.animal]
    first = "Erster" if f.gender == "m" else "Erste"
    return [
        [
            f"{up(the)} {f.name} ist ein Berg {in_country(f.country)} und {f.number} Meter hoch.",
            f"{up(the)} {f.name}, ein Berg {in_country(f.country)}, erreicht {f.number} Meter.",
            f"{up(in_country(f.country))} erhebt sich {the} {f.name} bis auf {f.number} Meter.",
            f"Mit {f.number} Metern überragt {the} {f.name} die Täler {of_country(f.country)}.",
        ],
        [
            f"Die erste Besteigung gelang {f.person} im Jahr {f.year}.",
            f"{f.person} bestieg den Berg {f.year} als {first}.",
            f"Im Jahr {f.year} stand {f.person} als {first} auf dem Gipfel.",
            f"Erstmals bestiegen wurde der Berg {f.year} von {f.person}.",
        ],
        [
            f"Der Berg besteht aus {stone}, und an den Hängen leben {animals}.",
            f"Die Hänge aus {stone} sind die Heimat von {dative_plural(animals)}.",
            f"Das Gestein ist {stone}; {animals} leben an den Hängen.",
            f"Zwischen Felsen aus {stone} leben dort {animals}.",
        ],
    ]


def _bridge(f: Facts) -> list[list[str]]:
    place, material, (event, event4, event3) = proper(f.place), noun(f.material), indefinite(f.event)
    architect = "Der Architekt" if f.gender == "m" else "Die Architektin"
    return [
        [
            f"Die {f.name}-Brücke in {place} wurde {f.year} aus {material} gebaut.",
            f"Im Jahr {f.year} wurde in {place} die {f.name}-Brücke aus {material} errichtet.",
            f"Die {f.name}-Brücke, gebaut aus {material}, steht seit {f.year} in {place}.",
            f"Seit {f.year} steht in {place} die {f.name}-Brücke aus {material}.",
        ],
        [
            f"Das Bauwerk ist {f.number} Meter lang und wurde von {f.person} entworfen.",
            f"{architect} {f.person} zeichnete den Entwurf; die Länge beträgt {f.number} Meter.",
            f"Die Pläne stammen von {f.person}, und die Länge beträgt {f.number} Meter.",
            f"{f.person} entwarf das Bauwerk, das {f.number} Meter lang ist.",
        ],
        [
            f"Nach {event3} wurde die Brücke {f.year2} restauriert.",
            f"{up(event)} machte {f.year2} eine Reparatur nötig.",
            f"Durch {event4} beschädigt, wurde die Brücke {f.year2} erneuert.",
            f"Die Restaurierung im Jahr {f.year2} folgte auf {event4}.",
        ],
    ]


def _museum(f: Facts) -> list[list[str]]:
    place, things, month, number = proper(f.place), words.PLURALS[f.collection], proper(f.month), thousands(f.number)
    gender, building = words.NOUNS[f.building].split()
    ending = {"m": "er", "f": "e", "n": "es"}[gender]
    a, _, a3 = words.INDEFINITE[gender]
    return [
        [
            f"Das {f.name}-Museum in {place} wurde {f.year} gegründet und zeigt {things}.",
            f"Das {f.name}-Museum in {place} sammelt seit {f.year} {things}.",
            f"Seit {f.year} zeigt das {f.name}-Museum in {place} {things}.",
            f"In {place} wurde {f.year} das {f.name}-Museum für {things} eröffnet.",
        ],
        [
            f"Es befindet sich in {a3} ehemaligen {building}.",
            f"{up(a)} ehemalig{ending} {building} dient als Sitz.",
            f"Untergebracht ist es in {a3} früheren {building}.",
            f"Das Gebäude war früher {a} {building}.",
        ],
        [
            f"Rund {number} Menschen besuchen es jedes Jahr; im {month} ist es geschlossen.",
            f"Jährlich kommen etwa {number} Besucher, nur im {month} bleibt es geschlossen.",
            f"Es zählt rund {number} Gäste im Jahr und schließt im {month}.",
            f"Nur im {month} geschlossen, empfängt es jährlich etwa {number} Gäste.",
        ],
    ]


def _book(f: Facts) -> list[list[str]]:
    place, (theme3, theme4), (the, the4, _) = proper(f.place), words.THEMES[f.theme], definite(f.genre)
    which = "das" if words.NOUNS[f.genre][0] == "n" else "der"
    return [
        [
            f"„{f.name}“ ist {indefinite(f.genre)[0]} von {f.person} aus dem Jahr {f.year}.",
            f"Im Jahr {f.year} veröffentlichte {f.person} {the4} „{f.name}“.",
            f"{f.person} schrieb {the4} „{f.name}“, {which} {f.year} erschien.",
            f"{up(the)} „{f.name}“ von {f.person} erschien im Jahr {f.year}.",
        ],
        [
            f"Erzählt wird von {theme3} in {place}.",
            f"Die Geschichte spielt in {place} und handelt von {theme3}.",
            f"Es geht um {theme4} in {place}.",
            f"Die Handlung führt nach {place} und erzählt von {theme3}.",
        ],
        [
            f"Das Werk wurde in {f.number} Sprachen übersetzt.",
            f"Übersetzungen gibt es in {f.number} Sprachen.",
            f"Heute liegt das Werk in {f.number} Sprachen vor.",
            f"Gelesen wird das Werk in {f.number} Sprachen.",
        ],
    ]


def _film(f: Facts) -> list[list[str]]:
    place, (theme3, theme4), (the, the4, _) = proper(f.place), words.THEMES[f.theme], definite(f.genre)
    look = words.LOOKS[f.colour]
    return [
        [
            f"„{f.name}“ ist {indefinite(f.genre)[0]} von {f.person} aus dem Jahr {f.year}.",
            f"{f.person} drehte {f.year} {the4} „{f.name}“.",
            f"{up(the)} „{f.name}“ von {f.person} kam {f.year} in die Kinos.",
            f"Im Jahr {f.year} zeigte {f.person} zum ersten Mal {the4} „{f.name}“.",
        ],
        [
            f"Gedreht wurde in {place}; erzählt wird von {theme3}.",
            f"Der Film entstand in {place} und handelt von {theme3}.",
            f"In {place} gedreht, erzählt der Film von {theme3}.",
            f"Es geht um {theme4}; Drehort war {place}.",
        ],
        [
            f"Der Film dauert {f.number} Minuten und wurde {look} gedreht.",
            f"Die {f.number} Minuten wurden {look} aufgenommen.",
            f"{up(look)} aufgenommen, dauert der Film {f.number} Minuten.",
            f"Das Werk ist {f.number} Minuten lang und {look} gedreht.",
        ],
    ]


def _band(f: Facts) -> list[list[str]]:
    place, band, number = proper(f.place), words.BANDS[f.genre], words.NUMBERS[f.number]
    instrument = definite(f.instrument)[0]
    return [
        [
            f"{f.name} war eine {band}, die {f.year} in {place} gegründet wurde.",
            f"Die {band} {f.name} entstand {f.year} in {place}.",
            f"Im Jahr {f.year} wurde in {place} die {band} {f.name} gegründet.",
            f"{f.name}, eine {band} aus {place}, spielte ab {f.year} zusammen.",
        ],
        [
            f"Die Gruppe hatte {number} Mitglieder, und {instrument} prägte den Klang.",
            f"{up(number)} Musiker spielten mit, und {instrument} gab den Ton an.",
            f"Bei den {number} Mitgliedern stand {instrument} im Mittelpunkt.",
            f"{up(instrument)} bestimmte den Klang der {number} Musiker.",
        ],
        [
            f"Die Gruppe löste sich {f.year2} auf.",
            f"Das letzte Konzert fand {f.year2} statt.",
            f"Im Jahr {f.year2} gingen die Musiker getrennte Wege.",
            f"Das Ende der Gruppe kam {f.year2}.",
        ],
    ]


def _battle(f: Facts) -> list[list[str]]:
    where, when, number = in_country(f.country), f"im {proper(f.month)} {f.year}", thousands(f.number)
    monument, stone = indefinite(f.monument)[0], noun(f.material)
    return [
        [
            f"Die Schlacht bei {f.name} fand {when} {where} statt.",
            f"{up(when)} kam es {where} zur Schlacht bei {f.name}.",
            f"Die Schlacht bei {f.name} {where} wurde {when} geschlagen.",
            f"Bei {f.name} {where} wurde {when} eine Schlacht geschlagen.",
        ],
        [
            f"Rund {number} Soldaten nahmen teil, und General {f.person} siegte.",
            f"General {f.person} gewann diesen Kampf von etwa {number} Soldaten.",
            f"Etwa {number} Mann kämpften dort; {f.person} führte die Sieger an.",
            f"Der Sieg ging an General {f.person}; gekämpft hatten rund {number} Mann.",
        ],
        [
            f"{up(monument)} aus {stone} erinnert an die Toten.",
            f"Heute steht dort {monument} aus {stone}.",
            f"An die Toten erinnert {monument} aus {stone}.",
            f"Auf dem Feld steht heute {monument} aus {stone}.",
        ],
    ]


def _bird(f: Facts) -> list[list[str]]:
    gender, kind = words.NOUNS[f.animal].split()
    bird = f"{words.DEFINITE[gender][0]} {f.name}-{kind}"
    where = f"{words.HABITATS[f.habitat]} {of_country(f.country)}"
    colour, food = words.COLOURS[f.colour], words.PLURALS[f.food]
    food3 = "kleinen Fischen" if f.food == "small_fish" else dative_plural(food)
    return [
        [
            f"{up(bird)} ist ein Vogel, der {where} lebt.",
            f"{up(bird)} lebt {where}.",
            f"{up(where)} lebt {bird}.",
            f"{up(bird)} ist {where} zu Hause.",
        ],
        [
            f"Die erste Beschreibung schrieb {f.person} im Jahr {f.year}.",
            f"{f.person} beschrieb den Vogel {f.year} als {'Erster' if f.gender == 'm' else 'Erste'}.",
            f"Erstmals beschrieben wurde der Vogel {f.year} von {f.person}.",
            f"Der Wissenschaft ist der Vogel seit {f.year} durch {f.person} bekannt.",
        ],
        [
            f"Das Gefieder ist {colour}, und als Nahrung dienen {food}.",
            f"Der Vogel hat {colour}e Federn und frisst {food}.",
            f"Der {colour}e Vogel ernährt sich vor allem von {food3}.",
            f"Man erkennt den Vogel am {colour}en Gefieder; er frisst {food}.",
        ],
    ]


def _railway(f: Facts) -> list[list[str]]:
    place, place2, product = proper(f.place), proper(f.place2), noun(f.product)
    return [
        [
            f"Die {f.name}-Bahn verbindet {place} und {place2} auf {f.number} Kilometern.",
            f"Die {f.name}-Bahn führt über {f.number} Kilometer von {place} nach {place2}.",
            f"Zwischen {place} und {place2} fährt die {f.name}-Bahn auf {f.number} Kilometern.",
            f"Von {place} nach {place2} fährt die {f.name}-Bahn, {f.number} Kilometer weit.",
        ],
        [
            f"Sie wurde {f.year} eröffnet und {f.year2} elektrifiziert.",
            f"Im Jahr {f.year} eröffnet, fährt sie seit {f.year2} elektrisch.",
            f"Züge fahren hier seit {f.year}, mit Strom seit {f.year2}.",
            f"In Betrieb ist sie seit {f.year}; der Strom kam {f.year2}.",
        ],
        [
            f"Sie hat {f.number2} Tunnel und befördert auch {product}.",
            f"Neben Reisenden befördert sie {product} durch {f.number2} Tunnel.",
            f"Ihre Züge bringen {product} und Reisende durch {f.number2} Tunnel.",
            f"Menschen und {product} rollen durch ihre {f.number2} Tunnel.",
        ],
    ]


def _ship(f: Facts) -> list[list[str]]:
    place, product, (verb, rest) = proper(f.place), noun(f.product), words.EVENTS[f.fate]
    the, a = definite(f.ship)[0], indefinite(f.ship)[0]
    return [
        [
            f"Die {f.name} war {a} und lief {f.year} in {place} vom Stapel.",
            f"{up(the)} {f.name} lief {f.year} in {place} vom Stapel.",
            f"Im Jahr {f.year} verließ {the} {f.name} die Werft in {place}.",
            f"Die {f.name}, {a}, wurde {f.year} in {place} gebaut.",
        ],
        [
            f"Das Schiff war {f.number} Meter lang und beförderte {product}.",
            f"Geladen war meist {product}, und die Länge betrug {f.number} Meter.",
            f"Bei einer Länge von {f.number} Metern beförderte das Schiff {product}.",
            f"{product} war die Ladung des {f.number} Meter langen Schiffes.",
        ],
        [
            f"Im Jahr {f.year2} {verb} das Schiff {rest}.",
            f"Das Schiff {verb} {f.year2} {rest}.",
            f"Viele Fahrten später, im Jahr {f.year2}, {verb} das Schiff {rest}.",
            f"Nach langer Zeit auf See {verb} das Schiff {f.year2} {rest}.",
        ],
    ]


def _festival(f: Facts) -> list[list[str]]:
    place, month, venue, number = proper(f.place), proper(f.month), words.VENUES[f.venue], thousands(f.number)
    art, (_, art4, art3) = noun(f.genre), definite(f.genre)
    return [
        [
            f"Das {f.name}-Festival in {place} ist {art3} gewidmet und findet im {month} statt.",
            f"Jedes Jahr im {month} feiert {place} {art4} beim {f.name}-Festival.",
            f"Das {f.name}-Festival bringt jedes Jahr im {month} {art4} nach {place}.",
            f"Im {month} lädt das {f.name}-Festival für {art} nach {place} ein.",
        ],
        [
            f"Es wurde {f.year} von {f.person} gegründet.",
            f"{f.person} gründete es im Jahr {f.year}.",
            f"Das erste Fest leitete {f.person} im Jahr {f.year}.",
            f"Es geht auf {f.person} zurück und fand erstmals {f.year} statt.",
        ],
        [
            f"Rund {number} Menschen treffen sich dazu {venue}.",
            f"Es findet {venue} statt und zieht etwa {number} Menschen an.",
            f"Etwa {number} Besucher kommen {venue} zusammen.",
            f"Gefeiert wird {venue} mit rund {number} Gästen.",
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
    """The German article: `variant` as in `facts.compose`, `rng` decides what it leaves open."""
    archive = [
        f"Die Archivnummer lautet {facts.archive}.",
        f"Im Archiv steht der Eintrag unter der Nummer {facts.archive}.",
        f"Der Eintrag im Archiv trägt die Nummer {facts.archive}.",
    ]
    return compose(facts, rng, variant, _WRITE[facts.kind](facts), archive)
