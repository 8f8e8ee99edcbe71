"""French articles: the sentences of every kind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .articles_words_fr import (
    MONTHS,
    NOUNS,
    NUMBERS,
    PLACES,
    PROFESSIONS,
    WORDS,
    a,
    agree,
    in_country,
    its,
    noun,
    of,
    of_country,
    some,
    the,
    thousands,
    to,
    up,
    with_the,
)
from .facts import Facts, compose


def _person(f: Facts) -> list[list[str]]:
    male = f.gender == "m"
    profession = PROFESSIONS[f.profession][0 if male else 1]
    il, un, le, e = ("il", "un", "le", "") if male else ("elle", "une", "la", "e")
    title = with_the(f.gender, profession)
    place, place2, work = PLACES[f.place], PLACES[f.place2], WORDS[f.work]
    return [
        [
            f"{f.name} fut {un} {profession} né{e} à {place} en {f.year}.",
            f"{up(title)} {f.name} naquit en {f.year} à {place}.",
            f"Né{e} à {place} en {f.year}, {f.name} devint {profession}.",
            f"{f.name}, qui naquit à {place} en {f.year}, travailla comme {profession}.",
            f"C'est à {place} que naquit en {f.year} {title} {f.name}.",
        ],
        [
            f"En {f.year2}, {il} s'installa à {place2}.",
            f"{up(il)} s'établit à {place2} en {f.year2}.",
            f"À partir de {f.year2}, {il} vécut et travailla à {place2}.",
            f"Dès {f.year2}, {il} eut sa maison à {place2}.",
            f"L'année {f.year2} {le} mena à {place2}, où {il} resta.",
        ],
        [
            f"{up(il)} est surtout connu{e} pour ses {work}.",
            f"Ses {work} {le} rendirent célèbre.",
            f"On se souvient aujourd'hui surtout de ses {work}.",
            f"Sa renommée repose sur ses {work}.",
        ],
    ]


def _city(f: Facts) -> list[list[str]]:
    place, country, of_land = PLACES[f.place], in_country(f.country), of_country(f.country)
    product, number = f.product, thousands(f.number)
    return [
        [
            f"{f.name} est une ville {of_land}, près {of(place)}.",
            f"La ville {of(f.name)} se trouve {country}, non loin {of(place)}.",
            f"Près {of(place)}, {country}, se trouve la ville {of(f.name)}.",
            f"{f.name}, une ville {of_land}, est située à peu de distance {of(place)}.",
        ],
        [
            f"Elle fut fondée en {f.year} et compte environ {number} habitants.",
            f"Fondée en {f.year}, elle compte près de {number} habitants.",
            f"Environ {number} personnes vivent dans ce lieu, qui existe depuis {f.year}.",
            f"Son histoire remonte à {f.year} et sa population est d'environ {number} habitants.",
        ],
        [
            f"Elle est connue pour {its(product)}.",
            f"{up(its(product))} est célèbre bien au-delà de la région.",
            f"Beaucoup de ses familles vivent du commerce {some(product)}.",
            f"Les marchands viennent de loin pour acheter {its(product)}.",
        ],
    ]


def _river(f: Facts) -> list[list[str]]:
    place, animals, event = PLACES[f.place], WORDS[f.animal], WORDS[f.event]
    country, of_land = in_country(f.country), of_country(f.country)
    return [
        [
            f"La {f.name} est une rivière {of_land} d'une longueur de {f.number} kilomètres.",
            f"La {f.name}, une rivière {of_land}, est longue de {f.number} kilomètres.",
            f"Sur {f.number} kilomètres, la rivière {f.name} coule {country}.",
            f"La rivière {f.name} parcourt {f.number} kilomètres {country}.",
        ],
        [
            f"Elle passe près {of(place)} et, en {f.year}, elle {event}.",
            f"Sur son chemin, elle longe {place}, et en {f.year} elle {event}.",
            f"En {f.year}, la rivière, qui passe près {of(place)}, {event}.",
            f"La ville {of(place)} se trouve sur ses rives, et en {f.year} la rivière {event}.",
        ],
        [
            f"Des {animals} y vivent.",
            f"On y voit souvent des {animals}.",
            f"Les visiteurs peuvent y observer des {animals}.",
            f"Elle est connue pour ses {animals}.",
        ],
    ]


def _mountain(f: Facts) -> list[list[str]]:
    stone, animals, number = WORDS[f.material], WORDS[f.animal], thousands(f.number)
    country, of_land = in_country(f.country), of_country(f.country)
    first = "le premier" if f.gender == "m" else "la première"
    return [
        [
            f"Le mont {f.name} est un sommet {of_land} haut de {number} mètres.",
            f"Le mont {f.name}, {country}, culmine à {number} mètres.",
            f"Le mont {f.name} s'élève {country} et atteint {number} mètres.",
            f"Avec ses {number} mètres, le mont {f.name} domine les vallées {of_land}.",
        ],
        [
            f"Il fut gravi pour la première fois en {f.year} par {f.person}.",
            f"{f.person} atteignit le sommet pour la première fois en {f.year}.",
            f"La première ascension, en {f.year}, fut réussie par {f.person}.",
            f"En {f.year}, {f.person} fut {first} à en atteindre le sommet.",
        ],
        [
            f"Il est formé {of(stone)}, et des {animals} vivent sur ses pentes.",
            f"Des {animals} vivent sur ses pentes {of(stone)}.",
            f"Ses pentes {of(stone)} abritent des {animals}.",
            f"Entre ses rochers {of(stone)}, on peut voir des {animals}.",
        ],
    ]


def _bridge(f: Facts) -> list[list[str]]:
    place, material, event = PLACES[f.place], WORDS[f.material], a(f.event)
    return [
        [
            f"Le pont {f.name}, à {place}, fut construit en {f.year} en {material}.",
            f"Construit en {f.year}, le pont {f.name} {of(place)} est en {material}.",
            f"Le pont {f.name}, en {material}, se dresse à {place} depuis {f.year}.",
            f"En {f.year}, on construisit à {place} le pont {f.name}, en {material}.",
        ],
        [
            f"Il mesure {f.number} mètres et fut dessiné par {f.person}.",
            f"Long de {f.number} mètres, il est l'œuvre de l'architecte {f.person}.",
            f"Ses plans sont {of(f.person)} et sa longueur est de {f.number} mètres.",
            f"L'architecte de cet ouvrage de {f.number} mètres fut {f.person}.",
        ],
        [
            f"Après {event}, il fut restauré en {f.year2}.",
            f"{up(event)} rendit sa réparation nécessaire en {f.year2}.",
            f"Endommagé par {event}, il fut réparé en {f.year2}.",
            f"En {f.year2}, il fallut le restaurer à cause {of(event)}.",
        ],
    ]


def _museum(f: Facts) -> list[list[str]]:
    place, things, month, number = PLACES[f.place], WORDS[f.collection], MONTHS[f.month], thousands(f.number)
    old = f"{'un ancien' if NOUNS[f.building][0] == 'm' else 'une ancienne'} {noun(f.building)}"
    return [
        [
            f"Le musée {f.name} {of(place)} fut fondé en {f.year} et expose des {things}.",
            f"Fondé en {f.year}, le musée {f.name} {of(place)} abrite une collection {of(things)}.",
            f"Le musée {f.name}, ouvert à {place} en {f.year}, réunit des {things}.",
            f"Depuis {f.year}, le musée {f.name} {of(place)} présente des {things}.",
        ],
        [
            f"Il est installé dans {old}.",
            f"{up(old)} lui sert de cadre.",
            f"Son bâtiment était autrefois {a(f.building)}.",
            f"Autrefois, ses salles appartenaient à {a(f.building)}.",
        ],
        [
            f"Environ {number} personnes le visitent chaque année, mais il est fermé en {month}.",
            f"Il reçoit environ {number} visiteurs par an et ferme en {month}.",
            f"Fermé seulement en {month}, il attire environ {number} visiteurs par an.",
            f"Chaque année viennent environ {number} visiteurs, mais jamais en {month}.",
        ],
    ]


def _book(f: Facts) -> list[list[str]]:
    place, theme, genre = PLACES[f.place], of(a(f.theme)), f.genre
    return [
        [
            f'"{f.name}" est {a(genre)} {of(f.person)}, {agree(genre, "publié")} en {f.year}.',
            f'En {f.year}, {f.person} publia {the(genre)} "{f.name}".',
            f'{f.person} écrivit {the(genre)} "{f.name}", qui parut en {f.year}.',
            f'{up(the(genre))} "{f.name}", {of(f.person)}, parut en {f.year}.',
        ],
        [
            f"L'histoire se déroule à {place} et parle {theme}.",
            f"Situé à {place}, le récit parle {theme}.",
            f"Le récit mène le lecteur à {place} et raconte l'histoire {theme}.",
            f"On y suit à {place} l'histoire {theme}.",
        ],
        [
            f"L'œuvre a été traduite en {f.number} langues.",
            f"Les lecteurs peuvent découvrir le texte en {f.number} langues.",
            f"Il existe des traductions en {f.number} langues.",
            f"Aujourd'hui, on peut lire l'ouvrage en {f.number} langues.",
        ],
    ]


def _film(f: Facts) -> list[list[str]]:
    place, theme, genre, look = PLACES[f.place], of(a(f.theme)), f.genre, WORDS[f.colour]
    return [
        [
            f'"{f.name}" est {a(genre)} {of(f.person)}, {agree(genre, "sorti")} en {f.year}.',
            f'{f.person} réalisa {the(genre)} "{f.name}" en {f.year}.',
            f'{up(the(genre))} "{f.name}", {of(f.person)}, arriva dans les salles en {f.year}.',
            f'En {f.year}, {f.person} présenta {the(genre)} "{f.name}".',
        ],
        [
            f"Le film fut tourné à {place} et parle {theme}.",
            f"Tourné à {place}, le film raconte l'histoire {theme}.",
            f"L'histoire {theme} fut filmée à {place}.",
            f"On y raconte l'histoire {theme} dans le décor {of(place)}.",
        ],
        [
            f"C'est un film {look} de {f.number} minutes.",
            f"Ce film {look} dure {f.number} minutes.",
            f"Il s'agit d'un film {look} d'une durée de {f.number} minutes.",
            f"La durée de ce film {look} est de {f.number} minutes.",
        ],
    ]


def _band(f: Facts) -> list[list[str]]:
    place, genre, number, instrument = PLACES[f.place], f.genre, NUMBERS[f.number], the(f.instrument)
    return [
        [
            f"{f.name} fut un groupe de {noun(genre)} fondé à {place} en {f.year}.",
            f"Le groupe de {noun(genre)} {f.name} se forma en {f.year} à {place}.",
            f"En {f.year} naquit à {place} le groupe {f.name}, voué {to(the(genre))}.",
            f"{f.name}, un groupe de {noun(genre)} venu {of(place)}, commença à jouer en {f.year}.",
        ],
        [
            f"Il comptait {number} membres, et {instrument} marquait sa musique.",
            f"Ses {number} membres donnaient le premier rôle {to(instrument)}.",
            f"{up(instrument)} dominait le son de ses {number} musiciens.",
            f"Ses {number} musiciens fondaient leur son sur {instrument}.",
        ],
        [
            f"Le groupe se sépara en {f.year2}.",
            f"Il donna son dernier concert en {f.year2}.",
            f"En {f.year2}, les musiciens partirent chacun de leur côté.",
            f"Son histoire prit fin en {f.year2}.",
        ],
    ]


def _battle(f: Facts) -> list[list[str]]:
    country, month, stone, number = in_country(f.country), MONTHS[f.month], WORDS[f.material], thousands(f.number)
    monument = a(f.monument)
    return [
        [
            f"La bataille {of(f.name)} eut lieu {country} en {month} {f.year}.",
            f"En {month} {f.year}, la bataille {of(f.name)} se déroula {country}.",
            f"La bataille {of(f.name)}, {country}, date {of(month)} {f.year}.",
            f"Près {of(f.name)}, {country}, une bataille fut livrée en {month} {f.year}.",
        ],
        [
            f"Environ {number} soldats y participèrent, et le général {f.person} l'emporta.",
            f"Le général {f.person} gagna ce combat d'environ {number} soldats.",
            f"Environ {number} hommes y combattirent, et {f.person} mena les vainqueurs.",
            f"La victoire revint au général {f.person} après un combat d'environ {number} hommes.",
        ],
        [
            f"{up(monument)} en {stone} y honore les morts.",
            f"Aujourd'hui, {monument} en {stone} se dresse sur les lieux.",
            f"Les morts sont honorés par {monument} en {stone}.",
            f"Sur les lieux, on voit maintenant {monument} en {stone}.",
        ],
    ]


def _bird(f: Facts) -> list[list[str]]:
    bird, of_land, habitat = f"{the(f.animal)} {of(f.name)}", of_country(f.country), the(f.habitat)
    colour, food = WORDS[f.colour], of(WORDS[f.food])
    return [
        [
            f"{up(bird)} est un oiseau {of(habitat)} {of_land}.",
            f"{up(bird)} vit dans {habitat} {of_land}.",
            f"Dans {habitat} {of_land} vit {bird}.",
            f"{up(habitat)} {of_land} abritent {bird}.",
        ],
        [
            f"Cette espèce fut décrite pour la première fois en {f.year} par {f.person}.",
            f"{f.person} donna la première description de l'espèce en {f.year}.",
            f"La science connaît cet oiseau depuis {f.year} grâce à {f.person}.",
            f"{f.person} fit connaître cet animal en {f.year}.",
        ],
        [
            f"Son plumage est {colour} et sa nourriture se compose {food}.",
            f"Cet oiseau au plumage {colour} se nourrit surtout {food}.",
            f"L'animal, au plumage {colour}, se nourrit {food}.",
            f"Reconnaissable à son plumage {colour}, l'oiseau se nourrit {food}.",
        ],
    ]


def _railway(f: Facts) -> list[list[str]]:
    place, place2, product = PLACES[f.place], PLACES[f.place2], f.product
    return [
        [
            f"Le chemin de fer {f.name} relie {place} à {place2} sur {f.number} kilomètres.",
            f"Le chemin de fer {f.name} va {of(place)} à {place2} et mesure {f.number} kilomètres.",
            f"Entre {place} et {place2}, le chemin de fer {f.name} parcourt {f.number} kilomètres.",
            f"{place} et {place2} sont reliées par le chemin de fer {f.name}, long de {f.number} kilomètres.",
        ],
        [
            f"Il fut inauguré en {f.year} et électrifié en {f.year2}.",
            f"Ouvert en {f.year}, il est électrique depuis {f.year2}.",
            f"Les trains y circulent depuis {f.year}, à l'électricité depuis {f.year2}.",
            f"En service depuis {f.year}, il fut électrifié en {f.year2}.",
        ],
        [
            f"Il compte {f.number2} tunnels et transporte aussi {some(product)}.",
            f"Outre les voyageurs, il transporte {some(product)} à travers {f.number2} tunnels.",
            f"Ses trains acheminent voyageurs et {noun(product)} à travers {f.number2} tunnels.",
            f"Voyageurs et cargaisons {of(noun(product))} passent par ses {f.number2} tunnels.",
        ],
    ]


def _ship(f: Facts) -> list[list[str]]:
    place, cargo, fate, name = PLACES[f.place], some(f.product), WORDS[f.fate], with_the("m", f.name)
    launched = agree(f.ship, "lancé")
    return [
        [
            f"{up(name)} fut {a(f.ship)} {launched} à {place} en {f.year}.",
            f"{up(the(f.ship))} {f.name} fut {launched} en {f.year} à {place}.",
            f"En {f.year}, {the(f.ship)} {f.name} quitta le chantier naval {of(place)}.",
            f"Lancé à {place} en {f.year}, {name} était {a(f.ship)}.",
        ],
        [
            f"Le navire mesurait {f.number} mètres et transportait {cargo}.",
            f"Long de {f.number} mètres, le navire transportait surtout {cargo}.",
            f"Ce bateau de {f.number} mètres transportait {cargo} à travers les mers.",
            f"On y chargeait {cargo}, et sa longueur était de {f.number} mètres.",
        ],
        [
            f"En {f.year2}, le navire {fate}.",
            f"Le navire {fate} en {f.year2}.",
            f"Bien des voyages plus tard, en {f.year2}, le navire {fate}.",
            f"Le navire servit jusqu'en {f.year2}, année où il {fate}.",
        ],
    ]


def _festival(f: Facts) -> list[list[str]]:
    place, month, number, art = PLACES[f.place], MONTHS[f.month], thousands(f.number), the(f.genre)
    venue = f"sur {the(f.venue)}" if f.venue == "cathedral_square" else to(the(f.venue))
    return [
        [
            f"Le festival {of(noun(f.genre))} {f.name} se tient chaque année en {month} à {place}.",
            f"Chaque année en {month}, le festival {f.name} fait vivre {art} à {place}.",
            f"Le festival {f.name} {of(place)} est consacré {to(art)} et a lieu en {month}.",
            f"{place} fête {art} chaque année en {month} lors du festival {f.name}.",
        ],
        [
            f"Il fut fondé en {f.year} par {f.person}.",
            f"{f.person} le créa en {f.year}.",
            f"La première édition, dirigée par {f.person}, eut lieu en {f.year}.",
            f"On le doit à {f.person} et ses débuts datent de {f.year}.",
        ],
        [
            f"Il se tient {venue} et attire environ {number} personnes.",
            f"Environ {number} visiteurs se retrouvent {venue}.",
            f"Il réunit environ {number} spectateurs {venue}.",
            f"{up(venue)}, il accueille environ {number} spectateurs.",
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
    """The French article: `variant` as in `facts.compose`, `rng` decides what it leaves open."""
    archive = [
        f"Son numéro d'archives est {facts.archive}.",
        f"Sa fiche d'archives porte le numéro {facts.archive}.",
        f"Les archives lui donnent le numéro {facts.archive}.",
    ]
    return compose(facts, rng, variant, _WRITE[facts.kind](facts), archive)
