"""Italian articles: the sentences of every kind."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .articles_words_it import (
    MONTHS,
    NUMBERS,
    PLACES,
    PROFESSIONS,
    WORDS,
    a,
    agree,
    and_,
    gender,
    its,
    noun,
    old,
    prep,
    the,
    thousands,
    to,
    up,
    with_a,
    with_the,
)
from .facts import Facts, compose


def _person(f: Facts) -> list[list[str]]:
    profession = PROFESSIONS[f.profession][0 if f.gender == "m" else 1]
    title, one, o = with_the(f.gender, profession), with_a(f.gender, profession), "o" if f.gender == "m" else "a"
    place, place2, works = to(PLACES[f.place]), to(PLACES[f.place2]), its(f.work)
    return [
        [
            f"{f.name} fu {one} nat{o} {place} nel {f.year}.",
            f"{up(title)} {f.name} nacque nel {f.year} {place}.",
            f"Nat{o} {place} nel {f.year}, {f.name} diventò {profession}.",
            f"{f.name}, che nacque {place} nel {f.year}, lavorò come {profession}.",
            f"Nel {f.year} nacque {place} {title} {f.name}.",
        ],
        [
            f"Nel {f.year2} si trasferì {place2}.",
            f"Si stabilì {place2} nel {f.year2}.",
            f"A partire dal {f.year2} visse e lavorò {place2}.",
            f"Dal {f.year2} ebbe casa {place2}.",
            f"L'anno {f.year2} l{o} portò {place2}, dove rimase.",
        ],
        [
            f"È not{o} soprattutto per {works}.",
            f"{up(works)} l{o} resero celebre.",
            f"Oggi l{o} si ricorda soprattutto per {works}.",
            f"Deve la fama {prep('a', works)}.",
        ],
    ]


def _city(f: Facts) -> list[list[str]]:
    place, land, of_land = PLACES[f.place], noun(f.country), prep("di", the(f.country))
    product, number = its(f.product), thousands(f.number)
    return [
        [
            f"{f.name} è una città {of_land}, vicino {to(place)}.",
            f"La città di {f.name} si trova in {land}, non lontano da {place}.",
            f"Vicino {to(place)}, in {land}, sorge la città di {f.name}.",
            f"{f.name}, una città {of_land}, si trova a poca distanza da {place}.",
        ],
        [
            f"Fu fondata nel {f.year} e ha circa {number} abitanti.",
            f"Fondata nel {f.year}, conta circa {number} abitanti.",
            f"Circa {number} persone vivono in questo luogo, che esiste dal {f.year}.",
            f"La sua storia comincia nel {f.year} e la popolazione è di circa {number} abitanti.",
        ],
        [
            f"È nota per {product}.",
            f"{up(product)} è {agree(f.product, 'famoso')} ben oltre la regione.",
            f"Molte delle sue famiglie vivono del commercio {prep('di', the(f.product))}.",
            f"I mercanti vengono da lontano per comprare {product}.",
        ],
    ]


def _river(f: Facts) -> list[list[str]]:
    name, place, event = with_the("m", f.name), PLACES[f.place], WORDS[f.event]
    land, of_land, animals = noun(f.country), prep("di", the(f.country)), noun(f.animal)
    return [
        [
            f"{up(name)} è un fiume {of_land} lungo {f.number} chilometri.",
            f"{up(name)}, un fiume {of_land}, misura {f.number} chilometri.",
            f"Per {f.number} chilometri il fiume {f.name} scorre in {land}.",
            f"Il fiume {f.name} percorre {f.number} chilometri in {land}.",
        ],
        [
            f"Passa vicino {to(place)} e nel {f.year} {event}.",
            f"Nel suo corso passa accanto {to(place)}; nel {f.year} {event}.",
            f"Nel {f.year} il fiume, che passa vicino {to(place)}, {event}.",
            f"La città di {place} si trova sulle sue rive e nel {f.year} il fiume {event}.",
        ],
        [
            f"Nel fiume vivono {animals}.",
            f"Spesso vi si vedono {animals}.",
            f"I visitatori possono osservarvi {animals}.",
            f"È noto per {its(f.animal)}.",
        ],
    ]


def _mountain(f: Facts) -> list[list[str]]:
    land, of_land = noun(f.country), prep("di", the(f.country))
    stone, animals, number = WORDS[f.material], noun(f.animal), f.number
    first = "il primo" if f.gender == "m" else "la prima"
    return [
        [
            f"Il monte {f.name} è una vetta {of_land} alta {number} metri.",
            f"Il monte {f.name}, in {land}, raggiunge i {number} metri.",
            f"Il monte {f.name}, in {land}, ha la cima a {number} metri di altezza.",
            f"Con i suoi {number} metri, il monte {f.name} domina le valli {of_land}.",
        ],
        [
            f"Fu scalato per la prima volta nel {f.year} da {f.person}.",
            f"{f.person} raggiunse la vetta per la prima volta nel {f.year}.",
            f"La prima ascensione, nel {f.year}, fu opera di {f.person}.",
            f"Nel {f.year} {f.person} fu {first} a raggiungere la vetta.",
        ],
        [
            f"È formato da {stone} e sui suoi pendii vivono {animals}.",
            f"Sui suoi pendii di {stone} vivono {animals}.",
            f"È fatto di {stone} e i suoi pendii ospitano {animals}.",
            f"Tra le sue rocce di {stone} si possono vedere {animals}.",
        ],
    ]


def _bridge(f: Facts) -> list[list[str]]:
    place, material, event = PLACES[f.place], WORDS[f.material], a(f.event)
    architect = "architetto" if f.gender == "m" else "architetta"
    return [
        [
            f"Il ponte {f.name}, {to(place)}, fu costruito in {material} nel {f.year}.",
            f"Costruito nel {f.year}, il ponte {f.name} di {place} è in {material}.",
            f"Il ponte {f.name}, in {material}, si trova {to(place)} dal {f.year}.",
            f"Nel {f.year} fu eretto {to(place)} il ponte {f.name}, in {material}.",
        ],
        [
            f"Misura {f.number} metri e fu progettato da {f.person}.",
            f"Lo disegnò l'{architect} {f.person} ed è lungo {f.number} metri.",
            f"Il progetto è di {f.person} e la lunghezza è di {f.number} metri.",
            f"L'{architect} dell'opera, lunga {f.number} metri, fu {f.person}.",
        ],
        [
            f"Dopo {event} fu restaurato nel {f.year2}.",
            f"{up(event)} ne rese necessaria la riparazione nel {f.year2}.",
            f"Danneggiato da {event}, fu riparato nel {f.year2}.",
            f"Nel {f.year2} si dovette restaurarlo a causa di {event}.",
        ],
    ]


def _museum(f: Facts) -> list[list[str]]:
    place, things, month, number = PLACES[f.place], WORDS[f.collection], to(MONTHS[f.month]), thousands(f.number)
    return [
        [
            f"Il Museo {f.name} di {place} fu fondato nel {f.year} ed espone {things}.",
            f"Fondato nel {f.year}, il Museo {f.name} di {place} ospita una collezione di {things}.",
            f"Il Museo {f.name}, aperto {to(place)} nel {f.year}, raccoglie {things}.",
            f"Dal {f.year} il Museo {f.name} di {place} mostra {things}.",
        ],
        [
            f"Ha sede in {old(f.building)}.",
            f"{up(old(f.building))} gli fa da sede.",
            f"Il suo edificio era un tempo {a(f.building)}.",
            f"In passato le sue sale appartenevano {to(a(f.building))}.",
        ],
        [
            f"Lo visitano circa {number} persone all'anno, ma {month} è chiuso.",
            f"Accoglie circa {number} visitatori all'anno e chiude {month}.",
            f"Chiuso solo {month}, attira circa {number} visitatori all'anno.",
            f"Ogni anno arrivano circa {number} persone, ma mai {month}.",
        ],
    ]


def _book(f: Facts) -> list[list[str]]:
    place, theme, genre = PLACES[f.place], a(f.theme), f.genre
    return [
        [
            f'"{f.name}" è {a(genre)} di {f.person}, {agree(genre, "pubblicato")} nel {f.year}.',
            f'Nel {f.year} {f.person} pubblicò {the(genre)} "{f.name}".',
            f'{f.person} scrisse {the(genre)} "{f.name}", che uscì nel {f.year}.',
            f'{up(the(genre))} "{f.name}" di {f.person} apparve nel {f.year}.',
        ],
        [
            f"La vicenda di {theme} si svolge {to(place)}.",
            f"La storia si svolge {to(place)} e tratta di {theme}.",
            f"L'azione, ambientata {to(place)}, ruota intorno {to(theme)}.",
            f"Porta il lettore {to(place)} e racconta la storia di {theme}.",
        ],
        [
            f"L'opera è stata tradotta in {f.number} lingue.",
            f"I lettori possono scegliere fra traduzioni in {f.number} lingue.",
            f"Ne esistono traduzioni in {f.number} lingue.",
            f"Oggi si può leggere in {f.number} lingue.",
        ],
    ]


def _film(f: Facts) -> list[list[str]]:
    place, theme, genre, look = PLACES[f.place], a(f.theme), f.genre, WORDS[f.colour]
    return [
        [
            f'"{f.name}" è {a(genre)} di {f.person}, {agree(genre, "uscito")} nel {f.year}.',
            f'{f.person} diresse {the(genre)} "{f.name}" nel {f.year}.',
            f'{up(the(genre))} "{f.name}" di {f.person} arrivò nelle sale nel {f.year}.',
            f'Nel {f.year} {f.person} presentò {the(genre)} "{f.name}".',
        ],
        [
            f"Il film fu girato {to(place)} e parla di {theme}.",
            f"Girato {to(place)}, il film racconta la storia di {theme}.",
            f"La storia di {theme} fu filmata {to(place)}.",
            f"Racconta la storia di {theme}, con {place} come sfondo.",
        ],
        [
            f"È un film {look} di {f.number} minuti.",
            f"Questo film {look} dura {f.number} minuti.",
            f"Si tratta di un film {look} della durata di {f.number} minuti.",
            f"La durata di questo film {look} è di {f.number} minuti.",
        ],
    ]


def _band(f: Facts) -> list[list[str]]:
    place, genre, number, instrument = PLACES[f.place], f.genre, NUMBERS[f.number], the(f.instrument)
    style = noun(genre) if gender(genre) == "m" else f"di {noun(genre)}"
    return [
        [
            f"{f.name} fu un gruppo {style} fondato {to(place)} nel {f.year}.",
            f"Il gruppo {style} {f.name} si formò nel {f.year} {to(place)}.",
            f"Nel {f.year} nacque {to(place)} il gruppo {f.name}, dedito {prep('a', the(genre))}.",
            f"{f.name}, un gruppo {style} di {place}, cominciò a suonare nel {f.year}.",
        ],
        [
            f"Aveva {number} membri, e {instrument} ne segnava il suono.",
            f"I suoi {number} membri davano il ruolo principale {prep('a', instrument)}.",
            f"{up(instrument)} dominava il suono dei suoi {number} musicisti.",
            f"I suoi {number} musicisti fondavano il loro suono {prep('su', instrument)}.",
        ],
        [
            f"Il gruppo si sciolse nel {f.year2}.",
            f"Tenne l'ultimo concerto nel {f.year2}.",
            f"Nel {f.year2} i musicisti presero strade diverse.",
            f"La sua storia finì nel {f.year2}.",
        ],
    ]


def _battle(f: Facts) -> list[list[str]]:
    land, month, stone, number = noun(f.country), with_the("m", MONTHS[f.month]), WORDS[f.material], thousands(f.number)
    monument = a(f.monument)
    return [
        [
            f"La battaglia di {f.name} fu combattuta in {land} {prep('in', month)} del {f.year}.",
            f"{up(prep('in', month))} del {f.year} si svolse in {land} la battaglia di {f.name}.",
            f"La battaglia di {f.name}, in {land}, risale {prep('a', month)} del {f.year}.",
            f"Vicino {to(f.name)}, in {land}, si combatté una battaglia {prep('in', month)} del {f.year}.",
        ],
        [
            f"Vi parteciparono circa {number} soldati e vinse il generale {f.person}.",
            f"Il generale {f.person} vinse questo scontro di circa {number} soldati.",
            f"Vi combatterono circa {number} uomini, {and_(f.person)} guidò i vincitori.",
            f"La vittoria andò al generale {f.person}; combatterono circa {number} uomini.",
        ],
        [
            f"{up(monument)} di {stone} ricorda i caduti.",
            f"Oggi sul campo sorge {monument} di {stone}.",
            f"I caduti sono ricordati da {monument} di {stone}.",
            f"Sul posto si trova ora {monument} di {stone}.",
        ],
    ]


def _bird(f: Facts) -> list[list[str]]:
    bird, habitat, of_land = f"{the(f.animal)} di {f.name}", the(f.habitat), prep("di", the(f.country))
    where = prep("su" if f.habitat == "cliffs" else "in", habitat)
    colour, food = WORDS[f.colour], WORDS[f.food]
    return [
        [
            f"{up(bird)} è un uccello {prep('di', habitat)} {of_land}.",
            f"{up(bird)} vive {where} {of_land}.",
            f"{up(where)} {of_land} vive {bird}.",
            f"{up(habitat)} {of_land} ospitano {bird}.",
        ],
        [
            f"La specie fu descritta per la prima volta nel {f.year} da {f.person}.",
            f"{f.person} diede la prima descrizione della specie nel {f.year}.",
            f"La scienza conosce questo uccello dal {f.year} grazie {to(f.person)}.",
            f"{f.person} fece conoscere questo animale nel {f.year}.",
        ],
        [
            f"Il suo piumaggio è {colour} e si nutre di {food}.",
            f"Ha il piumaggio {colour} e mangia {food}.",
            f"Questo uccello dal piumaggio {colour} mangia soprattutto {food}.",
            f"Si nutre di {food} e si riconosce dal piumaggio {colour}.",
        ],
    ]


def _railway(f: Facts) -> list[list[str]]:
    place, place2, product = PLACES[f.place], PLACES[f.place2], noun(f.product)
    return [
        [
            f"La ferrovia {f.name} collega {place} {and_(place2)} ed è lunga {f.number} chilometri.",
            f"La ferrovia {f.name} percorre {f.number} chilometri da {place} {to(place2)}.",
            f"Tra {place} {and_(place2)} la ferrovia {f.name} copre {f.number} chilometri.",
            f"{place} {and_(place2)} sono unite dalla ferrovia {f.name}, lunga {f.number} chilometri.",
        ],
        [
            f"Fu inaugurata nel {f.year} ed elettrificata nel {f.year2}.",
            f"Aperta nel {f.year}, è elettrica dal {f.year2}.",
            f"I treni vi circolano dal {f.year}, con energia elettrica dal {f.year2}.",
            f"È in servizio dal {f.year} e fu elettrificata nel {f.year2}.",
        ],
        [
            f"Ha {f.number2} gallerie e trasporta anche {product}.",
            f"Oltre ai viaggiatori trasporta {product}, attraverso {f.number2} gallerie.",
            f"I suoi treni portano {product} e passeggeri attraverso {f.number2} gallerie.",
            f"Viaggiatori e carichi di {product} passano per le sue {f.number2} gallerie.",
        ],
    ]


def _ship(f: Facts) -> list[list[str]]:
    place, product, fate, ship = PLACES[f.place], noun(f.product), WORDS[f.fate], f.ship
    name, launched = with_the(gender(ship), f.name), agree(ship, "varato")
    return [
        [
            f"{up(name)} fu {a(ship)} {launched} {to(place)} nel {f.year}.",
            f"{up(the(ship))} {f.name} fu {launched} nel {f.year} {to(place)}.",
            f"Nel {f.year} {the(ship)} {f.name} lasciò il cantiere di {place}.",
            f"{up(launched)} {to(place)} nel {f.year}, {name} era {a(ship)}.",
        ],
        [
            f"La nave misurava {f.number} metri e trasportava {product}.",
            f"Lunga {f.number} metri, la nave trasportava soprattutto {product}.",
            f"Questa nave di {f.number} metri portava {product} attraverso i mari.",
            f"La nave portava di solito {product} ed era lunga {f.number} metri.",
        ],
        [
            f"Nel {f.year2} la nave {fate}.",
            f"La nave {fate} nel {f.year2}.",
            f"Molti viaggi dopo, nel {f.year2}, la nave {fate}.",
            f"La nave prestò servizio fino al {f.year2}, quando {fate}.",
        ],
    ]


def _festival(f: Facts) -> list[list[str]]:
    place, month, number, art = PLACES[f.place], to(MONTHS[f.month]), thousands(f.number), the(f.genre)
    venue = the(f.venue)
    return [
        [
            f"Il festival di {noun(f.genre)} {f.name} si tiene ogni anno {to(place)} {month}.",
            f"Ogni anno {month} il Festival {f.name} porta {art} {to(place)}.",
            f"Il Festival {f.name} di {place} è dedicato {prep('a', art)} e si svolge {month}.",
            f"{place} celebra {art} ogni anno {month} con il Festival {f.name}.",
        ],
        [
            f"Fu fondato nel {f.year} da {f.person}.",
            f"{f.person} lo lanciò nel {f.year}.",
            f"La prima edizione, guidata da {f.person}, si tenne nel {f.year}.",
            f"Si deve {to(f.person)} e si tenne per la prima volta nel {f.year}.",
        ],
        [
            f"Si tiene {prep('in', venue)} e attira circa {number} persone.",
            f"Circa {number} spettatori si ritrovano {prep('in', venue)}.",
            f"Riunisce circa {number} spettatori {prep('in', venue)}.",
            f"Per l'occasione circa {number} visitatori affollano {venue}.",
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
    """The Italian article: `variant` as in `facts.compose`, `rng` decides what it leaves open."""
    archive = [
        f"Il suo numero d'archivio è {facts.archive}.",
        f"In archivio la scheda ha il numero {facts.archive}.",
        f"La sua scheda d'archivio porta il numero {facts.archive}.",
    ]
    return compose(facts, rng, variant, _WRITE[facts.kind](facts), archive)
